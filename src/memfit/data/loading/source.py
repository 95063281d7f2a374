"""The data that a recipe names, opened and looked at once for everything that is done with it."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import numpy as np

from memfit.data.loading.holding_out import hold_out
from memfit.data.loading.survey import Survey, survey
from memfit.data.samples.dataset import Dataset
from memfit.data.sets.opening import open_dataset
from memfit.data.sets.own import is_spec
from memfit.errors import DataError, UsageError
from memfit.recipe.recipe import Recipe

__all__ = ["Source"]

_CHANNELS = {"grey": 1, "rgb": 3}
#: Models that take any size, and so have none of their own.
_WITHOUT_SIZE = ("mlp", "cnn", "unet")


class Source:
    """A data set that is opened when it is first asked for, and only then.

    Args:
        data: whatever :func:`~memfit.data.sets.opening.open_dataset` takes.
        recipe: says where named sets are, how to read the images, and how many to hold out.
    """

    def __init__(self, data: Any, recipe: Recipe | None = None) -> None:
        self._data, self._recipe = data, recipe
        self._seen: dict[int | None, Survey] = {}

    @cached_property
    def dataset(self) -> Dataset:
        """What was opened.

        Raises:
            DataError: it does not exist, or is damaged.
            UnknownName: neither a name nor a path.
        """
        if self._recipe is None:
            return open_dataset(self._data)
        asked = self._recipe
        opened = open_dataset(
            self._data, root=asked.root, task=asked.task, window=asked.window, frame=asked.frame
        )
        return hold_out(opened, asked.val_share)

    @property
    def makes_floats(self) -> bool:
        """Whether it is a data set of the user's own code, with images of floats."""
        is_own = not isinstance(self._data, (str, os.PathLike)) or is_spec(os.fspath(self._data))
        return is_own and self.dataset.train.is_float

    def survey(self, recipe: Recipe) -> Survey:
        """What the training images are, seen in the recipe's colours.

        Raises:
            DataError: none of them can be read.
        """
        channels = _CHANNELS.get(recipe.colour)
        if channels not in self._seen:
            self._seen[channels] = survey(self.dataset.train, channels)
        return self._seen[channels]

    def answer(self, recipe: Recipe, model: object) -> Recipe:
        """The recipe with the shape and the classes that the data decides, where it names none.

        Where the images have different sizes, the model's own holds.

        Args:
            recipe: what was asked.
            model: the recipe's, or the user's own object.

        Raises:
            UsageError: the images have different sizes, and the model takes any.
        """
        if recipe.input_shape is None and recipe.input_ids is None:
            seen = self.survey(recipe)
            if seen.size is not None:
                recipe = recipe.but(input_shape=(seen.channels, *seen.size))
            elif model in _WITHOUT_SIZE:
                raise _different_sizes()
        if self.dataset.task == "masks" and model in ("mlp", "cnn"):
            raise UsageError(
                f"{self.dataset.name} asks for a class of each pixel; {model} gives one answer for "
                "an image.",
                hint="Take a model for masks: unet, or torchvision:fcn_resnet50 (--model unet).",
            )
        named = self.dataset.classes or self.dataset.value_names
        if recipe.num_classes is None and named:
            recipe = recipe.but(num_classes=len(named))
        return recipe

    def shape(self, recipe: Recipe) -> tuple[int, int, int]:
        """``(C, H, W)`` that the model gets.

        Raises:
            UsageError: the images and the recipe disagree, and nothing says how to convert.
        """
        asked, seen = recipe.input_shape, self.survey(recipe)
        if asked is not None and (len(asked) != 3 or asked[0] not in (1, 3)):
            text = "x".join(map(str, asked))
            raise UsageError(f"input_shape {text} is no image: 1xHxW or 3xHxW is needed.")
        if asked is not None and asked[0] != seen.channels:
            kinds = {1: "grey", 3: "RGB"}
            word = "grey" if asked[0] == 1 else "rgb"
            raise UsageError(
                f"The model takes {kinds[asked[0]]} images, the data delivers "
                f"{kinds[seen.channels]}.",
                hint=f'Convert them: colour="{word}" (--colour {word}).',
            )
        size = asked[1:] if asked is not None else seen.size
        if size is None:
            raise _different_sizes()
        return (seen.channels, size[0], size[1])

    def normalisation(
        self, recipe: Recipe, channels: int
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each channel, 0 to 1: the recipe's, else those of the images.

        Raises:
            UsageError: the recipe has another number of them.
        """
        seen = self.survey(recipe)
        found = []
        for name, measured in (("mean", seen.mean), ("std", seen.std)):
            values = getattr(recipe, name) or measured
            if len(values) == 1:
                values = values * channels
            if len(values) != channels:
                raise UsageError(
                    f"{name} has {len(values)} values, the images have {channels} channels."
                )
            found.append(values)
        return found[0], found[1]

    def check_labels(self, classes: int | None) -> None:
        """Refuse labels that are none of so many classes.

        Raises:
            DataError: there is one, in whatever split.
        """
        for split in self.dataset.splits.values():
            if split.labels is None or classes is None or not len(split):
                continue
            bad = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
            if len(bad):
                raise DataError(
                    f"{len(bad):,} labels of {split.name} lie outside of 0 to {classes - 1}; the "
                    f"first is {int(split.labels[bad[0]])} of {split.sample_name(int(bad[0]))}.",
                    hint=f"Leave out --num-classes, or give at least "
                    f"{int(split.labels.max()) + 1}.",
                )


def _different_sizes() -> UsageError:
    return UsageError(
        "The images have different sizes, so the model's has to be said.",
        hint="Such as input_shape=(3, 224, 224) (--input-shape 3x224x224).",
    )
