"""A finished study as plain data for the page, from the files that it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from memfit.errors import RunError
from memfit.files.metrics_file import read_json

__all__ = ["study_document", "study_names"]

_SCHEMA_VERSION = 1
_CURVE_POINTS = 40
#: Of the study that this page understands.
_STUDY_VERSION = 1
_FIELDS = (
    "model_name", "data_name", "device", "seeds", "settings", "goal", "sizes", "memory", "card",
    "throughput", "knee", "noise", "noise_batch", "tradeoff", "rate_rule", "recommendation",
    "notes", "seconds",
)  # fmt: skip


def study_names(root: Path) -> list[str]:
    """Folders of studies, finished or not, in the order of their names; none without the root."""
    return sorted(path.parent.name for path in root.glob("*/settings.json"))


def study_document(folder: Path) -> dict[str, Any]:
    """Everything that the Study tab shows.

    Args:
        folder: of the study.

    Returns:
        ``is_finished``; where it is, the fields of :class:`memfit.study.results.Study` under
        their names, and the curves that were fitted as points.

    Raises:
        RunError: the folder is no study, or a file is damaged.
    """
    settings = _read(folder / "settings.json")
    if settings is None:
        raise RunError(
            f"{folder} is no study of memfit: it has no settings.json.",
            hint="memfit study makes one.",
        )
    start = {"schema_version": _SCHEMA_VERSION, "kind": "study", "name": folder.name}
    study = _read(folder / "study.json")
    if study is None:
        trials = len(list(folder.glob("runs/*/trial.json")))
        return start | {"is_finished": False, "trials": trials}
    if study.get("schema_version") != _STUDY_VERSION:
        raise RunError(f"{folder} was written by another version of memfit.")
    try:
        curves = _curves(study)
    except (LookupError, TypeError, ValueError, ArithmeticError):
        raise RunError(f"{folder / 'study.json'} is damaged: its sizes or fits are.") from None
    return start | {
        "is_finished": True,
        **{name: study.get(name) for name in _FIELDS},
        "command": f"memfit train {folder / 'recommended.toml'}",
        "curves": curves,
    }


def _curves(study: dict[str, Any]) -> dict[str, Any]:
    """Points ``[batch, value]`` of what was fitted, over the batch sizes of the study.

    Steps to the goal are ``S_min (1 + B_crit/B)`` (McCandlish et al. 2018, arXiv 1812.06162,
    equation 5.1); the learning rate is a power of the batch, ``constant * batch**exponent``.
    """
    batches = [size["batch_size"] for size in study["sizes"]]
    if not batches:
        return {"steps": None, "rate": None}
    points = np.geomspace(min(batches), max(batches), _CURVE_POINTS)
    fit, rule = study.get("tradeoff"), study.get("rate_rule")
    return {
        "steps": None
        if fit is None
        else [[b, fit["min_steps"] * (1 + fit["critical"]["value"] / b)] for b in points.tolist()],
        "rate": None
        if rule is None
        else [[b, rule["constant"] * b ** rule["exponent"]] for b in points.tolist()],
    }


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON file; None where it is not there."""
    return read_json(path) if path.exists() else None
