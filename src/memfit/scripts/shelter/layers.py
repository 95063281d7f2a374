"""Folders on disk that hold what a script wrote: one for each place that it would have changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from memfit.scripts.told.answer import Kept

__all__ = ["deleted_of", "kept_of", "layer_of"]

_MOST_KEPT = 1000


def layer_of(room: Path, place: str) -> Path:
    """The folder in a room for what is written to a place."""
    return room / "layers" / quote(place, safe="") / "upper"


def deleted_of(layer: Path) -> Path:
    """A file beside a layer that names what was deleted; overlays mark it in the layer."""
    return layer.with_name("deleted")


def kept_of(rooms: Sequence[Path], folder: Path) -> tuple[Kept, ...]:
    """Files that a script wrote or deleted.

    Args:
        rooms: with their layers.
        folder: paths inside of it are relative to it.
    """
    found = []
    for path, kept in _all(rooms):
        if path.suffix != ".pyc":
            shown = path.relative_to(folder) if path.is_relative_to(folder) else path
            found.append(Kept(str(shown), *kept))
    return tuple(sorted(found, key=lambda one: one.path)[:_MOST_KEPT])


def _all(rooms: Sequence[Path]) -> Iterator[tuple[Path, tuple[int, bool]]]:
    for layer in (layer for room in rooms for layer in (room / "layers").glob("*/upper")):
        place = Path(unquote(layer.parent.name))
        for parent, _, files in os.walk(layer):
            for name in files:
                facts = (Path(parent) / name).lstat()
                size_bytes, is_deleted = facts.st_size, stat.S_ISCHR(facts.st_mode)
                yield place / Path(parent).relative_to(layer) / name, (size_bytes, is_deleted)
        if deleted_of(layer).is_file():
            for name in deleted_of(layer).read_text(encoding="utf-8").splitlines():
                if not Path(f"{layer}{name}").exists():
                    yield Path(name), (0, True)
