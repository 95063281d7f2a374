"""The data batch: what a loader puts on the device, and the loss that fits the model's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memfit.data.loading.loader import Loader
from memfit.errors import StepError, UsageError
from memfit.recipe.precision import weights_dtype

__all__ = [
    "BatchSpec",
    "TensorSpec",
    "call_model",
    "checked_loss",
    "default_loss",
    "input_spec",
    "loaded_batch",
    "logits_of",
    "target_of",
]


_OWN_LOSS = "In Python, pass your own: memfit.plan(..., loss=lambda output, target: ...)."


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a batch, without its batch dimension.

    Args:
        shape: of one sample.
        dtype: as torch has it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    def make(self, micro_batch: int, device: torch.device) -> Tensor:
        """A tensor of shape ``(micro_batch, *shape)``."""
        return torch.empty((micro_batch, *self.shape), dtype=self.dtype, device=device)

    def size_bytes(self, micro_batch: int) -> int:
        """Bytes of the tensor for a micro-batch."""
        return micro_batch * torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """Inputs and labels of one sample.

    Args:
        inputs: what the model gets.
        target: the labels.
        is_tokens: the inputs are token numbers.
        channels_last: the inputs are in that memory format.
        loader: makes the batch on the device, of bytes; without one it appears there as it is.

    >>> import torch
    >>> images = TensorSpec((1, 28, 28), torch.float32)
    >>> BatchSpec(images, TensorSpec((), torch.int64)).size_bytes(64)
    201216
    """

    inputs: TensorSpec
    target: TensorSpec
    is_tokens: bool = False
    channels_last: bool = False
    loader: Loader | None = None

    def make(self, micro_batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Inputs and labels on the device, as the loader hands them over."""
        if self.loader is not None:
            return self.loader.prepare(self.loader.blank(micro_batch, device), device)
        inputs = self.inputs.make(micro_batch, device)
        if self.channels_last and inputs.dim() == 4:
            inputs = inputs.to(memory_format=torch.channels_last)
        return inputs, self.target.make(micro_batch, device)

    def size_bytes(self, micro_batch: int) -> int:
        """Bytes of inputs and labels."""
        return self.inputs.size_bytes(micro_batch) + self.target.size_bytes(micro_batch)


def loaded_batch(loader: Loader) -> BatchSpec:
    """The batch that memfit's own loader makes on the device."""
    dtype = weights_dtype(loader.recipe.precision)
    target = TensorSpec((), torch.int64)
    if loader.augmentation.mixes:
        target = TensorSpec((len(loader.classes),), torch.float32)
    return BatchSpec(
        TensorSpec(loader.shape, dtype),
        target,
        channels_last=loader.recipe.memory_format == "nhwc",
        loader=loader,
    )


def target_of(output: Any) -> TensorSpec:
    """The labels that cross-entropy needs for a model's output: ``(N, classes, …)`` logits.

    Raises:
        StepError: the output is nothing that a default loss understands.
    """
    logits = logits_of(output)
    if logits.dim() < 2:
        raise StepError(
            f"The model returns shape {tuple(logits.shape)}, which is no (N, classes) logits.",
            hint=_OWN_LOSS,
        )
    spatial = tuple(logits.shape[1:-1]) if _is_language(output, logits) else logits.shape[2:]
    return TensorSpec(tuple(spatial), torch.int64)


def default_loss(output: Any, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy over what the common libraries return; labels are classes or their shares.

    Weights of auxiliary heads: 0.4 for Inception v3 and 0.3 for GoogLeNet (their papers), 0.5 for
    torchvision's segmentation models (references/segmentation/train.py, 0.26).
    """
    logits = logits_of(output)
    cross_entropy = partial(F.cross_entropy, label_smoothing=label_smoothing)
    if _is_language(output, logits):
        return cross_entropy(logits.flatten(0, 1), target.flatten())
    loss = cross_entropy(logits, target)
    for weight, auxiliary in _auxiliary(output):
        loss = loss + weight * cross_entropy(auxiliary, target)
    return loss


def checked_loss(loss: Any, hint: str | None = None) -> Tensor:
    """What a backward can begin from.

    Args:
        loss: as the user's code or the default gave it.
        hint: how to make it one number.

    Raises:
        StepError: it is not one number.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise StepError(f"The loss must be one number; it is {shape}.", hint=hint)
    return loss


def logits_of(output: Any) -> Tensor:
    """The scores of the classes in what a model returns: ``(N, classes, …)``.

    Raises:
        StepError: there are none.
    """
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "out"):
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    raise StepError(
        f"The model returns {type(output).__name__}, for which there is no default loss.",
        hint=_OWN_LOSS,
    )


def _is_language(output: Any, logits: Tensor) -> bool:
    """Hugging Face language models put the classes last: (N, tokens, vocabulary)."""
    return logits.dim() == 3 and isinstance(output, Mapping)


def _auxiliary(output: Any) -> list[tuple[float, Tensor]]:
    if isinstance(output, Tensor):
        return []
    if isinstance(output, Mapping):
        aux = output.get("aux")
        return [(0.5, aux)] if isinstance(aux, Tensor) else []
    weight = {"InceptionOutputs": 0.4, "GoogLeNetOutputs": 0.3}.get(type(output).__name__, 1.0)
    rest = output[1:] if isinstance(output, (tuple, list)) else []
    return [(weight, aux) for aux in rest if isinstance(aux, Tensor)]


def call_model(model: nn.Module, inputs: Tensor, *, is_tokens: bool) -> Any:
    """Run the forward pass as a training loop would."""
    return model(input_ids=inputs) if is_tokens else model(inputs)


def input_spec(
    input_shape: tuple[int, ...] | None, input_ids: int | None, dtype: torch.dtype
) -> TensorSpec:
    """The model's input for one sample: floating-point images, or token numbers.

    Raises:
        UsageError: neither is known.
    """
    if input_ids is not None:
        return TensorSpec((input_ids,), torch.int64)
    if input_shape is None:
        raise UsageError(
            "The input shape is not known.",
            hint="Give one sample's: --input-shape 3x224x224 (input_shape=(3, 224, 224)), "
            "or --input-ids LENGTH for tokens.",
        )
    return TensorSpec(tuple(input_shape), dtype)
