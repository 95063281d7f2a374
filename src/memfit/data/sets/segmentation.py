"""A segmentation set: images, and masks with the same names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from memfit.data.samples.dataset import Dataset, Problem, Split
from memfit.data.samples.labels import in_order
from memfit.data.samples.masks import Masks, classes_in, look_like_masks
from memfit.data.samples.paths import PathTable
from memfit.data.sets.pairs import Pairs, images_beside_masks, plain_stem
from memfit.data.sets.trees import Tree
from memfit.files.names import printable

__all__ = ["open_masks"]


def open_masks(
    tree: Tree, name: str, paths: Sequence[str], problems: list[Problem]
) -> Dataset | None:
    """Images beside masks, where names and values say that they are.

    Args:
        tree: what the paths are relative to.
        name: of the set.
        paths: of all images in it.
        problems: what is noted about the source.

    Returns:
        None where there are no masks.

    Raises:
        DataError: there are, but they do not pair or hold no classes.
    """
    where = tree.where
    pairs = images_beside_masks(paths, where) or _two_equal_folders(tree, paths)
    if pairs is None:
        return None
    of_masks = {split: _files(tree, split, masks) for split, masks in pairs.masks.items()}
    if not pairs.is_said and not all(map(look_like_masks, of_masks.values())):
        return None
    classes = classes_in(list(of_masks.values()), where)
    splits: dict[str, Split] = {}
    for split, images in pairs.images.items():
        masks = Masks(of_masks[split], classes) if split in of_masks else None
        splits[split] = tree.split(split, PathTable(images), masks=masks)
    problems = [*problems, *_notes(pairs, where)]
    reason = "masks have the names of images" if pairs.is_said else "names pair, and half are masks"
    return Dataset(
        name, "images and masks", in_order(splits), classes.names, tuple(problems),
        task_reason=reason,
    )  # fmt: skip


def _files(tree: Tree, split: str, paths: Sequence[str]) -> Split:
    return tree.split(split, PathTable(paths))


def _notes(pairs: Pairs, where: str) -> list[Problem]:
    """Files without a partner."""
    found = []
    for paths, one, many in (
        (pairs.alone, "1 image has no mask", "images have no mask"),
        (pairs.left, "1 mask has no image", "masks have no image"),
    ):
        if paths:
            count = one if len(paths) == 1 else f"{len(paths):,} {many}"
            found.append(Problem(where, f"{count}, such as {printable(paths[0])}: not read"))
    return found


def _two_equal_folders(tree: Tree, paths: Sequence[str]) -> Pairs | None:
    """Two folders with the same names of files, one of which holds masks by its values."""
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(str(PurePosixPath(path).parent), []).append(path)
    if len(by_folder) != 2:
        return None
    one, other = ({plain_stem(p): p for p in paths} for paths in by_folder.values())
    if one.keys() != other.keys():
        return None
    are_masks = [look_like_masks(_files(tree, "all", list(half.values()))) for half in (one, other)]
    if are_masks[0] == are_masks[1]:
        return None
    images, masks = (other, one) if are_masks[0] else (one, other)
    stems = sorted(images)
    return Pairs({"all": [images[s] for s in stems]}, {"all": [masks[s] for s in stems]})
