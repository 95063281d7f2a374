"""Data sets that are not there: torchvision's names, with made-up images."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from memfit.scripts.told.job import FakeData

__all__ = ["stand_in_for_data"]


def _as_tensor(images: Tensor) -> Any:
    return images.squeeze(1)


def _as_array(images: Tensor) -> Any:
    return images.permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True, slots=True)
class _Usual:
    """What a data set of torchvision has.

    Args:
        shape: (channels, height, width) of an image.
        classes: how many.
        holds: makes its attribute ``data`` of all images; None where it reads them from files.
    """

    shape: tuple[int, int, int]
    classes: int
    holds: Callable[[Tensor], Any] | None = None


#: As torchvision 0.26 documents them; photographs vary in size, here they do not.
_USUAL = {
    "MNIST": _Usual((1, 28, 28), 10, holds=_as_tensor),
    "FashionMNIST": _Usual((1, 28, 28), 10, holds=_as_tensor),
    "KMNIST": _Usual((1, 28, 28), 10, holds=_as_tensor),
    "EMNIST": _Usual((1, 28, 28), 47, holds=_as_tensor),
    "USPS": _Usual((1, 16, 16), 10),
    "CIFAR10": _Usual((3, 32, 32), 10, holds=_as_array),
    "CIFAR100": _Usual((3, 32, 32), 100, holds=_as_array),
    "SVHN": _Usual((3, 32, 32), 10),
    "STL10": _Usual((3, 96, 96), 10),
    "ImageFolder": _Usual((3, 375, 500), 1000),
    "ImageNet": _Usual((3, 375, 500), 1000),
    "Imagenette": _Usual((3, 375, 500), 10),
    "Food101": _Usual((3, 512, 512), 101),
    "Flowers102": _Usual((3, 500, 600), 102),
    "OxfordIIITPet": _Usual((3, 375, 500), 37),
    "StanfordCars": _Usual((3, 480, 640), 196),
    "FGVCAircraft": _Usual((3, 700, 1000), 100),
    "Caltech101": _Usual((3, 200, 300), 101),
    "Caltech256": _Usual((3, 300, 400), 257),
    "EuroSAT": _Usual((3, 64, 64), 10),
    "GTSRB": _Usual((3, 50, 50), 43),
    "DTD": _Usual((3, 480, 480), 47),
    "Country211": _Usual((3, 300, 400), 211),
    "SUN397": _Usual((3, 500, 600), 397),
    "LSUN": _Usual((3, 256, 341), 10),
}


def stand_in_for_data(fake: FakeData, note: Callable[[str], None]) -> None:
    """From here on, a data set of torchvision that cannot be opened is made up.

    Args:
        fake: shape, classes and length, where they are not the usual ones.
        note: is told which were.
    """
    from torchvision import datasets

    for name, usual in _USUAL.items():
        kind = getattr(datasets, name, None)
        if kind is not None:
            _stand_in(kind, usual, fake, note)


def _stand_in(kind: Any, usual: _Usual, fake: FakeData, note: Callable[[str], None]) -> None:
    make = kind.__init__
    signature = inspect.signature(make)
    shape = fake.shape or usual.shape
    classes = fake.classes or usual.classes

    @wraps(make)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            make(self, *args, **kwargs)
        except (OSError, RuntimeError, ValueError, ImportError):
            given = signature.bind(self, *args, **kwargs).arguments
            _make_up(self, kind, given, _Images(shape, classes, fake.length), usual)
            note(f"{kind.__name__} was made up: {fake.length} images {shape}, {classes} classes.")

    kind.__init__ = init


@dataclass(frozen=True, slots=True)
class _Images:
    """Images of one size, each with a class."""

    shape: tuple[int, int, int]
    classes: int
    length: int

    def pixels(self, index: int) -> Tensor:
        """Those of one image, which follow from its number."""
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, self.shape, dtype=torch.uint8, generator=generator)

    def image(self, index: int) -> Any:
        """As a PIL image."""
        from torchvision.transforms.functional import to_pil_image

        return to_pil_image(self.pixels(index))

    def all(self) -> Tensor:
        """The pixels of all, (images, channels, height, width)."""
        return torch.stack([self.pixels(index) for index in range(self.length)])


def _make_up(data: Any, kind: Any, given: dict[str, Any], images: _Images, usual: _Usual) -> None:
    """Turn a data set that could not be opened into one that needs no files."""
    data.root = given.get("root", "")
    data.transform = given.get("transform")
    data.target_transform = given.get("target_transform")
    data.transforms = given.get("transforms")
    data.train = given.get("train", True)
    data.split = given.get("split", "train")
    data.memfit_images = images
    data.targets = [index % images.classes for index in range(images.length)]
    data.labels = data.targets
    data.samples = data.imgs = [
        (f"{index}.jpg", target) for index, target in enumerate(data.targets)
    ]
    names = [f"class {number}" for number in range(images.classes)]
    found = {"classes": names, "class_to_idx": {name: n for n, name in enumerate(names)}}
    body = {"__getitem__": _item, "__len__": lambda self: self.memfit_images.length} | found
    if usual.holds is not None:
        data.data = usual.holds(images.all())
        if usual.holds is _as_tensor:
            data.targets = torch.tensor(data.targets)
    data.__class__ = type(kind.__name__, (kind,), body)


def _item(data: Any, index: int) -> tuple[Any, Any]:
    image, target = data.memfit_images.image(index), int(data.targets[index])
    if data.transform is not None:
        image = data.transform(image)
    if data.target_transform is not None:
        target = data.target_transform(target)
    return image, target
