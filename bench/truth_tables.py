"""GPU memory that others measured, and the error of a prediction against it.

Two tables, kept outside the repository (``$MEMFIT_TRUTH``, else ``../shared/truth`` beside it):

- ``gpumemnet_timm_sample.csv``: timm models trained in float32, whole-GPU peak from nvidia-smi,
  from the artefacts of GPUMemNet (arXiv 2602.17817);
- ``schedtune_model_stats.csv``: torchvision models on five GPUs, whole-GPU peak, from the
  artefacts of SchedTune (CCGrid 2022).

Standard library only, so that any environment can read them.
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ErrorSummary", "Measurement", "family", "read_gpumemnet", "read_schedtune", "summarize",
    "summarize_by_family", "truth_folder",
]  # fmt: skip

_MIB = 1024 * 1024
_REPOSITORY = Path(__file__).resolve().parent.parent

GPUMEMNET_FILE = "gpumemnet_timm_sample.csv"
SCHEDTUNE_FILE = "schedtune_model_stats.csv"

# The table names no GPU. The authors' launchers stop at 40 GiB and their companion repository
# (itu-rad/CARMA) names a DGX Station A100, so this is an inference, not a record.
GPUMEMNET_GPU = "a100-40gb"

# (multiprocessors, GB/s) -> GPU. SchedTune's predictor.py names the RTX 2070 Super and the 3070.
# It calls (80, 900) "3090", but those are a V100's figures (5,120 cores, 900 GB/s), and the table
# has the true 3090 (82, 935.8) as well. (13, 240.6) is one half of a K80 (2,496 cores).
SCHEDTUNE_GPUS: Mapping[tuple[int, float], str] = {
    (13, 240.6): "k80",
    (40, 448.0): "rtx-2070-super",
    (46, 512.0): "rtx-3070",
    (80, 900.0): "v100",
    (82, 935.8): "rtx-3090",
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One training run that somebody measured.

    Attributes:
        model: the name in its library (timm or torchvision), without a prefix.
        batch_size: images per step on the one GPU.
        measured_bytes: peak memory in use on the whole GPU, CUDA context included.
        gpu: key of the GPU, such as ``"v100"``.
    """

    model: str
    batch_size: int
    measured_bytes: int
    gpu: str


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """Relative errors |predicted - measured| / measured of a set of predictions.

    Attributes:
        count: how many pairs.
        median, p90, p95, worst: of the absolute relative error (0.05 is 5 %).
        signed_median: of (predicted - measured) / measured; negative predicts too little.
    """

    count: int
    median: float
    p90: float
    p95: float
    worst: float
    signed_median: float


def truth_folder() -> Path | None:
    """The folder that holds the tables, or None when there is none on this machine."""
    named = os.environ.get("MEMFIT_TRUTH")
    folder = Path(named) if named else _REPOSITORY.parent / "shared" / "truth"
    return folder if folder.is_dir() else None


def read_gpumemnet(folder: Path | None = None) -> list[Measurement]:
    """The timm table.

    Args:
        folder: where to look; `truth_folder` when not given.

    Returns:
        The rows in file order; empty when the file is not there.
    """
    return [
        Measurement(
            model=row["model"],
            batch_size=int(row["batch_size"]),
            measured_bytes=int(row["measured_mib"]) * _MIB,
            gpu=GPUMEMNET_GPU,
        )
        for row in _rows(GPUMEMNET_FILE, folder)
    ]


def read_schedtune(folder: Path | None = None) -> list[Measurement]:
    """The torchvision table; its "MB" are MiB (the input column of 8 images says 4.59).

    Args:
        folder: where to look; `truth_folder` when not given.

    Returns:
        The rows in file order; empty when the file is not there.

    Raises:
        KeyError: a row's GPU is not in `SCHEDTUNE_GPUS`.
    """
    return [
        Measurement(
            model=row["model"],
            batch_size=int(row["batchsize"]),
            measured_bytes=round(float(row["peak mem usage"]) * _MIB),
            gpu=SCHEDTUNE_GPUS[int(row["SM count"]), float(row["Memory bandwidth (GB/s)"])],
        )
        for row in _rows(SCHEDTUNE_FILE, folder)
    ]


def _rows(name: str, folder: Path | None) -> list[dict[str, str]]:
    folder = folder or truth_folder()
    if folder is None or not (folder / name).is_file():
        return []
    with (folder / name).open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def family(model: str) -> str:
    """The leading letters of a model's name; ``tf_`` tells where weights came from, so it is cut.

    >>> family("resnet50s"), family("tf_efficientnet_b2"), family("vit_base_patch16_rpn_224")
    ('resnet', 'efficientnet', 'vit')
    """
    match = re.match(r"[a-z]+", model.lower().removeprefix("tf_"))
    return match[0] if match else model


def summarize(pairs: Iterable[tuple[int, int]]) -> ErrorSummary | None:
    """The error statistics of (predicted bytes, measured bytes) pairs; None for no pairs.

    >>> summarize([(90, 100), (100, 100), (130, 100)])
    ErrorSummary(count=3, median=0.1, p90=0.26, p95=0.28, worst=0.3, signed_median=0.0)
    """
    signed = sorted((predicted - measured) / measured for predicted, measured in pairs)
    if not signed:
        return None
    errors = sorted(abs(error) for error in signed)
    return ErrorSummary(
        count=len(errors),
        median=_quantile(errors, 0.5),
        p90=_quantile(errors, 0.9),
        p95=_quantile(errors, 0.95),
        worst=errors[-1],
        signed_median=_quantile(signed, 0.5),
    )


def summarize_by_family(
    predictions: Iterable[tuple[str, int, int]],
) -> dict[str, ErrorSummary]:
    """The error statistics of each family, by name.

    Args:
        predictions: (model name, predicted bytes, measured bytes).
    """
    pairs: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for model, predicted, measured in predictions:
        pairs[family(model)].append((predicted, measured))
    summaries = ((name, summarize(pairs[name])) for name in sorted(pairs))
    return {name: summary for name, summary in summaries if summary is not None}


def _quantile(ordered: Sequence[float], fraction: float) -> float:
    """Linear interpolation between the two nearest ranks, as ``numpy.quantile`` does."""
    position = (len(ordered) - 1) * fraction
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    value = ordered[below] + (ordered[above] - ordered[below]) * (position - below)
    return round(value, 12)
