"""A ``Dataset`` of the user's own, as courses teach it: ``__len__`` and ``__getitem__``.

An item is ``(image, label)``, or a dict of both; what an image may be is said in
:mod:`memfit.data.images.items`. Bytes are resized and normalised as those of files are; floats are
delivered as they are. The labels are read once when the set is opened: from its ``targets`` or
``labels``, as torchvision's sets have them, else from all items.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memfit.data.images.decode import MAX_PIXELS, Pixels, eight_bits, pixels_of
from memfit.data.images.items import image_of_item
from memfit.data.samples.dataset import Dataset, Split, Target
from memfit.data.samples.labels import in_order, split_named
from memfit.data.samples.masks import MaskClasses, class_of_each, classes_of_values, stored_values
from memfit.data.tables.answers import Answers, answers_of_array
from memfit.errors import BadImage, DataError, MemfitError
from memfit.files.names import printable
from memfit.recipe.fields import Task

__all__ = ["OwnSplit", "is_spec", "open_own", "open_spec"]

_SPEC = re.compile(r"(?:.+\.py|[^\W\d]\w*(?:\.\w+)*):[^\W\d]\w*")
_IMAGES = ("image", "img", "images", "pixel_values", "x", "input")
_ANSWERS = ("label", "labels", "target", "y", "mask", "class")
_LOOKED_AT = 16


def is_spec(text: str) -> bool:
    """Whether a text is ``path/to/file.py:NAME`` or ``package.module:NAME``, and no path."""
    return _SPEC.fullmatch(text) is not None and not Path(text).exists()


def open_spec(spec: str, task: Task | None = None) -> Dataset:
    """Import what a text names, and open it, see :func:`open_own`.

    Raises:
        ModelError: there is no such file, module or name.
        UserCodeError: importing it raised.
        DataError: it yields no data set.
    """
    from memfit.models.user_code import import_object

    return open_own(import_object(spec, builds=False), spec, task, spec)


def open_own(source: Any, name: str, task: Task | None = None, spec: str | None = None) -> Dataset:
    """A data set, several by split, or what makes one.

    Args:
        source: an object with ``__len__`` and ``__getitem__``; a dict of some by split; two or
            three in a tuple, which are train, val and test; or a function or class, called without
            arguments, that yields one of these.
        name: of the set.
        task: what its answers ask for, where they could be taken for something else.
        spec: where it can be imported from again, in another process.

    Raises:
        DataError: it is no data set, or its items are none.
        UserCodeError: its code raised.
    """
    found = {
        split: OwnSplit(split, dataset, spec=spec)
        for split, dataset in _splits_of(_made_by(source, name), name).items()
    }
    answers = _answers(found, name, task)
    first = next(iter(found.values()))
    layout = "your own Dataset"
    if first.limits is not None:
        low, high = first.limits
        layout += f", floats from {low:.3g} to {high:.3g} delivered as they are"
    classes, named = answers.classes, getattr(first.dataset, "classes", None)
    if answers.task == "classes" and isinstance(named, (list, tuple)):
        names = tuple(printable(str(each)) for each in named)
        classes = names if len(names) >= len(classes) else classes
    return Dataset(
        name, layout, in_order(found), classes, value_names=answers.value_names,
        task_reason=answers.reason,
    )  # fmt: skip


def _made_by(source: Any, name: str) -> Any:
    """What a function or class yields; anything else is itself."""
    if not inspect.isclass(source) and (not callable(source) or _is_dataset(source)):
        return source
    from memfit.models.user_code import called

    return called(source, name)


def _is_dataset(source: Any) -> bool:
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def _splits_of(made: Any, name: str) -> dict[str, Any]:
    if isinstance(made, Mapping):
        found = {split_named(str(key)) or str(key): value for key, value in made.items()}
    elif isinstance(made, tuple) and all(not isinstance(m, (tuple, str)) for m in made):
        found = dict(zip(("train", "val", "test"), made, strict=False))
        if len(made) not in (2, 3):
            raise DataError(f"{name} yields {len(made)} data sets; train, val and test are known.")
    else:
        found = {"all": made}
    for split, dataset in found.items():
        if not _is_dataset(dataset):
            kind = type(dataset).__name__
            loader = hasattr(dataset, "dataset") and hasattr(dataset, "batch_size")
            raise DataError(
                f"{name} yields a {kind} for {split}: no data set, which has __len__ and "
                "__getitem__.",
                hint="Give the Dataset itself: memfit makes the batches." if loader else
                "An iterable data set has no items by number: keep a list of its files.",
            )  # fmt: skip
        if not len(dataset):
            raise DataError(f"{name}: {split} has no items.")
    return found


class OwnSplit(Split):
    """Items of the user's own data set.

    Args:
        name: of the split.
        dataset: with ``__len__`` and ``__getitem__``.
        spec: where it can be imported from again, in another process.

    Attributes:
        limits: the least and the greatest value of floating-point images, in the first items; None
            for bytes.
    """

    def __init__(self, name: str, dataset: Any, *, spec: str | None = None) -> None:
        super().__init__(name, None)
        self.dataset = dataset
        self.mask_classes: MaskClasses | None = None
        self._spec, self._length = spec, len(dataset)
        self.is_random = True
        first = [self._item(index) for index in range(min(_LOOKED_AT, self._length))]
        floats = [image for image, _ in first if isinstance(image, np.ndarray)]
        self._first_answers = [answer for _, answer in first]
        self.limits = (
            (min(float(f.min()) for f in floats), max(float(f.max()) for f in floats))
            if floats
            else None
        )
        self.is_float = bool(floats)

    def __getstate__(self) -> dict[str, Any]:
        """Without the user's object where another process can import it."""
        return self.__dict__ | ({} if self._spec is None else {"dataset": None})

    def __len__(self) -> int:
        return self._length

    def sample_name(self, index: int) -> str:
        """As one would index it: ``train[17]``."""
        return f"{self.name}[{index}]"

    def image(self, index: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:  # noqa: ARG002
        """A sample; floats scaled to bytes, so that they can be looked at."""
        return self._as_bytes(self._item(index)[0], index)

    def sample(self, index: int, channels: int | None = None) -> tuple[Any, Target]:
        """The item, made once: pixels ``(H, W, C)``, uint8 or the user's float32, and target."""
        image, answer = self._item(index)
        pixels: Pixels | NDArray[np.float32]
        if isinstance(image, np.ndarray):
            if channels not in (None, image.shape[2]):
                reason = f"floats of {image.shape[2]} channels are not made {channels}"
                raise BadImage(self.sample_name(index), reason)
            pixels = image
        else:
            pixels = pixels_of(image, channels, self.sample_name(index), self.window)
        if self.mask_classes is None:
            return pixels, self.target(index)
        return pixels, self._mask(answer, pixels.shape[:2], index)

    def answer(self, index: int) -> Any:
        """The label of an item as the user gives it; None without one."""
        if index < len(self._first_answers):
            return self._first_answers[index]
        return self._item(index)[1]

    def _mask(self, answer: Any, size: tuple[int, ...], index: int) -> NDArray[np.int64]:
        assert self.mask_classes is not None
        name = self.sample_name(index)
        mask = class_of_each(_mask_values(answer, name), self.mask_classes, name)
        if mask.shape != size:
            raise BadImage(name, f"the image has the size {size}, its mask {mask.shape}")
        return mask

    def _as_bytes(self, image: Image.Image | NDArray[np.float32], index: int) -> Image.Image:
        if isinstance(image, Image.Image):
            return image
        low, high = self.limits or (0.0, 1.0)
        window = self.window or ((0.0, 1.0) if low >= 0 and high <= 1 else (low, high))
        pixels = eight_bits(image, self.sample_name(index), window if low < high else (0.0, 1.0))
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)

    def _item(self, index: int) -> tuple[Image.Image | NDArray[np.float32], Any]:
        name = self.sample_name(index)
        if self.dataset is None:
            self.dataset = self._again()
        try:
            item = self.dataset[index]
        except MemfitError:
            raise
        except Exception as error:  # it is the user's code: anything may come
            from memfit.models.user_code import where_raised

            raise BadImage(name, where_raised(error, type(self.dataset))) from None
        image, answer = _parts(item, name)
        return image_of_item(image, name), answer

    def _again(self) -> Any:
        from memfit.models.user_code import import_object

        assert self._spec is not None
        made = _made_by(import_object(self._spec, builds=False), self._spec)
        return _splits_of(made, self._spec)[self.name]


class _MasksOf:
    """The masks of a split by number."""

    def __init__(self, split: OwnSplit) -> None:
        self._split = split

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        mask: NDArray[np.int64] = np.asarray(self._split.sample(index)[1])
        return mask


def _parts(item: Any, name: str) -> tuple[Any, Any]:
    """The image and the answer in an item."""
    if isinstance(item, Mapping):
        image = next((item[key] for key in _IMAGES if key in item), None)
        if image is None:
            keys = ", ".join(map(str, item))
            raise BadImage(name, f"a dict of {keys} has no {', '.join(_IMAGES[:2])}")
        return image, next((item[key] for key in _ANSWERS if key in item), None)
    if isinstance(item, (tuple, list)):
        if not item:
            raise BadImage(name, "an empty item")
        return item[0], item[1] if len(item) > 1 else None
    return item, None


# -- what its items ask for ------------------------------------------------------------------------


def _answers(found: Mapping[str, OwnSplit], name: str, task: Task | None) -> Answers:
    given = {split: _given(own) for split, own in found.items()}
    known = {split: answers for split, answers in given.items() if answers is not None}
    if not known:
        return Answers(None, "")
    first = next(iter(known.values()))[0]
    if isinstance(first, Mapping):
        raise DataError(
            f"{name}: items with a dict of {', '.join(map(str, first))} are those of a detection "
            "set, which is not trained.",
        )
    if isinstance(first, Image.Image) or np.ndim(first) >= 2:
        return _with_masks({split: found[split] for split in known}, known, name)
    try:
        values = np.concatenate([np.asarray(answers) for answers in known.values()])
    except ValueError:
        raise DataError(f"{name}: the labels of its items have different shapes.") from None
    answers = answers_of_array(values, name, "label", task)
    start = 0
    for split, part in known.items():
        end = start + len(part)
        own = found[split]
        own.labels = None if answers.labels is None else answers.labels[start:end]
        own.targets = None if answers.targets is None else answers.targets[start:end]
        start = end
    return answers


def _given(split: OwnSplit) -> Sequence[Any] | None:
    """The answers of all items: from its ``targets`` or ``labels``, else from each."""
    first = split.answer(0)
    if first is None:
        return None
    if np.ndim(first) == 0 and not isinstance(first, Image.Image):
        for attribute in ("targets", "labels"):
            listed: Any = getattr(split.dataset, attribute, None)
            if _is_list_of(listed, len(split), first):
                return [_plain(listed[index]) for index in range(len(split))]
    return [_plain(split.answer(index)) for index in range(len(split))]


def _is_list_of(listed: Any, count: int, first: Any) -> bool:
    """Whether these are the answers: as many, and the first is the first item's."""
    try:
        return len(listed) == count and bool(_plain(listed[0]) == _plain(first))
    except (TypeError, KeyError, IndexError):
        return False


def _plain(answer: Any) -> Any:
    """Tensors as arrays, or as numbers."""
    if type(answer).__module__.partition(".")[0] == "torch":
        answer = answer.detach().cpu().numpy()
    return answer.item() if isinstance(answer, np.ndarray) and answer.ndim == 0 else answer


def _mask_values(answer: Any, name: str) -> NDArray[np.int64]:
    """The stored values of a mask: ``(H, W)``."""
    if isinstance(answer, Image.Image):
        return stored_values(answer, name)
    values = np.asarray(_plain(answer))
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values.squeeze(0 if values.shape[0] == 1 else 2)
    if values.ndim != 2 or (values != np.round(values)).any():
        raise BadImage(name, f"a mask {values.shape} of {values.dtype} holds no classes")
    return values.astype(np.int64)


def _with_masks(
    found: Mapping[str, OwnSplit], given: Mapping[str, Sequence[Any]], name: str
) -> Answers:
    values: set[int] = set()
    for answers in given.values():
        for answer in answers:
            values |= set(np.unique(_mask_values(answer, name)).tolist())
    classes = classes_of_values(values, name)
    for own in found.values():
        own.mask_classes = classes
        own.masks = _MasksOf(own)
    return Answers("masks", "", classes=classes.names)
