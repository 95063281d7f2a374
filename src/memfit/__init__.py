"""memfit: where every byte of GPU memory goes when you train, before anything runs on a GPU."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memfit import data
    from memfit.api import plan
    from memfit.catalogue import GPU, gpus
    from memfit.errors import MemfitError
    from memfit.memory.virtual_gpu import VirtualGPU
    from memfit.planner.plan import BatchPlan, Plan
    from memfit.recipe import Recipe
    from memfit.trainer.recover import recover
    from memfit.trainer.run import train
    from memfit.trainer.trained import open_trained
    from memfit.trainer.transaction import fit_micro_batch

__version__ = "0.1.0"

__all__ = [
    "GPU",
    "BatchPlan",
    "MemfitError",
    "Plan",
    "Recipe",
    "VirtualGPU",
    "data",
    "fit_micro_batch",
    "gpus",
    "open_trained",
    "plan",
    "recover",
    "train",
]

_HOMES = {
    "BatchPlan": "memfit.planner.plan",
    "GPU": "memfit.catalogue",
    "MemfitError": "memfit.errors",
    "Plan": "memfit.planner.plan",
    "Recipe": "memfit.recipe",
    "VirtualGPU": "memfit.memory.virtual_gpu",
    "fit_micro_batch": "memfit.trainer.transaction",
    "gpus": "memfit.catalogue",
    "open_trained": "memfit.trainer.trained",
    "plan": "memfit.api",
    "recover": "memfit.trainer.recover",
    "train": "memfit.trainer.run",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is asked for: ``import memfit`` alone loads no torch."""
    if name == "data":
        return import_module("memfit.data")
    if name not in _HOMES:
        raise AttributeError(f"module 'memfit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
