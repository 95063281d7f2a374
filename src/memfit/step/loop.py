"""The loop of every tutorial; its variables live exactly as long as they do there.

The plan traces it on meta tensors, ``memfit measure`` runs it on a real device: one loop for both,
so that predicted and measured mean the same step.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from memfit.errors import StepError, UsageError
from memfit.memory.tape.tape import Part, Phase
from memfit.recipe.precision import autocast_dtype
from memfit.recipe.recipe import Recipe
from memfit.step.batch import call_model, default_loss
from memfit.step.job import Job
from memfit.step.optimizers import build_optimizer

__all__ = [
    "MetaScaler",
    "Place",
    "Scaler",
    "Watcher",
    "autocast_of",
    "loss_of",
    "no_collection",
    "training_loop",
]


class Watcher(Protocol):
    """Who is told what tensors are for, such as a recorder of :mod:`memfit.memory.recording`."""

    def adopt(self, tensor: Tensor, part: Part) -> None:
        """Say what a tensor is for."""

    def enter_phase(self, phase: Phase) -> None:
        """Note where a phase begins."""

    def tag_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Tag what the parameters hold as gradients."""


class Scaler(Protocol):
    """Scales the loss of half precision; :class:`torch.amp.GradScaler` without its values."""

    def scale(self, loss: Tensor) -> Tensor:
        """The scaled loss; the loss itself lives on in the loop."""

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale, in place."""

    def step(self, optimizer: Optimizer) -> None:
        """Update, if the gradients are finite."""


@dataclass(frozen=True)
class Place:
    """Where a loop runs.

    Args:
        device: of its tensors.
        autocast_device: whose mixed precision is meant.
        watcher: is told what tensors are for.
        make_batch: inputs and labels on the device for a micro-batch.
        make_scaler: for ``amp-fp16``.
    """

    device: torch.device
    autocast_device: str
    watcher: Watcher
    make_batch: Callable[[int, torch.device], tuple[Tensor, Tensor]]
    make_scaler: Callable[[Watcher], Scaler]


def training_loop(
    job: Job,
    model: nn.Module,
    place: Place,
    micro_batch: int,
    steps: int,
    *,
    is_tokens: bool = False,
) -> Iterator[None]:
    """Run optimizer steps; each is done when the iterator comes back.

    Args:
        job: what decides memory.
        model: prepared, on the device.
        place: where it runs.
        micro_batch: samples of one forward and backward.
        steps: optimizer steps.
        is_tokens: the model reads token numbers.

    Raises:
        UsageError: there is nothing to train.
        StepError: the loss is not one number.
    """
    recipe, watcher = job.recipe, place.watcher
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise UsageError(
            "There is nothing to train: the model has no parameters, or all are frozen."
        )
    optimizer = build_optimizer(job.optimizer, trainable)
    _adopt_state(place, optimizer)
    average = _average(watcher, model, recipe.ema_decay) if recipe.ema else None
    scaler = place.make_scaler(watcher) if recipe.precision == "amp-fp16" else None
    forward = job.own.step or partial(_forward, loss_of(job), is_tokens)
    for _ in range(steps):
        for part_of_step in range(min(recipe.accumulation, 2)):  # a third is like the second
            watcher.enter_phase(Phase.DATA)
            inputs, target = place.make_batch(micro_batch, place.device)
            watcher.adopt(inputs, Part.BATCH)
            watcher.adopt(target, Part.BATCH)
            if part_of_step == 0:
                optimizer.zero_grad(set_to_none=recipe.zero_grad == "none")
            loss, output = _run_forward(recipe, place, forward, model, inputs, target)
            (loss if scaler is None else scaler.scale(loss)).backward()
            watcher.enter_phase(Phase.OPTIMIZER)
            watcher.tag_gradients(trainable)
        if scaler is not None:
            scaler.unscale(optimizer)
        if recipe.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(trainable, recipe.clip_grad_norm)
        optimizer.step() if scaler is None else scaler.step(optimizer)
        if average is not None:
            average.update_parameters(model)
        yield
    del inputs, target, loss, output


def loss_of(job: Job) -> Callable[[Any, Tensor], Tensor]:
    """The job's loss: the user's own, else cross-entropy with the recipe's label smoothing."""
    return job.own.loss or partial(default_loss, label_smoothing=job.recipe.label_smoothing)


def autocast_of(recipe: Recipe, device_type: str) -> AbstractContextManager[Any]:
    """The recipe's mixed precision; nothing for the others."""
    dtype = autocast_dtype(recipe.precision)
    return torch.autocast(device_type, dtype=dtype) if dtype else nullcontext()


@contextmanager
def no_collection() -> Iterator[None]:
    """Only reference counts free tensors here: a collection at some instant would free others."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _run_forward(
    recipe: Recipe,
    place: Place,
    forward: Callable[..., Any],
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
) -> tuple[Tensor, Any]:
    """Forward and loss under autocast; the output lives on in the loop, as it does there."""
    with autocast_of(recipe, place.autocast_device):
        result = forward(model, inputs, target)
    loss, output = result if isinstance(result, tuple) else (result, None)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise StepError(f"The loss must be one number; it is {shape}.")
    if recipe.accumulation > 1:
        loss = loss / recipe.accumulation
    return loss, output


def _forward(
    loss: Callable[[Any, Tensor], Tensor],
    is_tokens: bool,
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
) -> tuple[Tensor, Any]:
    output = call_model(model, inputs, is_tokens=is_tokens)
    return loss(output, target), output


def _adopt_state(place: Place, optimizer: Optimizer) -> None:
    """Some optimizers (Adagrad) make their state before the first step."""
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor) and value.device.type == place.device.type:
                place.watcher.adopt(value, Part.OPTIMIZER)


def _average(watcher: Watcher, model: nn.Module, decay: float) -> AveragedModel:
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    for tensor in (*average.parameters(), *average.buffers()):
        watcher.adopt(tensor, Part.OPTIMIZER)
    return average


class MetaScaler:
    """The device tensors of ``torch.amp.GradScaler`` (torch/amp/grad_scaler.py, 2.11 to 2.15)."""

    def __init__(self, watcher: Watcher) -> None:
        meta = torch.device("meta")
        self._scale = torch.empty((), device=meta)
        self._growth_tracker = torch.empty((), dtype=torch.int32, device=meta)
        for tensor in (self._scale, self._growth_tracker):
            watcher.adopt(tensor, Part.OPTIMIZER)

    def scale(self, loss: Tensor) -> Tensor:
        """The scaled loss."""
        return loss * self._scale

    def unscale(self, _optimizer: Optimizer) -> None:
        """The inverse scale and the flag for infinities; gradients are scaled in place."""
        self._inverse = self._scale.double().reciprocal().float()
        self._found_inf = torch.empty((), device=self._scale.device)

    def step(self, optimizer: Optimizer) -> None:
        """Update; whether gradients are finite is not known here."""
        optimizer.step()
