"""Images beside masks: which file is the mask of which, by the names that people give them.

``images/1.jpg`` and ``masks/1.png``, ``train/images/…`` and ``train/masks/…``, ``train/1.jpg`` and
``train_masks/1_mask.gif``, ``1.tif`` and ``1_mask.tif``, VOC's ``JPEGImages`` and
``SegmentationClass``, Cityscapes' ``leftImg8bit`` and ``gtFine``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from memfit.data.samples.labels import SPLIT_NAMES, split_named
from memfit.errors import DataError
from memfit.files.names import printable

__all__ = [
    "Pairs", "are_called_images", "images_beside_masks", "may_be_masks", "picture_pairs",
    "plain_stem",
]  # fmt: skip

_IMAGES = (
    "images?", "imgs?", "image_?data", "jpegimages", "leftimg8bit", "originals?", "inputs?",
    "photos?", "pictures?",
)  # fmt: skip
_MASKS = (
    "masks?", "labels?", "annots?", "annotations?", "gts?", "gtfine", "ground_?truths?",
    "segs?", "segmentations?", "segmentationclass", "trimaps?", "mattes?", "lbls?",
    "(1st_|2nd_)?manual",
)  # fmt: skip
#: One instance each: no classes of pixels.
_INSTANCES = ("segmentationobject", "instances?", "instance_?masks?")
_SPLITS = "|".join((*sorted(SPLIT_NAMES, key=len, reverse=True), "tr", "ts"))
_FOLDER = re.compile(
    rf"(?:(?P<before>{_SPLITS})_?)?(?:(?P<images>{'|'.join(_IMAGES)})|(?P<masks>{'|'.join(_MASKS)}))"
    rf"(?:_?(?P<after>{_SPLITS}))?(?:_(?:png|jpe?g|tiff?|raw))?"
)
_BESIDE = re.compile(rf"(?P<folder>.+)_(?:{'|'.join(_MASKS)})")  # photos, photos_masks
_INSTANCE_FOLDER = re.compile("|".join(_INSTANCES))
_MASK_STEM = re.compile(
    r"(?P<stem>.+?)[_\-. ]+(gtfine_label(train)?ids|masks?|labels?|gt|seg|segmentation|annotation"
    r"|ground_?truth|matte|lbl|manual\d?)"
)
_IMAGE_STEM = re.compile(r"(?P<stem>.+?)[_\-. ]+(leftimg8bit|images?|img|sat)")
_MAY_BE = re.compile(
    rb"(?i)mask|label|annot|\bgt|_gt|ground.?truth|seg|trimap|matte|lbl"
)  # fmt: skip
#: Folders of two pictures of the same thing, from one of which the other is made.
_TWO_PICTURES = (
    {"hr", "lr"}, {"high", "low"}, {"clean", "noisy"}, {"sharp", "blur"}, {"sharp", "blurred"},
    {"before", "after"}, {"input", "target"}, {"inputs", "targets"}, {"source", "target"},
    {"a", "b"}, {"norain", "rain"}, {"clear", "hazy"}, {"colour", "grey"}, {"color", "gray"},
)  # fmt: skip
_FULL_NAMES = {"tr": "train", "ts": "test"}


@dataclass(frozen=True, slots=True)
class _File:
    """A file, and what its names say.

    Args:
        path: below the root.
        key: the same for an image and its mask.
        split: that its folders name; "all" without one.
        is_mask: whether a name says so.
        is_said: whether a folder says that it is an image or a mask.
    """

    path: str
    key: tuple[str, ...]
    split: str
    is_mask: bool
    is_said: bool


@dataclass(slots=True)
class Pairs:
    """What belongs together.

    Args:
        images: paths by split, in order.
        masks: of each image; empty for a split without any.
        alone: paths of images without a mask, in splits that have masks.
        left: paths of masks without an image.
        is_said: whether folders are called images and masks.
    """

    images: dict[str, list[str]] = field(default_factory=dict)
    masks: dict[str, list[str]] = field(default_factory=dict)
    alone: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    is_said: bool = False


def may_be_masks(names: bytes) -> bool:
    """Whether any of many names, back to back, could be that of a mask."""
    return _MAY_BE.search(names) is not None


def images_beside_masks(paths: Iterable[str], where: str) -> Pairs | None:
    """Pair what belongs together.

    Args:
        paths: of all images below a folder.
        where: the folder, for messages.

    Returns:
        None where names tell of no masks.

    Raises:
        DataError: folders are called images and masks, but their files do not pair.
    """
    images: dict[tuple[str, ...], _File] = {}
    masks: dict[tuple[str, ...], _File] = {}
    others: list[_File] = []
    for file in filter(None, map(_read, paths)):
        kind = masks if file.is_mask else images
        if file.key in kind and file.is_mask:
            others.append(file)
        kind.setdefault(file.key, file)
    both = images.keys() & masks.keys()
    is_said = any(f.is_said for f in images.values()) and any(f.is_said for f in masks.values())
    if is_said and not both and _are_siblings(images.values(), masks.values()):
        raise _nothing_pairs(where, next(iter(images.values())), next(iter(masks.values())))
    if 2 * len(both) < min(len(images), len(masks)) or not both:
        return None
    twice = next((file for file in others if file.key in both), None)
    if twice is not None:
        raise DataError(
            f"{where}: {printable(masks[twice.key].path)} and {printable(twice.path)} are both "
            f"masks of {printable(images[twice.key].path)}.",
            hint="Keep the images and one folder of masks. If these are no masks: "
            'task="classes" (--task classes).',
        )
    return _in_splits(images, masks, is_said)


def are_called_images(folder: str) -> bool:
    """Whether a folder's name only says that there are images in it."""
    match = _FOLDER.fullmatch(re.sub(r"[ -]", "_", folder.lower()))
    return match is not None and match["images"] is not None


def plain_stem(path: str) -> str:
    """The name of a file without its ending and what says that it is a mask or an image."""
    stem = PurePosixPath(path).stem.lower()
    match = _MASK_STEM.fullmatch(stem) or _IMAGE_STEM.fullmatch(stem)
    return stem if match is None else match["stem"]


def picture_pairs(names: Iterable[str]) -> bool:
    """Whether folders are called after two pictures of the same thing: ``HR`` and ``LR``."""
    words, splits = set[str](), set[str]()
    for name in names:
        match = re.fullmatch(rf"(?P<split>(?:{_SPLITS})?)_?(?P<word>.*)", name.lower())
        assert match is not None
        words.add(match["word"])
        splits.add(match["split"])
    return words in _TWO_PICTURES and (words != {"a", "b"} or "" not in splits)


def _in_splits(
    images: dict[tuple[str, ...], _File], masks: dict[tuple[str, ...], _File], is_said: bool
) -> Pairs:
    left = [masks[key].path for key in sorted(masks.keys() - images.keys())]
    found = Pairs(is_said=is_said, left=left)
    with_masks = {file.split for key, file in images.items() if key in masks}
    for key in sorted(images):
        image = images[key]
        if key in masks:
            found.masks.setdefault(image.split, []).append(masks[key].path)
        elif image.split in with_masks:
            found.alone.append(image.path)
            continue
        found.images.setdefault(image.split, []).append(image.path)
    return found


def _are_siblings(images: Iterable[_File], masks: Iterable[_File]) -> bool:
    """Whether a folder of images stands beside one of masks."""
    places = {file.key[:-1] for file in images if file.is_said}
    return any(file.key[:-1] in places for file in masks if file.is_said)


def _read(path: str) -> _File | None:
    """What the names in a path say; None for masks of single instances."""
    pure = PurePosixPath(path)
    folders, split, said = list[str](), "all", ""
    for folder in pure.parts[:-1]:
        word = re.sub(r"[ -]", "_", folder.lower())
        if _INSTANCE_FOLDER.fullmatch(word):
            return None
        match = _FOLDER.fullmatch(word)
        if match is not None:
            said = "masks" if match["masks"] or said == "masks" else "images"
        for name in _split_words(word, match):
            split = name
        beside = _BESIDE.fullmatch(word) if match is None else None
        if beside is not None:
            said, word = "masks", beside["folder"]
        if match is None and split_named(word) is None and not are_called_images(word):
            folders.append(word)
    stem = pure.stem.lower()
    if said == "masks":
        stem = stem.removesuffix("_l")  # CamVid's
    as_mask, as_image = _MASK_STEM.fullmatch(stem), _IMAGE_STEM.fullmatch(stem)
    is_mask = said == "masks" or (as_mask is not None and said != "images")
    plain = as_mask if is_mask else as_image
    key = (split, *folders, stem if plain is None else plain["stem"])
    return _File(path, key, split, is_mask, bool(said))


def _split_words(word: str, match: re.Match[str] | None) -> Iterator[str]:
    """The splits that the name of a folder names."""
    words = [word] if match is None else [match["before"], match["after"]]
    for each in filter(None, words):
        name = split_named(_FULL_NAMES.get(each, each))
        if name is not None:
            yield name


def _nothing_pairs(where: str, image: _File, mask: _File) -> DataError:
    return DataError(
        f"{where}: folders of images and of masks, but no names of files pair, such as "
        f"{printable(image.path)} and {printable(mask.path)}: several masks for an image "
        "(instances) are not read.",
        hint="A mask has the name of its image, with _mask or not: images/1.jpg, masks/1.png. "
        'If these are no masks: task="classes" (--task classes).',
    )
