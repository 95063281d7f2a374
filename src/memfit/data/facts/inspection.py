"""What images really are, what a loader delivers, the numbers to normalise with, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from memfit.data.facts.duplicates import Duplicates, find_duplicates
from memfit.data.facts.hazards import Hazard, hazards_of
from memfit.data.facts.scan import DEFAULT_THREADS, Scan, scan_split
from memfit.data.facts.split_facts import SplitFacts, class_counts, facts_of
from memfit.data.facts.statistics import PixelStatistics, pixel_statistics
from memfit.data.facts.tally import Sizes, Tally, summarise_sizes
from memfit.data.facts.task_facts import TaskFacts, mask_problems, task_facts
from memfit.data.images.decode import MAX_PIXELS, reading_images
from memfit.data.samples.dataset import Dataset, Problem, Split
from memfit.errors import UsageError
from memfit.progress import SILENT, Tell

__all__ = [
    "RESIZED",
    "Cost",
    "Delivered",
    "Imbalance",
    "Inspection",
    "SplitFacts",
    "inspect_dataset",
    "inspect_source",
]

#: Where sizes vary, a batch is counted as if its images were resized to this (ImageNet's usual).
RESIZED = (224, 224)
_FLOAT32_BYTES, _HALF_BYTES, _LABEL_BYTES = 4, 2, 8


@dataclass(frozen=True, slots=True)
class Imbalance:
    """The largest and the smallest class of a split.

    Args:
        split: whose classes.
        largest: name of the class with most samples.
        largest_count: its samples.
        smallest: name of the class with fewest samples.
        smallest_count: its samples.
    """

    split: str
    largest: str
    largest_count: int
    smallest: str
    smallest_count: int

    @property
    def ratio(self) -> float | None:
        """Largest over smallest; None when the smallest is empty."""
        return self.largest_count / self.smallest_count if self.smallest_count else None


@dataclass(frozen=True, slots=True)
class Delivered:
    """What the loader hands over.

    Args:
        channels: 1 or 3.
        height: None when sizes vary.
        width: None when sizes vary.
    """

    channels: int
    height: int | None
    width: int | None

    @property
    def shape(self) -> tuple[int, int | None, int | None]:
        """Of one sample: ``(C, H, W)``."""
        return (self.channels, self.height, self.width)

    @property
    def batch_shape(self) -> tuple[int, int, int]:
        """Of one sample in a batch; resized to 224 x 224 where sizes vary."""
        if self.height is None or self.width is None:
            return (self.channels, *RESIZED)
        return (self.channels, self.height, self.width)


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes of samples and batches.

    Args:
        on_disk_bytes: mean of a sample; None when unknown.
        decoded_bytes: mean of a sample as uint8, at its own size.
        values: of one sample in a batch, after resizing where sizes vary.
        train_bytes: the whole training split, decoded to uint8.
        is_resized: whether ``values`` counts images resized to 224 x 224.
        target_bytes: of one sample's class number, mask or values, as the loader delivers it.
    """

    on_disk_bytes: float | None
    decoded_bytes: float
    values: int
    train_bytes: int
    is_resized: bool
    target_bytes: int = _LABEL_BYTES

    def inputs_bytes(self, batch_size: int, *, half: bool = False) -> int:
        """A batch of images as the model gets it."""
        return batch_size * self.values * (_HALF_BYTES if half else _FLOAT32_BYTES)

    def labels_bytes(self, batch_size: int) -> int:
        """A batch of class numbers, masks or values."""
        return batch_size * self.target_bytes

    def batch_bytes(self, batch_size: int, *, half: bool = False) -> int:
        """Inputs and labels: the data batch of ``memfit plan``.

        >>> Cost(None, 784, 784, 0, False).batch_bytes(64)
        201216
        """
        return self.inputs_bytes(batch_size, half=half) + self.labels_bytes(batch_size)


@dataclass(frozen=True, slots=True, repr=False)
class Inspection:
    """Everything about a source of images.

    Args:
        name: of the source, as asked.
        layout: what was found there, in words.
        task: what is asked of a sample.
        classes: names by number, empty without any; of masks and labels, too.
        bytes_on_disk: of the files; None when unknown.
        splits: facts of each split.
        overall: facts of all splits together.
        imbalance: of the training split; None with fewer than two classes.
        duplicates: within and between splits.
        statistics: of the training split's pixels; None when nothing is readable.
        statistics_of: name of that split.
        delivered: None when nothing is readable.
        cost: None when nothing is readable.
        hazards: what the usual loaders would ruin.
        problems: what is wrong with the source as a whole.
    """

    name: str
    layout: str
    task: TaskFacts
    classes: tuple[str, ...]
    bytes_on_disk: int | None
    splits: tuple[SplitFacts, ...]
    overall: SplitFacts
    imbalance: Imbalance | None
    duplicates: Duplicates
    statistics: PixelStatistics | None
    statistics_of: str
    delivered: Delivered | None
    cost: Cost | None
    hazards: tuple[Hazard, ...]
    problems: tuple[Problem, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every image was read and nothing is wrong with the source as a whole."""
        return not self.overall.unreadable and not self.problems

    def to_dict(self, batch_size: int = 64) -> dict[str, Any]:
        """Everything as JSON has it.

        Args:
            batch_size: of the batch whose bytes are given.
        """
        content = asdict(self)
        content["images"] = self.overall.images
        content["is_complete"] = self.is_complete
        if content["imbalance"]:
            content["imbalance"]["ratio"] = self.imbalance and self.imbalance.ratio
        if self.statistics is not None:
            content["statistics"]["normalised_range"] = self.statistics.normalised_range
        if self.cost is not None and self.delivered is not None:
            content["delivered"] |= {"dtype": "uint8", "shape": self.delivered.shape}
            content["batch"] = self._batch(batch_size)
        return {"schema_version": 1} | content

    def __repr__(self) -> str:
        facts = "; ".join(f"{name} {value}" for name, value in self._summary().items())
        return f"<Inspection of {self.name}: {facts}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self._summary().items()
        )
        html = f"<p>{escape(self.name)}</p><table>{rows}</table>"
        return {"text/plain": repr(self), "text/html": html}

    def _summary(self) -> dict[str, str]:
        """The few things one wants to know."""
        facts = {"images": f"{self.overall.images:,}"}
        if self.classes:
            facts["classes"] = f"{len(self.classes):,}"
        if self.delivered is not None:
            facts["shape"] = str(self.delivered.shape)
        if self.statistics is not None:
            for name in ("mean", "std"):
                values = ", ".join(f"{value:.4f}" for value in getattr(self.statistics, name))
                facts[name] = f"[{values}]"
        facts |= {"unreadable": f"{self.overall.images - self.overall.readable:,}"}
        return facts | {"warnings": f"{len(self.hazards):,}"}

    def _batch(self, batch_size: int) -> dict[str, Any]:
        assert self.cost is not None
        assert self.delivered is not None
        return {
            "size": batch_size,
            "shape": (batch_size, *self.delivered.batch_shape),
            "dtype": "float32",
            "inputs_bytes": self.cost.inputs_bytes(batch_size),
            "labels_bytes": self.cost.labels_bytes(batch_size),
            "total_bytes": self.cost.batch_bytes(batch_size),
            "total_bytes_half": self.cost.batch_bytes(batch_size, half=True),
        }


def inspect_source(
    source: str | Path,
    *,
    root: str | Path | None = None,
    download: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Tell = SILENT,
) -> Inspection:
    """Open a source of images and look at every one.

    Args:
        source: a name such as ``"mnist"``, or a path.
        root: where named sets are.
        download: fetch a named set that is not there.
        max_pixels: larger images count as unreadable.
        progress: called with images done and in total.

    Raises:
        DataError: the source cannot be found or read.
    """
    from memfit.data.sets.opening import open_dataset

    dataset = open_dataset(source, root=None if root is None else Path(root), download=download)
    return inspect_dataset(dataset, max_pixels=max_pixels, progress=progress)


def inspect_dataset(
    dataset: Dataset,
    *,
    max_pixels: int = MAX_PIXELS,
    progress: Tell = SILENT,
    threads: int = DEFAULT_THREADS,
) -> Inspection:
    """Decode every image of a source once and say what it is.

    Args:
        dataset: the source.
        max_pixels: larger images count as unreadable.
        progress: called with images done and in total.
        threads: that decode large images.

    Raises:
        UsageError: ``max_pixels`` or ``threads`` is not positive.
    """
    if max_pixels < 1 or threads < 1:
        raise UsageError("max_pixels and threads must be 1 or more.")
    splits = list(dataset.splits.values())
    with reading_images():
        whole, scans = _scan_all(splits, max_pixels, threads, progress)
    total = whole.tally
    overall = _overall(dataset, splits, whole)
    trained = dataset.train.name if splits else ""
    train = next((scan for split, scan in zip(splits, scans, strict=True) if split.name == trained),
                 Scan.empty(0))  # fmt: skip
    seen = train.tally.channels if train.tally.readable else total.channels
    channels = 3 if seen[3] else 1  # as the loader: what the training images are
    delivered = _delivered(overall.sizes, channels)
    return Inspection(
        name=dataset.name,
        layout=dataset.layout,
        task=task_facts(dataset),
        classes=dataset.classes,
        bytes_on_disk=dataset.bytes_on_disk or total.stored_bytes or None,
        splits=tuple(
            _facts(split, scan, dataset.classes) for split, scan in zip(splits, scans, strict=True)
        ),
        overall=overall,
        imbalance=_imbalance(dataset),
        duplicates=find_duplicates(whole.digests, whole.readable, splits),
        statistics=pixel_statistics(train.tally.histogram(channels)),
        statistics_of=trained,
        delivered=delivered,
        cost=_cost(dataset, overall, delivered, train),
        hazards=hazards_of(dataset, total, overall.sizes, channels),
        problems=(*dataset.problems, *mask_problems(splits, [scan.sizes for scan in scans])),
    )


def _scan_all(
    splits: Sequence[Split], max_pixels: int, threads: int, progress: Tell
) -> tuple[Scan, list[Scan]]:
    """All samples together, and each split."""
    total, before, scans = sum(map(len, splits)), 0, []
    whole = Scan.empty(total)
    for split in splits:

        def report(done: int, before: int = before) -> None:
            progress(before + done, total)

        scan = whole.part(before, before + len(split))
        scan_split(split, scan, max_pixels=max_pixels, threads=threads, progress=report)
        scans.append(scan)
        before += len(split)
    return replace(whole, tally=Tally.total(scan.tally for scan in scans)), scans


def _facts(split: Split, scan: Scan, classes: Sequence[str]) -> SplitFacts:
    sizes = summarise_sizes(scan.sizes, split.sample_name)
    counts = class_counts(split, len(classes))
    return facts_of(split.name, scan.tally, sizes, classes, counts)


def _overall(dataset: Dataset, splits: Sequence[Split], whole: Scan) -> SplitFacts:
    ends = np.cumsum([0, *map(len, splits)])

    def name(row: int) -> str:
        owner = int(np.searchsorted(ends, row, side="right")) - 1
        return splits[owner].sample_name(row - int(ends[owner]))

    counted_ = [class_counts(split, len(dataset.classes)) for split in splits]
    known = [counts for counts, _ in counted_ if counts is not None]
    counts = tuple(map(sum, zip(*known, strict=True))) if known else None
    unlabelled = sum(missing for _, missing in counted_)
    sizes = summarise_sizes(whole.sizes, name)
    return facts_of("all", whole.tally, sizes, dataset.classes, (counts, unlabelled))


def _imbalance(dataset: Dataset) -> Imbalance | None:
    if len(dataset.classes) < 2 or not dataset.splits:
        return None
    counts, _ = class_counts(dataset.train, len(dataset.classes))
    if counts is None:
        return None
    most, least = max(counts), min(counts)
    return Imbalance(
        dataset.train.name,
        dataset.classes[counts.index(most)], most,
        dataset.classes[counts.index(least)], least,
    )  # fmt: skip


def _delivered(sizes: Sizes | None, channels: int) -> Delivered | None:
    if sizes is None:
        return None
    if sizes.vary:
        return Delivered(channels, None, None)
    width, height = sizes.median
    return Delivered(channels, height, width)


def _cost(
    dataset: Dataset, overall: SplitFacts, delivered: Delivered | None, train: Scan
) -> Cost | None:
    if delivered is None or overall.sizes is None:
        return None
    on_disk = overall.bytes_on_disk
    if on_disk is None and dataset.bytes_on_disk is not None and overall.images:
        on_disk = dataset.bytes_on_disk / overall.images
    channels, height, width = delivered.batch_shape
    areas = train.sizes.astype(np.int64).prod(axis=1)
    return Cost(
        on_disk_bytes=on_disk,
        decoded_bytes=overall.sizes.mean_pixels * channels,
        values=channels * height * width,
        train_bytes=int(areas.sum()) * channels,
        is_resized=overall.sizes.vary,
        target_bytes=_target_bytes(dataset, height * width),
    )


def _target_bytes(dataset: Dataset, pixels: int) -> int:
    """Of one sample: int64 classes of the sample or its pixels, or float32 values."""
    if dataset.task == "masks":
        return pixels * _LABEL_BYTES
    count = {"values": len(dataset.value_names), "labels": len(dataset.classes)}
    return count.get(dataset.task or "", 0) * _FLOAT32_BYTES or _LABEL_BYTES
