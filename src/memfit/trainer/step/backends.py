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
    cudnn = torch.backends.cudnn
    with ExitStack() as stack:
        stack.callback(setattr, cudnn, "benchmark", cudnn.benchmark)
        stack.callback(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        if recipe.precision == "tf32":
            torch.set_float32_matmul_precision("high")
            cudnn.allow_tf32 = True
        cudnn.benchmark = recipe.cudnn_benchmark and not recipe.deterministic
        if recipe.deterministic:
            stack.callback(
                torch.use_deterministic_algorithms,
                torch.are_deterministic_algorithms_enabled(),
                warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
            )
            # cuBLAS needs it before CUDA starts (PyTorch's notes on reproducibility)
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        if recipe.attention != "auto":
            stack.enter_context(sdpa_kernel(_KERNELS[recipe.attention]))
        if recipe.allocator and device.type == "cuda":
            set_allocator_settings(recipe.allocator)
        yield
