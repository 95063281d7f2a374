"""What a script finds around it that is not as at home: no workers, windows, network, compiler."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from multiprocessing.process import BaseProcess
from typing import Any

import safetensors.torch
import torch

from memfit.scripts.shelter.shadow import Shadow
from memfit.scripts.told.job import ScriptJob
from memfit.torch_inside import without_modes

__all__ = ["BENCHMARK_KEPT_OFF", "Started", "arrange", "redirect_torch"]

#: What is noted where a script turns it on.
BENCHMARK_KEPT_OFF = "torch.backends.cudnn.benchmark was kept off."

#: Variables for libraries that would wait for a screen or the network; the user's own stand.
_VARIABLES = {"MPLBACKEND": "Agg", "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}


class Started:
    """Counts processes that a script starts and which could train."""

    def __init__(self) -> None:
        self.count = 0
        start = BaseProcess.start

        @wraps(start)
        def counted(process: Any) -> None:
            self.count += 1
            start(process)

        BaseProcess.start = counted  # type: ignore[method-assign,assignment]
        sys.addaudithook(self._audit)

    def _audit(self, event: str, values: tuple[Any, ...]) -> None:
        is_python = event == "subprocess.Popen" and "python" in str(values[0])
        if is_python or event == "os.fork":
            self.count += 1


def arrange(job: ScriptJob, note: Callable[[str], None]) -> None:
    """Prepare this process for a script.

    Args:
        job: what to run.
        note: is told what is otherwise than the script says.
    """
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    _leave_out_compiling(note)
    _trace_unseen()
    if job.is_benchmark_off:
        _keep_benchmark_off(note)


def _leave_out_compiling(note: Callable[[str], None]) -> None:
    def compiled(model: Any = None, **_: Any) -> Any:
        note("torch.compile was left out: the memory is that of eager mode.")
        return model if model is not None else lambda function: function

    torch.compile = compiled
    torch.nn.Module.compile = lambda *_, **__: compiled(1) and None  # type: ignore


def _trace_unseen() -> None:
    """TorchScript loses sight of a convolution's output where a dispatch mode sees it, too."""
    for name in ("trace", "trace_module"):
        trace: Any = getattr(torch.jit, name)

        def unseen(*args: Any, trace: Any = trace, **kwargs: Any) -> Any:
            with without_modes():
                return trace(*args, **kwargs)

        setattr(torch.jit, name, wraps(trace)(unseen))


def _keep_benchmark_off(note: Callable[[str], None]) -> None:
    def wish(_: Any, is_on: bool) -> None:
        if is_on:
            note(BENCHMARK_KEPT_OFF)

    type(torch.backends.cudnn).benchmark = property(lambda _: False, wish)  # type: ignore


def redirect_torch(shadow: Shadow) -> None:
    """Checkpoints, which compiled code writes, go where all other files go."""
    save, serialize = torch.save, safetensors.serialize_file

    @wraps(save)
    def save_aside(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        save(obj, shadow.to_write(f) if isinstance(f, (str, os.PathLike)) else f, *args, **kwargs)

    @wraps(serialize)
    def serialize_aside(tensors: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
        serialize(tensors, shadow.to_write(filename), *args, **kwargs)

    torch.save = save_aside
    for module in (safetensors, safetensors.torch):
        module.serialize_file = serialize_aside  # type: ignore[attr-defined]
