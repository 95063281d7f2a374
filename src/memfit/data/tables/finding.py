"""Where the images of a table are: its cells may be paths, names without ending, or numbers.

Kaggle's tables hold identifiers (``0a1b``) for files in folders beside them
(``train_images/0a1b.png``); others were written on another machine (``C:/data/1.png``).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from memfit.data.samples.labels import split_named
from memfit.data.samples.paths import PathTable, is_image_name
from memfit.errors import DataError
from memfit.files.names import printable

__all__ = ["found_below"]

#: So many cells of the beginning must not all be missing.
_FIRST = 100


def found_below(cells: PathTable, folder: Path, table: str, where: str) -> PathTable:
    """The cells as paths relative to a folder.

    Cells that are paths stay as they are. Others are looked for in the folders beside the table by
    the end of their path, then by their name, then by their name without its ending; where several
    files have it, one in a folder of the table's split counts (``train.csv``, ``train_images/``;
    train where the table's name says none).

    Args:
        cells: of the column of images.
        folder: that the table is in.
        table: its name without the ending.
        where: the table, for messages.

    Raises:
        DataError: none of the first 100 is there, or a name is that of several files.
    """
    first = list(itertools.islice(cells, _FIRST))
    if any((folder / cell).exists() for cell in first):
        return cells
    files = _Files(folder, table, where)
    if not any(files.find(cell) for cell in first):
        if first[0].startswith(("http://", "https://", "s3://", "gs://")):
            raise DataError(
                f"{where}: {printable(first[0])} is an address: images are not fetched.",
                hint="Download them, and write their names into the table.",
            )
        raise DataError(
            f"{where}: none of the first {len(first):,} files exists, such as "
            f"{printable(str(folder / first[0]))}; nor do other folders beside the table have "
            "such names.",
            hint="Paths are relative to the table's folder, unless they are absolute.",
        )
    return PathTable(files.find(cell) or cell for cell in cells)


class _Files:
    """The images below a folder, by name and by name without ending, in small letters."""

    def __init__(self, folder: Path, table: str, where: str) -> None:
        self._where, self._split = where, _split_in(table) or "train"
        self._by_name: dict[str, list[str]] = {}
        for path in _images_below(folder):
            name = path.rpartition("/")[2].lower()
            for key in (name, os.path.splitext(name)[0] + "/"):  # noqa: PTH122 (no name has a /)
                self._by_name.setdefault(key, []).append(path)

    def find(self, cell: str) -> str | None:
        """The file of a cell; None where there is none.

        Raises:
            DataError: there are several.
        """
        parts = cell.replace("\\", "/").lower().split("/")
        name = parts[-1]
        stem = os.path.splitext(name)[0] if is_image_name(name) else name  # noqa: PTH122
        found = self._by_name.get(name) or self._by_name.get(f"{stem}/") or []
        if len(found) > 1:
            found = self._nearest(found, parts)
        if len(found) > 1:
            both = " and ".join(printable(path) for path in found[:2])
            raise DataError(
                f"{self._where}: {printable(cell)} may be {both}.",
                hint="Write the folder before the name, or put the table into it.",
            )
        return found[0] if found else None

    def _nearest(self, found: Sequence[str], parts: Sequence[str]) -> list[str]:
        """Those with most folders of the cell, else those of the table's split."""

        def same(path: str) -> int:
            own = path.lower().split("/")[-2::-1]
            pairs = zip(own, parts[-2::-1], strict=False)
            return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

        most = max(map(same, found))
        found = [path for path in found if same(path) == most]
        of_split = [path for path in found if self._split in map(_split_in, path.split("/")[:-1])]
        return of_split or found


def _split_in(name: str) -> str | None:
    """The split that a folder or a table is called after: ``train_images``, ``test``."""
    words = PurePosixPath(name).stem.replace("-", "_").replace(" ", "_").split("_")
    return next((split for word in words if (split := split_named(word))), None)


def _images_below(folder: Path) -> Iterator[str]:
    """Paths relative to the folder; what is hidden is left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(place, folder)
        prefix = "" if below == "." else below.replace(os.sep, "/") + "/"
        yield from (prefix + name for name in sorted(names) if is_image_name(name))
