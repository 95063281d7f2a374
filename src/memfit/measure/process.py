"""Start a process for each measurement, and take what comes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from memfit.measure.target import Target
from memfit.recipe.fields import FIELDS
from memfit.recipe.recipe import Recipe
from memfit.virtual_cuda.child import child_environment
from memfit.virtual_cuda.stubs import build_stubs

__all__ = ["Process", "recipe_facts", "run_process"]

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
    """

    recipe: Recipe
    target: Target
    batch_size: int
    is_recorded: bool = False
    limit_seconds: float = 300.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the process."""
        return {
            "recipe": recipe_facts(self.recipe),
            "target": self.target.facts(),
            "batch_size": self.batch_size,
            "is_recorded": self.is_recorded,
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
    try:
        done = subprocess.run(
            [sys.executable, "-m", "memfit.measure.child"],
            input=json.dumps(process.to_dict()),
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # libraries print what they like
            timeout=process.limit_seconds,
            env=_environment(process),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"status": "timed_out", "message": f"no end after {process.limit_seconds:.0f} s"}
    return _answer_of(done)


def _answer_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    lines = done.stdout.strip().splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
        if done.returncode == 0 and "status" in answer:
            return answer
    except (IndexError, ValueError):
        pass
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"status": "crashed", "message": f"exit code {done.returncode}: {last[:300]}"}


def _environment(process: Process) -> dict[str, str]:
    """The recipe's allocator, and CUDA's numbers of GPUs as NVML counts them."""
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if process.recipe.allocator:
        environment[_ALLOCATOR_OPTIONS] = process.recipe.allocator
    if process.target.kind == "virtual":
        environment |= child_environment(build_stubs(), process.target.card)
    return environment
