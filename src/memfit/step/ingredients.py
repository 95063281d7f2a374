"""What a recipe trains with, and what a training step does with it: planned, measured, trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from memfit.errors import UsageError
from memfit.models.user_code import import_object
from memfit.recipe.precision import autocast_dtype
from memfit.recipe.recipe import Recipe
from memfit.step.job import Job
from memfit.step.losses import checked_loss, parse_loss
from memfit.step.optimizers import build_optimizer
from memfit.step.tensors import Arguments, call_model
from memfit.step.usual import known_loss
from memfit.torch_inside import scaler_tensors

__all__ = ["Forward", "Ingredients", "autocast_of", "combine", "forward_of", "loss_of"]

#: ``(output, target) -> scalar``.
LossFunction = Callable[[Any, Any], Tensor]


@dataclass
class Forward:
    """A model and its loss: what an evaluation needs of a training step.

    Args:
        job: what decides memory.
        model: prepared; what is saved.
        forward: what is called: the model, or its compiled form.
        device: where it is.
        autocast_device: whose mixed precision is meant.
        loss: ``(output, target) -> scalar``.
    """

    job: Job
    model: nn.Module
    forward: Any
    device: torch.device
    autocast_device: str
    loss: LossFunction

    @property
    def recipe(self) -> Recipe:
        """Of the job."""
        return self.job.recipe

    def autocast(self) -> AbstractContextManager[Any]:
        """The recipe's mixed precision; nothing for the others."""
        return autocast_of(self.recipe, self.autocast_device)

    def forward_and_loss(self, inputs: Tensor | Arguments, target: Any) -> tuple[Tensor, Any]:
        """The mean loss, and the model's output where the loop still has it after the loss.

        Args:
            inputs: what the forward is called with.
            target: what the loss compares with.

        Raises:
            StepError: the loss is not one number.
        """
        own = self.job.own
        with self.autocast():
            if own.step is not None:
                given = inputs.alone if isinstance(inputs, Arguments) else inputs
                result: Any = own.step(self.forward, given, target)
            else:
                output = call_model(self.forward, inputs)
                result = self.loss(output, target), output
        loss, output = result if isinstance(result, tuple) else (result, None)
        return checked_loss(loss), output


@dataclass
class Ingredients(Forward):
    """Everything that a training step touches.

    Args:
        optimizer: over the parameters that train.
        scaler: enabled for ``amp-fp16``.
        average: of the weights, with ``ema``.
        is_sharded: each rank has a part of model, optimizer and average.
        notes: what the user should know, in sentences.
    """

    optimizer: Optimizer
    scaler: GradScaler
    average: AveragedModel | None
    is_sharded: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def trainable(self) -> list[Tensor]:
        """The parameters that the optimizer was given."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def clear_gradients(self) -> None:
        """Before a step's first backward; without the profiler's entry of ``zero_grad``."""
        if self.recipe.zero_grad == "zero":
            self.optimizer.zero_grad(set_to_none=False)
            return
        for parameter in self.trainable:
            parameter.grad = None

    def update(self) -> None:
        """From the gradients to the weights: clipping, the optimizer's step, the average."""
        if self.recipe.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trainable, self.recipe.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def state_tensors(self) -> Iterator[Tensor]:
        """What lives on the device from step to step beside model and gradients, as far as made.

        Adam's count of steps is a lone number on the host, unless a fused kernel needs it.
        """
        for state in self.optimizer.state.values():
            for value in state.values():
                is_there = isinstance(value, Tensor) and value.device.type == self.device.type
                if is_there and (value.dim() or self.device.type != "cpu"):
                    yield value
        if self.average is not None:
            yield from (*self.average.module.parameters(), *self.average.module.buffers())
        if self.scaler.is_enabled():
            yield from scaler_tensors(self.scaler)


def autocast_of(recipe: Recipe, device_type: str) -> AbstractContextManager[Any]:
    """The recipe's mixed precision; nothing for the others."""
    dtype = autocast_dtype(recipe.precision)
    return torch.autocast(device_type, dtype=dtype) if dtype else nullcontext()


def combine(
    job: Job,
    model: nn.Module,
    scaler: GradScaler,
    device: torch.device,
    autocast_device: str | None = None,
    *,
    loss: LossFunction | None = None,
    split: Callable[[nn.Module], None] | None = None,
) -> Ingredients:
    """Give a prepared model its optimizer and, with ``ema``, its average.

    Args:
        job: what decides memory.
        model: see :func:`~memfit.step.prepare.prepare_model`.
        scaler: for the gradients of half precision; disabled where there is none.
        device: of the step's tensors.
        autocast_device: whose mixed precision is meant; the device's own when omitted.
        loss: the one that the job names when omitted.
        split: leaves each rank its part of a model, in place.

    Raises:
        UsageError: there is nothing to train, or the optimizer is none.
    """
    recipe, average = job.recipe, None
    if recipe.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
    if split is not None:
        split(model)
        if average is not None:
            split(average.module)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise UsageError(
            "There is nothing to train: the model has no parameters, or all are frozen."
        )
    forward = forward_of(job, model, device, autocast_device, loss=loss)
    return Ingredients(
        **vars(forward),
        optimizer=build_optimizer(job.optimizer, trainable),
        scaler=scaler,
        average=average,
        is_sharded=split is not None,
    )


def forward_of(
    job: Job,
    model: nn.Module,
    device: torch.device,
    autocast_device: str | None = None,
    *,
    loss: LossFunction | None = None,
) -> Forward:
    """A prepared model with its loss; arguments as of :func:`combine`."""
    loss = loss or loss_of(job) or _known_loss(job.recipe.label_smoothing)
    if isinstance(loss, nn.Module):  # it may have weights of classes; the user's stay where it is
        loss = copy.deepcopy(loss).to(device)
    return Forward(job, model, model, device, autocast_device or device.type, loss)


def loss_of(job: Job) -> LossFunction | None:
    """The loss that a job names: the user's own, or a sum of named ones.

    Raises:
        MemfitError: there is none of that name.
    """
    text, loss = job.recipe.loss, job.own.loss
    if text is None:  # of the user's own it is the name
        return None
    if loss is None and ":" not in text:
        return parse_loss(text, label_smoothing=job.recipe.label_smoothing)
    loss = import_object(text, builds=False) if loss is None else loss
    if isinstance(loss, type) or not callable(loss):
        is_class = isinstance(loss, type)
        raise UsageError(
            f"The loss {text} is {'a class' if is_class else repr(loss)}, which compares nothing.",
            hint=f"Give what {loss.__name__}() returns."
            if is_class
            else "Give a function (output, target) -> one number.",
        )
    return cast("LossFunction", loss)


def _known_loss(label_smoothing: float) -> LossFunction:
    def loss(output: Any, target: Any) -> Tensor:
        return known_loss(output, label_smoothing=label_smoothing)(output, target)

    return loss
