"""What building a model yields: the module on meta, and what its source knows about its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

__all__ = ["BuiltModel", "InputKind", "Task"]

InputKind = Literal["image", "token", "unknown"]
"""One float tensor ``[B, C, H, W]``, token ids ``[B, L]``, or not known."""

Task = Literal[
    "causal-lm",
    "classification",
    "detection",
    "masked-lm",
    "optical-flow",
    "segmentation",
    "seq2seq-lm",
    "sequence-classification",
    "token-classification",
    "unknown",
    "video-classification",
]
"""What the output is trained for, as far as the source says; decides the loss."""


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model with shapes and no memory.

    Attributes:
        module: every parameter and buffer on the meta device, in training mode.
        name: the specification for display (``"torchvision:resnet50"``); a module's class name.
        default_input_shape: one sample, without the batch: ``(C, H, W)``, ``(C, T, H, W)`` for
            video, ``(L,)`` for token ids. The asked shape when one was given; None when unknown.
        default_num_classes: the classes it was built with, where the source knows them.
        kind: what the input is.
        vocab_size: token ids lie in ``[0, vocab_size)``; None for images.
        task: what the output is trained for.
        wrappers: that were taken off, such as ``"torch.compile"`` or ``"DataParallel"``;
            also ``"apex.amp"``.
        example: the author's ``example_batch(batch_size)``; None where there is none.
    """

    module: nn.Module
    name: str
    default_input_shape: tuple[int, ...] | None = None
    default_num_classes: int | None = None
    kind: InputKind = "unknown"
    vocab_size: int | None = None
    task: Task = "unknown"
    wrappers: tuple[str, ...] = ()
    example: Callable[[int], Any] | None = None
