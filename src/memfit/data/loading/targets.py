"""What a model is to say of each sample, as the loader delivers it: the targets of a split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memfit.data.samples.dataset import Dataset, Split
from memfit.errors import DataError, UsageError
from memfit.recipe.fields import Task
from memfit.recipe.recipe import Recipe

__all__ = ["MASK_DTYPE", "TargetKind", "check_augmentation", "known_targets", "target_kind"]

#: Of masks on the host, where the class numbers and ``IGNORED`` take 2 bytes a pixel.
MASK_DTYPE = torch.int16
#: Augmentations that leave every pixel where it is, or move masks with their images.
_FIT_MASKS = ("crop", "flip", "random-resized-crop", "colour-jitter")
_MIXES = ("mixup", "cutmix")


@dataclass(frozen=True, slots=True)
class TargetKind:
    """Targets of one sample.

    Args:
        task: what they are.
        shape: ``()`` of a class, ``(H, W)`` of a mask, ``(K,)`` of values and labels.
    """

    task: Task
    shape: tuple[int, ...]

    @property
    def is_mask(self) -> bool:
        """They are read with the images, and move with them."""
        return self.task == "masks"

    @property
    def is_float(self) -> bool:
        """They are of the dtype of the model's weights; else int64."""
        return self.task in ("values", "labels")

    def blank(self, count: int, device: str | torch.device) -> Tensor:
        """Targets whose values mean nothing, as they come to the device."""
        dtype = MASK_DTYPE if self.is_mask else torch.float32 if self.is_float else torch.int64
        return torch.empty((count, *self.shape), dtype=dtype, device=device)


def target_kind(dataset: Dataset, split: Split, size: tuple[int, int]) -> TargetKind:
    """The targets of a split.

    Args:
        dataset: the whole.
        split: what is delivered.
        size: height and width of what the model gets.

    Raises:
        DataError: nothing is known of its samples.
    """
    if not split.is_labelled or dataset.task is None:
        raise DataError(
            f"{dataset.name} has no labels.",
            hint="A folder for each class, or a CSV of paths and labels, gives them.",
        )
    widths = {"values": len(dataset.value_names), "labels": len(dataset.classes)}
    shape: tuple[int, ...] = (widths[dataset.task],) if dataset.task in widths else ()
    return TargetKind(dataset.task, size if dataset.task == "masks" else shape)


def known_targets(split: Split, kind: TargetKind) -> Tensor | None:
    """``(N,)`` class numbers, or ``(N, K)`` float32; None of masks, which are read."""
    if kind.is_mask:
        return None
    if kind.is_float:
        assert split.targets is not None, "the task says so"
        return torch.from_numpy(split.targets).float().reshape(len(split), *kind.shape)
    assert split.labels is not None, "the task says so"
    return torch.from_numpy(split.labels)


def check_augmentation(recipe: Recipe, task: Task) -> None:
    """Refuse what would change images without what is said of them.

    Raises:
        UsageError: such an augmentation or transform is asked for.
    """
    words = [word.partition("=")[0] for word in recipe.augment]
    refused = [w for w in words if w in _MIXES or (task == "masks" and w not in _FIT_MASKS)]
    if task != "classes" and refused:
        raise UsageError(
            f"augment {refused[0]} is of images with a class each; this data has {task}.",
            hint=f"With masks go: {', '.join(_FIT_MASKS)}." if task == "masks" else None,
        )
    if task == "masks" and recipe.transform is not None:
        raise UsageError(
            "transform sees an image alone, not its mask.",
            hint="A Dataset of your own can change both: --data my_data.py:make.",
        )
