"""Start a process for each measurement, and take what comes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from memfit.measure.target import Target
from memfit.recipe.fields import FIELDS
from memfit.recipe.recipe import Recipe
from memfit.virtual_cuda.child import child_environment
from memfit.virtual_cuda.stubs import build_stubs

__all__ = ["PLAIN_STEPS", "Process", "recipe_facts", "run_in_turn", "run_process"]

#: Enough for times: those of the first two are not counted.
PLAIN_STEPS = 5

_ALLOCATOR_OPTIONS = "PYTORCH_ALLOC_CONF"
#: The user's own settings of what decides memory; the recipe alone decides. Sources, torch 2.11 to
#: 2.15: ``c10/core/AllocatorConfig.cpp``, ``c10/cuda/CUDACachingAllocator.cpp``,
#: ``aten/src/ATen/cuda/CublasHandlePool.cpp``, ``aten/src/ATen/Context.cpp``; CUDA's own:
#: "CUDA Environment Variables" in its programming guide.
_NOT_INHERITED = (
    _ALLOCATOR_OPTIONS, "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE", "TORCH_CUBLASLT_UNIFIED_WORKSPACE",
    "TORCH_BLAS_PREFER_CUBLASLT", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE",
    "CUDA_MODULE_LOADING",
)  # fmt: skip


@dataclass(frozen=True)
class Process:
    """One recipe at one micro-batch.

    Args:
        recipe: what decides memory.
        target: where.
        batch_size: the micro-batch.
        is_recorded: what the peak is made of, rather than how large it is.
        limit_seconds: a process that takes longer is ended.
        steps: of training, where nothing is recorded.
    """

    recipe: Recipe
    target: Target
    batch_size: int
    is_recorded: bool = False
    limit_seconds: float = 300.0
    steps: int = PLAIN_STEPS

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the process."""
        return {
            "recipe": recipe_facts(self.recipe),
            "target": self.target.facts(),
            "batch_size": self.batch_size,
            "is_recorded": self.is_recorded,
            "steps": self.steps,
        }


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """The fields that are not the usual ones, but for the micro-batch, as plain values."""
    return {
        name: value
        for name, value in recipe.to_dict().items()
        if name != "batch_size" and getattr(recipe, name) != FIELDS[name].default
    }


def run_process(process: Process) -> dict[str, Any]:
    """Measure in a fresh process.

    Returns:
        ``status`` (``ok``, ``out_of_memory``, ``crashed`` or ``timed_out``) with what was measured,
        or with a ``message``.
    """
    (answer,) = run_in_turn([process])
    return answer


def run_in_turn(processes: Sequence[Process]) -> list[dict[str, Any]]:
    """Measure one after another in one fresh process, which saves starting it for each.

    On a real GPU what one leaves behind could reach the next; a virtual one starts anew.

    Args:
        processes: on one target, with the same options of the allocator.

    Returns:
        The answers in order, each as :func:`run_process` gives it.
    """
    seconds = sum(process.limit_seconds for process in processes)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "memfit.measure.child"],
            input="".join(json.dumps(process.to_dict()) + "\n" for process in processes),
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # libraries print what they like
            timeout=seconds,
            env=_environment(processes[0]),
            check=False,
        )
    except subprocess.TimeoutExpired:
        late = {"status": "timed_out", "message": f"no end after {seconds:.0f} s"}
        return [late for _ in processes]
    answers = list(_answers(done.stdout))
    if done.returncode == 0 and len(answers) == len(processes):
        return answers
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    crashed = {"status": "crashed", "message": f"exit code {done.returncode}: {last[:300]}"}
    whole = answers[: len(processes) - 1]  # of a process that ended badly, the last is not trusted
    return [*whole, *[crashed] * (len(processes) - len(whole))]


def _answers(said: str) -> Iterator[dict[str, Any]]:
    for line in said.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and "status" in answer:
            yield answer


def _environment(process: Process) -> dict[str, str]:
    """The recipe's allocator, and CUDA's numbers of GPUs as NVML counts them."""
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if process.recipe.allocator:
        environment[_ALLOCATOR_OPTIONS] = process.recipe.allocator
    if process.target.kind == "virtual":
        environment |= child_environment(build_stubs(), process.target.card)
    return environment
