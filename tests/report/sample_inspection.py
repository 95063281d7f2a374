"""Inspections made by hand: their numbers depend on no version of Pillow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memfit.data.facts.duplicates import DuplicateGroup, Duplicates, Leak
from memfit.data.facts.hazards import Hazard
from memfit.data.facts.inspection import Cost, Delivered, Imbalance, Inspection, inspect_dataset
from memfit.data.facts.tally import Found, SizeBin, SizeCount, Sizes, Unreadable
from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import Dataset, Problem

__all__ = ["clean_dataset", "clean_inspection", "messy_inspection"]


def clean_dataset(classes: int = 3, each: int = 4, channels: int = 3) -> Dataset:
    """Colour gradients; no two of them are equal."""
    count = classes * each
    rows = np.arange(8)[:, None, None] * 16
    columns = np.arange(8)[None, :, None] * np.array([8, 16, 4])
    tint = np.arange(2 * count)[:, None, None, None] % 128
    images = (rows + columns + tint).clip(0, 255).astype(np.uint8)
    images[..., 0, 0, 0] = np.arange(2 * count) % 256
    images = images if channels == 3 else images[..., 0]
    labels = np.arange(count) % classes
    names = tuple(f"class {number}" for number in range(classes))
    splits = {
        "train": ArraySplit("train", images[:count], labels),
        "test": ArraySplit("test", images[count:], labels),
    }
    return Dataset("gradients", "arrays", splits, names, (), 123_456)


def clean_inspection(channels: int = 3) -> Inspection:
    """Nothing is wrong."""
    return inspect_dataset(clean_dataset(channels=channels))


def messy_inspection() -> Inspection:
    """Everything is wrong, and names are long or hostile."""
    clean = clean_inspection()
    long = "train/a folder with a name that is long/and another one/IMG_20240229_235959.jpeg"
    sizes = Sizes(
        smallest=(12, 8), median=(640, 480), largest=(6000, 4000), distinct=812,
        common=(SizeCount(640, 480, 700), SizeCount(480, 640, 60)),
        histogram=tuple(SizeBin(k * 600, k * 600 + 599, (9 - k) * 10) for k in range(10)),
        outliers=Found(41, (long, "train/b.png")), outlier_rule="more than 4 times off",
        mean_pixels=345_678.9,
    )  # fmt: skip
    unreadable = tuple(Unreadable(f"train/broken {k}.jpg", "truncated") for k in range(12))
    unreadable += (Unreadable("train/\x1b[31mred\n.jpg", "the file is empty", 3),)
    overall = replace(
        clean.overall, images=1234, readable=1219, modes={"RGB": 1200, "L": 12, "CMYK": 7},
        formats={"JPEG": 1207, "PNG": 12}, bits={8: 1207, 16: 12}, channels={1: 12, 3: 1207},
        orientations={6: 30, 8: 2}, profiles={"Display P3": 40, "Adobe RGB (1998)": 3},
        found={
            "rotated": Found(32, (long,)), "animated": Found(1, ("train/dance.gif",)),
            "grey as colour": Found(5, ("train/x.png",)),
        },
        sizes=sizes, unlabelled=2, unreadable=unreadable, bytes_on_disk=81_234.5,
    )  # fmt: skip
    counts = (900, 30, *range(1, 23))
    splits = tuple(replace(split, class_counts=counts) for split in clean.splits)
    group = DuplicateGroup(6, (long, "train/b.png", "test/c.png"), (0, 1, 0))
    return replace(
        clean, name="/data/holiday pictures", layout="class folders in split folders",
        classes=("a class with a name that is long", *(f"class {k}" for k in range(1, 24))),
        splits=splits, overall=overall, imbalance=Imbalance("train", "cat", 900, "dog", 30),
        duplicates=Duplicates(
            {"train": 17, "test": 0}, (Leak("test", "train", 9),), 4, 11, (group,), (group,),
            (DuplicateGroup(2, ("train/b.png", "train/c.png"), (1, 1)),),
        ),
        delivered=Delivered(3, None, None),
        cost=Cost(81_234.5, 1_037_036.7, 3 * 224 * 224, 987_654_321, True),
        hazards=(
            Hazard("turned by EXIF", 32, long, "the orientation is ignored", "turned upright"),
            Hazard("of different sizes", 1219, "", "they do not stack to a batch", "resized"),
        ),
        problems=(Problem("train/empty class", "no images"),),
    )  # fmt: skip
