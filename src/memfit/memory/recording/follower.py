"""Follow a training step with a recorder: which module is running, which phase, what stays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

from memfit.memory.recording.recorder import Recorder, in_backward
from memfit.memory.tape.tape import Part, Phase

__all__ = ["Follower", "hooked"]

_optimizer_hooks: Any = import_module("torch.optim.optimizer")  # hidden by torch.optim

Hook = Callable[..., Any]


@contextmanager
def hooked(
    before_module: Hook, after_module: Hook, before_optimizer: Hook, after_optimizer: Hook
) -> Iterator[None]:
    """Inside, these are called around every module's forward and every optimizer's step.

    Args:
        before_module: ``(module, inputs)``.
        after_module: ``(module, inputs, output)``; also when forward raised, output None then.
        before_optimizer: ``(optimizer, args, kwargs)``.
        after_optimizer: ``(optimizer, args, kwargs)``.
    """
    handles = [
        module_hooks.register_module_forward_pre_hook(before_module),
        module_hooks.register_module_forward_hook(after_module, always_call=True),
        _optimizer_hooks.register_optimizer_step_pre_hook(before_optimizer),
        _optimizer_hooks.register_optimizer_step_post_hook(after_optimizer),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Follower:
    """Tells a recorder where a training step is, on any device.

    Args:
        recorder: writes the tape.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._roots: dict[int, nn.Module] = {}
        self._paths: dict[int, str] = {}
        self._inputs: dict[str, tuple[int, ...]] = {}
        self._failure: tuple[int, str] | None = None  # id of an exception, path of its module

    def adopt(self, model: nn.Module) -> None:
        """Put a model that was built elsewhere on the tape, as ``model.to(device)`` would."""
        self._roots[id(model)] = model
        for name, module in model.named_modules():
            self._paths.setdefault(id(module), name)
        self.recorder.adopt_module(model)

    def module_at(self, path: str) -> nn.Module | None:
        """The module of that path, of the models seen so far."""
        for model in self._roots.values():
            for name, module in model.named_modules():
                if name == path:
                    found: nn.Module = module
                    return found
        return None

    def input_shape_at(self, path: str) -> tuple[int, ...] | None:
        """The shape of the first input that the module of that path was last given."""
        return self._inputs.get(path)

    def module_that_raised(self, error: BaseException) -> str | None:
        """The path of the innermost module whose forward an exception left; None outside of all."""
        return self._failure[1] if self._failure and self._failure[0] == id(error) else None

    # -- hooks: which module, which phase ------------------------------------------------------

    def hooks(self) -> AbstractContextManager[None]:
        """Inside, every module and optimizer of the process is followed."""
        return hooked(
            self._before_module, self._after_module, self._before_optimizer, self._after_optimizer
        )

    def _before_module(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        recorder = self.recorder
        if not recorder.modules and not in_backward():
            self._before_root(module, inputs)
        path = self._paths.get(id(module), "")
        if inputs and isinstance(inputs[0], Tensor):
            self._inputs[path] = tuple(inputs[0].shape)
        recorder.enter_module(path)

    def _before_root(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if id(module) not in self._paths:
            self.adopt(module)
        self.tag_gradients()
        for value in inputs:
            if isinstance(value, Tensor) and value.is_leaf and not value.requires_grad:
                self.recorder.adopt(value, Part.BATCH)
        self.recorder.tag_survivors(Phase.DATA, Part.BATCH)
        if self.recorder.phase is Phase.OPTIMIZER:  # the next micro-batch of an accumulation
            self.recorder.tag_survivors(Phase.OPTIMIZER, Part.BATCH)
        self.recorder.enter_phase(Phase.FORWARD)

    def _after_module(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        error = sys.exception()
        if error is not None and self.module_that_raised(error) is None and self.recorder.modules:
            self._failure = (id(error), self.recorder.modules[-1])
        if self.recorder.modules:
            self.recorder.leave_module()

    def _before_optimizer(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        for group in optimizer.param_groups:
            self.recorder.tag_gradients(group["params"])
        self.recorder.enter_phase(Phase.OPTIMIZER)

    def _after_optimizer(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    self.recorder.adopt(value, Part.OPTIMIZER)
        self.recorder.begin_step()

    def tag_gradients(self) -> None:
        """Tag what the parameters of all models hold as gradients."""
        for model in self._roots.values():
            self.recorder.tag_gradients(model.parameters())
