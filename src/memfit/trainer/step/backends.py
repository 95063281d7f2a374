"""The switches of PyTorch that a recipe sets, and that are put back when its run ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from memfit.recipe.recipe import Recipe
from memfit.torch_inside import set_allocator_settings

__all__ = ["backends_of"]

_KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


@contextmanager
def backends_of(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Inside, PyTorch multiplies, convolves, attends and allocates as the recipe says.

    Args:
        recipe: ``precision`` tf32, ``cudnn_benchmark``, ``deterministic``, ``attention``,
            ``allocator``.
        device: the allocator's settings are CUDA's.
    """
    with ExitStack() as stack:
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        if recipe.precision == "tf32":
            torch.set_float32_matmul_precision("high")
        stack.enter_context(_cudnn(recipe))
        stack.enter_context(_deterministic(recipe.deterministic))
        if recipe.attention != "auto":
            stack.enter_context(sdpa_kernel(_KERNELS[recipe.attention]))
        if recipe.allocator and device.type == "cuda":
            set_allocator_settings(recipe.allocator)
        yield


@contextmanager
def _cudnn(recipe: Recipe) -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32
    cudnn.benchmark = recipe.cudnn_benchmark and not recipe.deterministic
    if recipe.precision == "tf32":
        cudnn.allow_tf32 = True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Only algorithms that give the same bits again; others are refused.

    cuBLAS needs its workspace fixed before CUDA starts (PyTorch's notes on reproducibility).
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
