"""The data batch: what a loader puts on the device for one forward and backward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from memfit.data.loading.loader import Loader
from memfit.data.loading.targets import TargetKind
from memfit.errors import StepError
from memfit.recipe.precision import weights_dtype
from memfit.step.outputs import logits_of
from memfit.step.tensors import Arguments, TensorSpec

__all__ = ["BatchSpec", "check_width", "loaded_batch"]


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """Inputs and targets of one sample.

    Args:
        inputs: what the forward is called with.
        targets: what the loss compares with, each once; none where it compares with nothing.
        target_name: the parameter of the forward that is given the target, too.
        compares_input: the target is the input itself.
        channels_last: images among the inputs are in that memory format.
        loader: makes the batch on the device, of bytes; without one it appears there as it is.

    >>> import torch
    >>> images = TensorSpec((1, 28, 28), torch.float32)
    >>> BatchSpec(Arguments((images,)), (TensorSpec((), torch.int64),)).size_bytes(64)
    201216
    """

    inputs: Arguments
    targets: tuple[TensorSpec, ...] = ()
    target_name: str | None = None
    compares_input: bool = False
    channels_last: bool = False
    loader: Loader | None = None

    def make(self, micro_batch: int, device: torch.device) -> tuple[Any, Any]:
        """Inputs and target on the device, as the loader hands them over.

        Returns:
            What the model is called with, a tensor or :class:`~memfit.step.tensors.Arguments`; and
            a tensor, a tuple of them, or None.
        """
        if self.loader is not None:
            return self.loader.prepare(self.loader.blank(micro_batch, device), device)
        inputs = self.inputs.map(TensorSpec, lambda spec: spec.make(micro_batch, device))
        inputs = self.formatted(inputs)
        targets = tuple(spec.make(micro_batch, device) for spec in self.targets)
        return self.handed(inputs, targets)

    def anew(self) -> BatchSpec:
        """The same with nothing on a device yet."""
        return self if self.loader is None else replace(self, loader=self.loader.anew())

    def formatted(self, inputs: Arguments) -> Arguments:
        """Images on the device in the memory format that the recipe asks for."""
        return inputs.map(Tensor, _channels_last) if self.channels_last else inputs

    def handed(self, inputs: Arguments, targets: tuple[Tensor, ...]) -> tuple[Any, Any]:
        """Tensors on the device in the form that :meth:`make` returns."""
        target: Any = targets[0] if len(targets) == 1 else targets or None
        if self.compares_input:
            target = next(inputs.of(Tensor))
        if self.target_name is not None:
            inputs = replace(inputs, named=inputs.named | {self.target_name: target})
        is_one = len(inputs.positional) == 1 and not inputs.named
        return (inputs.positional[0] if is_one else inputs), target

    def size_bytes(self, micro_batch: int) -> int:
        """Bytes of inputs and targets."""
        specs = (*self.inputs.of(TensorSpec), *self.targets)
        return sum(spec.size_bytes(micro_batch) for spec in specs)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def loaded_batch(loader: Loader) -> BatchSpec:
    """The batch that memfit's own loader makes on the device."""
    dtype = weights_dtype(loader.recipe.precision)
    target = TensorSpec(loader.target.shape, dtype if loader.target.is_float else torch.int64)
    if loader.augmentation.mixes:
        target = TensorSpec((len(loader.classes),), torch.float32)
    return BatchSpec(
        Arguments((TensorSpec(loader.shape, dtype),)),
        (target,),
        channels_last=loader.recipe.memory_format == "nhwc",
        loader=loader,
    )


def check_width(target: TargetKind, output: Any) -> None:
    """Values and labels are compared one by one: other shapes would be spread over each other.

    Raises:
        StepError: the model gives another number of them.
    """
    found = tuple(logits_of(output).shape[1:])
    if found != target.shape:
        raise StepError(
            f"The model gives shape {found} for a sample, the data has {target.shape[0]} "
            f"{target.task}: {target.shape} is needed.",
            hint="Let the model take num_classes, or give its last layer as many outputs.",
        )
