"""Images: what they really are, what the loader delivers, and a loader that keeps up.

Names are loaded when asked for, so that looking at images does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memfit.data.facts.inspection import Inspection
    from memfit.data.facts.inspection import inspect_source as inspect
    from memfit.data.images.conversions import (
        chw_to_hwc,
        cmyk_to_rgb,
        denormalise,
        hsv_to_rgb,
        hwc_to_chw,
        lab_to_rgb,
        normalise,
        rgb_to_cmyk,
        rgb_to_hsv,
        rgb_to_lab,
        rgb_to_ycbcr,
        to_grey,
        to_rgb,
        ycbcr_to_rgb,
    )
    from memfit.data.loading.batch import Batch
    from memfit.data.loading.loader import Loader, loader
    from memfit.data.samples.dataset import Dataset, Split
    from memfit.data.sets.opening import open_dataset as open

__all__ = [
    "Batch",
    "Dataset",
    "Inspection",
    "Loader",
    "Split",
    "chw_to_hwc",
    "cmyk_to_rgb",
    "denormalise",
    "hsv_to_rgb",
    "hwc_to_chw",
    "inspect",
    "lab_to_rgb",
    "loader",
    "normalise",
    "open",
    "rgb_to_cmyk",
    "rgb_to_hsv",
    "rgb_to_lab",
    "rgb_to_ycbcr",
    "to_grey",
    "to_rgb",
    "ycbcr_to_rgb",
]

_HOMES = {
    "Batch": ("loading.loader", "Batch"),
    "Dataset": ("samples.dataset", "Dataset"),
    "Inspection": ("facts.inspection", "Inspection"),
    "Loader": ("loading.loader", "Loader"),
    "Split": ("samples.dataset", "Split"),
    "inspect": ("facts.inspection", "inspect_source"),
    "loader": ("loading.loader", "loader"),
    "open": ("sets.opening", "open_dataset"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'memfit.data' has no attribute {name!r}")
    module, attribute = _HOMES.get(name, ("images.conversions", name))
    return getattr(import_module(f"memfit.data.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
