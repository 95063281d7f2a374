"""MNIST as the raw files that torchvision reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["write_mnist"]


def write_mnist(place: Path, data: Any) -> None:
    """Write both splits below ``place`` where ``datasets.MNIST`` looks for them."""
    raw = place / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, split in (("train", data["train"]), ("t10k", data["test"])):
        for kind, magic, values in (
            ("images-idx3", 2051, split.images),
            ("labels-idx1", 2049, split.labels.astype("uint8")),
        ):
            header = b"".join(number.to_bytes(4, "big") for number in (magic, *values.shape))
            (raw / f"{name}-{kind}-ubyte").write_bytes(header + values.tobytes())
