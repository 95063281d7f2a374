"""memfit: where every byte of GPU memory goes when you train, before anything runs on a GPU."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memfit import data
    from memfit.cards.catalogue import GPU, gpus
    from memfit.errors import MemfitError
    from memfit.memory.recording.virtual_gpu import VirtualGPU
    from memfit.planner.plan import Plan
    from memfit.planner.planning import plan
    from memfit.planner.result import BatchPlan
    from memfit.recipe.recipe import Recipe
    from memfit.trainer.recovery.recover import recover
    from memfit.trainer.recovery.transaction import fit_micro_batch
    from memfit.trainer.run.run import train
    from memfit.trainer.run.trained import open_trained

from memfit.version import __version__ as __version__

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
    "BatchPlan": "memfit.planner.result",
    "GPU": "memfit.cards.catalogue",
    "MemfitError": "memfit.errors",
    "Plan": "memfit.planner.plan",
    "Recipe": "memfit.recipe.recipe",
    "VirtualGPU": "memfit.memory.recording.virtual_gpu",
    "fit_micro_batch": "memfit.trainer.recovery.transaction",
    "gpus": "memfit.cards.catalogue",
    "open_trained": "memfit.trainer.run.trained",
    "plan": "memfit.planner.planning",
    "recover": "memfit.trainer.recovery.recover",
    "train": "memfit.trainer.run.run",
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
