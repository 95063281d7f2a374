"""Folders of image files: ``class/*.jpg`` with or without ``train/`` and ``test/``, or flat.

Nothing is decoded here. Files are listed as bytes, as the file system has them, so that names in
any encoding work and a million of them take little memory.
"""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from memfit.data.samples.dataset import Dataset, FileSplit, Problem, Split
from memfit.data.samples.labels import in_order, split_named
from memfit.data.samples.paths import PathTable, is_image_name
from memfit.data.sets.other_files import OWN_CODE, meaning_of
from memfit.data.sets.pairs import are_called_images, may_be_masks, picture_pairs, plain_stem
from memfit.data.sets.segmentation import open_masks
from memfit.data.sets.trees import Entry, Tree
from memfit.errors import DataError
from memfit.files.names import printable
from memfit.recipe.fields import Task

__all__ = ["open_folder", "open_image_file"]

#: What operating systems leave behind; names that begin with a dot count as well.
_FOLD = re.compile(r"(fold|cv)[_ -]?\d+")
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})


@dataclass(slots=True)
class _Listing:
    """One folder: names in order."""

    images: list[bytes] = field(default_factory=list)
    folders: list[bytes] = field(default_factory=list)
    hidden: list[bytes] = field(default_factory=list)  # folders


@dataclass(slots=True)
class _Notes:
    """What is wrong with the files, collected on the way."""

    problems: list[Problem] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    litter: int = 0
    hidden: list[str] = field(default_factory=list)

    def add(self, path: bytes, reason: str) -> None:
        self.problems.append(Problem(printable(os.fsdecode(path)) or ".", reason))

    def all(self) -> list[Problem]:
        """One problem for each ending, after the others."""
        return [*self.problems, *self.of_files()]

    def of_files(self) -> list[Problem]:
        """Files that are no images, by their endings."""
        found = []
        for ending, count in sorted(self.endings.items()):
            with_ending = f"with {ending}" if ending else "without an ending"
            meaning = meaning_of(f"x{ending}")
            more = f" ({meaning})" if meaning else ""
            reason = f"{_number(count, 'file')} {with_ending}: no image{more}"
            found.append(Problem(f"*{ending}", reason))
        if self.litter:
            found.append(Problem(".*", f"{_number(self.litter, 'file')} hidden: not read"))
        return found


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"


@dataclass(slots=True)
class _Found:
    """The files of one split; ``classes`` are folder names, ``labels`` index them."""

    paths: PathTable = field(default_factory=PathTable)
    labels: array[int] = field(default_factory=lambda: array("q"))
    classes: list[bytes] = field(default_factory=list)


def open_image_file(path: Path, name: str) -> Dataset:
    """A single image: a split ``all`` of one.

    Args:
        path: of the file.
        name: of the set.
    """
    split = FileSplit("all", path.parent, PathTable([path.name]), None)
    return Dataset(name, "single image", {"all": split}, bytes_on_disk=path.stat().st_size)


def open_folder(tree: Tree, name: str, task: Task | None = None) -> Dataset:
    """List an image folder.

    Classes are the folders in the order of their names, the same in all splits. Folders below a
    class belong to it; links to folders are followed, each real folder once in a class.

    Args:
        tree: holds class folders, or split folders (``train``, ``test``, ``val``, in any case)
            with class folders, or images only; or one folder in which the splits are.
        name: of the set.
        task: "masks" where there must be some, "classes" where none are looked for.

    Raises:
        DataError: it cannot be read, or holds no image; or no masks, where they are asked for.
    """
    notes = _Notes()
    top = _scan(tree, b"", notes)
    if top is None:
        raise DataError(f"{tree.where}: {notes.problems[0].reason}.")
    split_folders = _split_folders(top, tree)
    inner = None if split_folders else _inner(tree, top)
    if inner is not None:
        opened = open_folder(inner, name, task)
        return replace(opened, problems=(*opened.problems, *notes.all()))
    found = _files(tree, top, split_folders, notes)
    other = None if task == "classes" else _other_than_classes(tree, name, top, found, notes, task)
    if other is not None:
        return other
    if task is None:
        inside = None if split_folders else _only_images(found)
        if inside is not None:
            opened = open_folder(tree.below(inside), name)
            return replace(opened, problems=(*opened.problems, *notes.all()))
        _forget_strangers(found, split_folders, notes)
    return _dataset(tree, name, found, split_folders, notes)


def _files(
    tree: Tree, top: _Listing, split_folders: dict[str, bytes], notes: _Notes
) -> dict[str, _Found]:
    """The files of each split that has any."""
    if split_folders:
        _note_outside(top, split_folders, notes)
        found = {split: _read(tree, path, notes) for split, path in split_folders.items()}
    else:
        found = {"all": _read(tree, b"", notes, top)}
    for split in [split for split, files in found.items() if not len(files.paths)]:
        del found[split]
        if split_folders:
            notes.add(split_folders[split], "no images")
    if not found:
        raise _no_images(tree, notes)
    return found


def _other_than_classes(
    tree: Tree,
    name: str,
    top: _Listing,
    found: dict[str, _Found],
    notes: _Notes,
    task: Task | None,
) -> Dataset | None:
    """Images beside masks; None where there are none, and none are asked for."""
    if task == "masks" or (task is None and _may_have_masks(found, top)):
        every = [os.fsdecode(path) for path in _walk(tree, b"", set(), _Notes())]
        masked = open_masks(tree, name, every, notes.of_files())
        if masked is not None:
            return masked
    if task is not None:
        raise DataError(
            f"{tree.where}: no {task} were found for its images.",
            hint="Masks have the names of their images: images/1.jpg and masks/1.png. Values and "
            "labels come from a table.",
        )
    names = [os.fsdecode(raw) for files in found.values() for raw in files.classes]
    if picture_pairs(names):
        _refuse_pairs(found, tree.where)
    if len(names) > 1 and all(_FOLD.fullmatch(name.lower()) for name in names):
        raise DataError(
            f"{tree.where}: {printable(names[0])} and {printable(names[1])} are folds for "
            "cross-validation, no classes.",
            hint="Make train and val folders of them. If they are classes: "
            'task="classes" (--task classes).',
        )
    return None


def _dataset(
    tree: Tree, name: str, found: dict[str, _Found], split_folders: dict[str, bytes], notes: _Notes
) -> Dataset:
    classes = sorted({raw for files in found.values() for raw in files.classes})
    numbers = {raw: number for number, raw in enumerate(classes)}
    splits: dict[str, Split] = {}
    for split, files in found.items():
        folder = split_folders.get(split, b"")
        labels = None
        if files.classes:
            number = np.array([numbers[raw] for raw in files.classes], np.int64)
            labels = number[np.frombuffer(files.labels, np.int64)]
            for raw in sorted(set(classes) - set(files.classes)):
                notes.add(_join(folder, raw), f"no image of this class in {split}")
        elif classes:
            notes.add(folder, "no class folders, so no labels")
        splits[split] = tree.split(split, files.paths, labels)
    layout = "class folders" if classes else "flat folder"
    if split_folders:
        layout += " in split folders"
    names = tuple(printable(os.fsdecode(raw)) for raw in classes)
    return Dataset(
        name, layout, in_order(splits), names, tuple(notes.all()), hidden=tuple(notes.hidden)
    )


def _inner(tree: Tree, top: _Listing) -> Tree | None:
    """The only folder, where it is no class but what an archive was unpacked to."""
    if len(top.folders) != 1 or top.images:
        return None
    inner = tree.below(top.folders[0])
    within = _scan(inner, b"", _Notes()) or _Listing()
    is_wrapping = within.folders and not within.images
    return inner if is_wrapping or tree.is_archive else None


def _split_folders(top: _Listing, tree: Tree) -> dict[str, bytes]:
    """Folders that are splits: when one means train, or when there are no others."""
    meanings = {raw: split_named(os.fsdecode(raw)) for raw in top.folders}
    if "train" not in meanings.values() and (None in meanings.values() or top.images):
        return {}
    splits: dict[str, bytes] = {}
    for raw, split in meanings.items():
        if split in splits:
            both = " and ".join(printable(os.fsdecode(n)) for n in (splits[split], raw))
            raise DataError(f"{tree.where}: {both} are both the split {split}.")
        if split is not None:
            splits[split] = raw
    return splits


def _only_images(found: dict[str, _Found]) -> bytes | None:
    """A folder that is called images and has them all: no class."""
    files = next(iter(found.values()))
    used = {files.classes[number] for number in files.labels}
    raw = used.pop() if len(used) == 1 else None
    return raw if raw is not None and are_called_images(os.fsdecode(raw)) else None


def _forget_strangers(
    found: dict[str, _Found], split_folders: dict[str, bytes], notes: _Notes
) -> None:
    """The only folder of a split is no class where training has none of its name.

    Such as ``val/images/1.jpg`` and ``test/unknown/1.jpg``; nor is it one where it only says that
    there are images in it.
    """
    trained = set(found["train"].classes) if "train" in found else set()
    for split, files in found.items():
        used = {files.classes[number] for number in files.labels}
        only = used.pop() if len(used) == 1 else None
        is_strange = split != "train" and trained and only not in trained
        if (
            only is not None
            and split in split_folders
            and (is_strange or _only_images({split: files}) is not None)
        ):
            folder = _join(split_folders[split], only)
            notes.add(folder, "not a class: its images have no labels")
            files.labels, files.classes = array("q"), []


def _refuse_pairs(found: dict[str, _Found], where: str) -> None:
    """An image for an image: folders such as ``HR`` and ``LR`` with the same names of files."""
    stems: dict[str, set[str]] = {}
    for files in found.values():
        for path, number in zip(files.paths, files.labels, strict=True):
            name = os.fsdecode(files.classes[number])
            stems.setdefault(name, set()).add(plain_stem(path))
    if len(set(map(frozenset, stems.values()))) < len(stems):
        both = " and ".join(printable(name) for name in sorted(stems))
        raise DataError(
            f"{where}: {both} hold two pictures of the same things, no classes: an image for an "
            "image is not trained.",
            hint=f'If they are classes: task="classes" (--task classes). {OWN_CODE}',
        )


def _may_have_masks(found: dict[str, _Found], top: _Listing) -> bool:
    """By names alone; or there are two classes of as many files."""
    names = b"/".join([*top.folders, *(files.paths.text for files in found.values())])
    alone = next(iter(found.values()))
    are_equal = len(alone.classes) == 2 and 2 * sum(alone.labels) == len(alone.labels) > 0
    return may_be_masks(names) or are_equal


def _note_outside(top: _Listing, split_folders: dict[str, bytes], notes: _Notes) -> None:
    for raw in top.folders:
        if raw not in split_folders.values():
            notes.add(raw, "beside the split folders: not read")
    if top.images:
        notes.add(b"", f"{_number(len(top.images), 'image')} beside the split folders: not read")


def _read(tree: Tree, folder: bytes, notes: _Notes, listing: _Listing | None = None) -> _Found:
    """One split: class folders, or images only."""
    listing = listing or _scan(tree, folder, notes) or _Listing()
    found = _Found()
    above = {tree.identity(b""), tree.identity(folder)}
    for raw in listing.folders:
        before = len(found.paths)
        for path in _walk(tree, _join(folder, raw), set(above), notes):
            found.paths.append(path)
            found.labels.append(len(found.classes))
        found.classes.append(raw)
        if len(found.paths) == before:
            notes.add(_join(folder, raw), "class without images")
    if len(found.paths):
        notes.hidden += [
            printable(os.fsdecode(_join(folder, raw)))
            for raw in listing.hidden
            if (_scan(tree, _join(folder, raw), _Notes()) or _Listing()).images
        ]
    if not listing.images:
        return found
    if len(found.paths):
        images = _number(len(listing.images), "image")
        notes.add(folder, f"{images} outside of the class folders: not read")
        return found
    return _Found(PathTable(_join(folder, raw) for raw in listing.images))


def _walk(tree: Tree, folder: bytes, seen: set[Hashable], notes: _Notes) -> Iterator[bytes]:
    """Images in a folder and those below it, by name; every real folder once."""
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        try:
            identity = tree.identity(folder)
        except OSError as error:
            notes.add(folder, error.strerror or "cannot be read")
            continue
        if identity in seen:
            notes.add(folder, "a link to a folder that was already read (a loop?): not followed")
            continue
        seen.add(identity)
        listing = _scan(tree, folder, notes) or _Listing()
        yield from (_join(folder, raw) for raw in listing.images)
        waiting += [_join(folder, raw) for raw in reversed(listing.folders)]


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _scan(tree: Tree, folder: bytes, notes: _Notes) -> _Listing | None:
    """What is in a folder, sorted; None (and a note) if it cannot be read."""
    listing = _Listing()
    try:
        with tree.entries(folder) as entries:
            for entry in entries:
                _sort_in(entry, folder, listing, notes)
    except OSError as error:
        notes.add(folder, error.strerror or "cannot be read")
        return None
    listing.images.sort()
    listing.folders.sort()
    return listing


def _sort_in(entry: Entry, folder: bytes, listing: _Listing, notes: _Notes) -> None:
    name = os.fsdecode(entry.name)
    if name.startswith(".") or name.lower() in _LITTER:
        notes.litter += 1
        if entry.is_dir():
            listing.hidden.append(entry.name)
        return
    try:
        if entry.is_dir():
            listing.folders.append(entry.name)
        elif not is_image_name(name):
            notes.endings[printable(os.path.splitext(name)[1].lower())] += 1  # noqa: PTH122
        elif entry.is_file():
            listing.images.append(entry.name)
        else:
            notes.add(_join(folder, entry.name), "a broken link, or no regular file")
    except OSError as error:  # a link to itself
        notes.add(_join(folder, entry.name), error.strerror or "cannot be read")


def _no_images(tree: Tree, notes: _Notes) -> DataError:
    reasons = [f"{problem.name}: {problem.reason}" for problem in notes.all()]
    more = f" and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return DataError(
        f"No images in {tree.where}"
        + (f" ({'; '.join(reasons[:5])}{more})." if reasons else ": it is empty."),
        hint="Expected: class/*.jpg, train/class/*.jpg, images, IDX files, or CIFAR's pickles. "
        + OWN_CODE,
    )
