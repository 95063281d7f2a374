"""A source of images as plain data for the page: facts, pictures, what the loader delivers.

Pictures are small PNGs inside the document; the pixels of one sample are numbers.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from memfit.data.facts.inspection import RESIZED, Inspection, inspect_dataset
from memfit.data.facts.split_facts import SplitFacts
from memfit.data.images.decode import Pixels, reading_images
from memfit.data.loading.loader import Loader
from memfit.data.loading.source import Source
from memfit.data.samples.dataset import Dataset
from memfit.data.sets.opening import open_dataset
from memfit.errors import MemfitError
from memfit.recipe.recipe import Recipe
from memfit.report.data.preview import readable_sample, scaled, spread_samples

__all__ = ["data_document"]

_SCHEMA_VERSION = 1
_SAMPLES, _DELIVERED, _BATCH = 24, 8, 64
#: Longest sides in pixels: of a picture in a grid, and of the sample whose pixels are given.
_THUMBNAIL, _VIEW = 48, 40
#: Longer lists are cut; their whole length is given beside.
_CLASSES, _LISTED = 200, 20
#: Samples tried for each picture, should some be unreadable.
_TRIES = 8
_AUGMENT = ("crop=4", "flip")


def data_document(
    name_or_path: str, root: str | Path | None = None, **reading: Any
) -> dict[str, Any]:
    """Everything that the Data tab shows, as plain values for JSON.

    Every image is read once.

    Args:
        name_or_path: a named set such as ``"mnist"``, or a path.
        root: where named sets are; ``./data`` when omitted.
        **reading: how its images are read, as :func:`memfit.data.open` takes it.

    Raises:
        DataError: the source cannot be found or read.
        UsageError: options that do not exist.
        UnknownName: neither a name nor a path.
    """
    dataset = open_dataset(name_or_path, root=root, **reading)
    found = inspect_dataset(dataset)
    channels = found.delivered.channels if found.delivered is not None else 3
    with reading_images():
        pictures = _pictures(dataset, channels)
        return {
            "schema_version": _SCHEMA_VERSION,
            "kind": "data",
            "name": found.name,
            "layout": found.layout,
            "images": found.overall.images,
            "readable": found.overall.readable,
            "bytes_on_disk": found.bytes_on_disk,
            "channels": channels,
            "shape": None if found.delivered is None else list(found.delivered.shape),
            "splits": [
                {"name": split.name, "images": split.images, "readable": split.readable}
                for split in found.splits
            ],
            "classes": _classes(found),
            "facts": _facts(found.overall),
            "warnings": _warnings(found),
            "statistics": _statistics(found),
            "samples": [_thumbnail(dataset, *picture) for picture in pictures],
            "sample": _sample(dataset, pictures),
            "delivered": _delivered(dataset, found),
        }


# -- facts -----------------------------------------------------------------------------------------


def _classes(found: Inspection) -> dict[str, Any]:
    """Samples of each class in each split; the first ones of very many."""
    return {
        "count": len(found.classes),
        "names": list(found.classes[:_CLASSES]),
        "counts": [
            {"split": split.name, "counts": list(split.class_counts[:_CLASSES])}
            for split in found.splits
            if split.class_counts is not None
        ],
        "unlabelled": found.overall.unlabelled,
    }


def _facts(overall: SplitFacts) -> dict[str, Any]:
    sizes = overall.sizes
    return {
        "modes": dict(overall.modes),
        "formats": dict(overall.formats),
        "channels": {str(count): images for count, images in overall.channels.items()},
        "sizes": None
        if sizes is None
        else {
            "smallest": list(sizes.smallest),
            "median": list(sizes.median),
            "largest": list(sizes.largest),
            "vary": sizes.vary,
        },
    }


def _warnings(found: Inspection) -> dict[str, Any]:
    """Hazards, what cannot be read, what is there twice; each list with its whole length."""
    unreadable = found.overall.unreadable
    twice = found.duplicates
    return {
        "hazards": [
            asdict(hazard) | {"key": _key(hazard.kind)} for hazard in found.hazards
        ],
        "problems": [asdict(problem) for problem in found.problems[:_LISTED]],
        "problem_count": len(found.problems),
        "unreadable": [{"name": u.name, "reason": u.reason} for u in unreadable[:_LISTED]],
        "unreadable_count": len(unreadable),
        "copies": dict(twice.copies),
        "leaks": [asdict(leak) for leak in twice.leaks],
        "mislabelled_groups": twice.mislabelled_groups,
    }  # fmt: skip


def _key(kind: str) -> str:
    """A hazard's kind as the page looks up its words: small letters and figures, else ``-``."""
    return re.sub(r"[^a-z0-9]+", "-", kind.lower())


def _statistics(found: Inspection) -> dict[str, Any] | None:
    known = found.statistics
    if known is None:
        return None
    return {"of": found.statistics_of, **asdict(known)}


# -- pictures --------------------------------------------------------------------------------------


def _pictures(dataset: Dataset, channels: int) -> list[tuple[int, Pixels]]:
    """A few training images with their rows, spread over the classes, none of them twice."""
    if not dataset.splits:
        return []
    split = dataset.train
    pictures: dict[int, Pixels] = {}
    for row in spread_samples(split, _SAMPLES):
        near = range(row, min(row + _TRIES, len(split)))
        found = readable_sample(split, (n for n in near if n not in pictures), channels)
        pictures |= [] if found is None else [found]
    return list(pictures.items())


def _thumbnail(dataset: Dataset, row: int, pixels: Pixels) -> dict[str, Any]:
    return _named(dataset, row, pixels) | {"png": _png(_reduced(pixels, _THUMBNAIL))}


def _sample(dataset: Dataset, pictures: Sequence[tuple[int, Pixels]]) -> dict[str, Any] | None:
    """One image as numbers: the one whose values differ most, channel by channel."""
    if not pictures:
        return None
    row, pixels = max(pictures, key=lambda picture: _telling(picture[1]))
    view = _reduced(pixels, _VIEW)
    return _named(dataset, row, pixels) | {
        "view": {
            "height": view.shape[0],
            "width": view.shape[1],
            "channels": [plane.ravel().tolist() for plane in view.transpose(2, 0, 1)],
        },
    }


def _named(dataset: Dataset, row: int, pixels: Pixels) -> dict[str, Any]:
    split = dataset.train
    return {
        "name": split.sample_name(row),
        "label": _class_name(dataset, split.label(row)),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
    }


def _telling(pixels: Pixels) -> float:
    """How much there is to see: contrast, and in colour how far the channels differ."""
    values = pixels.astype(np.float32)
    return float(values.std() + 3 * np.ptp(values, axis=2).mean())


def _class_name(dataset: Dataset, number: int) -> str | None:
    return dataset.classes[number] if 0 <= number < len(dataset.classes) else None


def _reduced(pixels: Pixels, side: int) -> Pixels:
    """Not longer than ``side``; small images keep their own pixels: ``(H, W, C)``."""
    if max(pixels.shape[:2]) <= side:
        return pixels
    small = scaled(_flat(pixels), side, Image.Resampling.LANCZOS)
    return small.reshape(*small.shape[:2], -1)


def _flat(pixels: Pixels) -> Pixels:
    """Grey pixels as Pillow takes them: ``(H, W)``."""
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _png(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(_flat(pixels)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


# -- what the loader delivers ----------------------------------------------------------------------


def _delivered(dataset: Dataset, found: Inspection) -> dict[str, Any]:
    """The first batch as it is, and augmented; or why there is none."""
    if found.delivered is None:
        return _problem("unreadable", "No image can be read.")
    channels = found.delivered.channels
    size: Any = RESIZED if found.delivered.height is None else found.delivered.shape[1:]
    recipe = Recipe(
        model="cnn",
        data=dataset.name,
        input_shape=(channels, *size),
        colour="grey" if channels == 1 else "rgb",
        on_bad_image="skip",
        workers=0,
        batch_size=_BATCH,
    )
    source = Source(dataset)
    try:
        batches = [
            {"augment": list(names), **_batch(Loader(recipe.but(augment=names), source))}
            for names in ((), _AUGMENT)
        ]
    except MemfitError as error:
        is_unlabelled = dataset.train.labels is None
        return _problem("unlabelled" if is_unlabelled else "other", error.message)
    return {"problem": None, "is_resized": found.delivered.height is None, "batches": batches}


def _problem(key: str, text: str) -> dict[str, Any]:
    """Why there is no batch: ``key`` for the page's own words, ``text`` in English."""
    return {"problem": {"key": key, "text": text}}


def _batch(batches: Loader) -> dict[str, Any]:
    from memfit.data.images.conversions import denormalise

    images, labels = next(islice(batches.epoch(0), 1))
    shown = denormalise(images[:_DELIVERED], batches.mean, batches.std, to_uint8=True)
    pictures = shown.permute(0, 2, 3, 1).numpy()
    return {
        "shape": list(images.shape),
        "dtype": str(images.dtype).removeprefix("torch."),
        "min": float(images.min()),
        "max": float(images.max()),
        "mean": float(images.mean()),
        "std": float(images.std()),
        "bytes": images.nbytes,
        "label_shape": list(labels.shape),
        "label_dtype": str(labels.dtype).removeprefix("torch."),
        "label_bytes": labels.nbytes,
        "normalised_with": {"mean": list(batches.mean), "std": list(batches.std)},
        "pngs": [_png(_reduced(picture, _THUMBNAIL)) for picture in pictures],
    }
