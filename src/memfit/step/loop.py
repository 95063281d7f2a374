"""The loop of every tutorial; its variables live exactly as long as they do there.

The plan traces it on meta tensors, ``memfit measure`` runs it on a real device: one loop for both,
so that predicted and measured mean the same step.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from memfit.errors import UsageError
from memfit.memory.recording.recorder import Recorder
from memfit.memory.tape.tape import Part, Phase
from memfit.recipe.fields import FIELDS
from memfit.step.batch import BatchSpec
from memfit.step.ingredients import Forward, Ingredients
from memfit.step.job import Job
from memfit.step.tensors import Arguments, call_model, tensors_in

__all__ = [
    "Batches",
    "Loop",
    "Watcher",
    "check_own_steps",
    "forward_passes",
    "no_collection",
    "own_steps",
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


class Batches(Protocol):
    """Where batches come from: a :class:`~memfit.step.batch.BatchSpec`, or real values."""

    def make(self, micro_batch: int, device: torch.device) -> tuple[Any, Any]:
        """Inputs and target on the device for a micro-batch."""


#: Runs optimizer steps at a micro-batch; each is done when the iterator comes back.
Loop = Callable[[Ingredients, BatchSpec, Recorder, int, int], Iterator[None]]


def training_loop(
    made: Ingredients, batches: Batches, watcher: Watcher, micro_batch: int, steps: int
) -> Iterator[None]:
    """Run optimizer steps; each is done when the iterator comes back.

    Args:
        made: model, optimizer, loss.
        batches: says what a batch is.
        watcher: is told what tensors are for.
        micro_batch: samples of one forward and backward.
        steps: optimizer steps.

    Raises:
        StepError: the loss is not one number.
    """
    parts = made.recipe.accumulation
    _adopt_state(made, watcher)
    for _ in range(steps):
        for part in range(min(parts, 2)):  # a third is like the second
            watcher.enter_phase(Phase.DATA)
            inputs, target = batches.make(micro_batch, made.device)
            _adopt_batch((inputs, target), watcher)
            if part == 0:
                made.clear_gradients()
            loss, output = _share(made.forward_and_loss(inputs, target), parts)
            made.scaler.scale(loss).backward()
            watcher.enter_phase(Phase.OPTIMIZER)
            watcher.tag_gradients(made.trainable)
        _adopt_state(made, watcher)  # a scaler makes its numbers with the first loss
        made.update()
        yield
    del inputs, target, loss, output


def forward_passes(
    made: Forward, batches: Batches, watcher: Watcher, micro_batch: int, passes: int
) -> Iterator[None]:
    """Run forward passes without gradients; each is done when the iterator comes back.

    Args:
        made: model and loss; of an inference the model alone.
        batches: says what a batch is.
        watcher: is told what tensors are for.
        micro_batch: samples of one forward.
        passes: how many.

    Raises:
        StepError: the loss is not one number.
    """
    is_inference = made.recipe.mode == "inference"
    without_gradients = torch.inference_mode if is_inference else torch.no_grad
    was_training = made.model.training
    made.model.eval()
    for _ in range(passes):
        watcher.enter_phase(Phase.DATA)
        inputs, target = batches.make(micro_batch, made.device)
        _adopt_batch((inputs, target), watcher)
        with without_gradients():
            if is_inference:
                with made.autocast():
                    found = call_model(made.forward, inputs)
            else:
                found = made.forward_and_loss(inputs, target)
        yield
    del inputs, target, found
    made.model.train(was_training)


def own_steps(
    made: Forward, batches: Batches, watcher: Watcher, micro_batch: int, steps: int
) -> Iterator[None]:
    """Run whole steps of the user's own class, which has its optimizers and updates by itself.

    Args:
        made: the model; the class is the job's own step.
        batches: says what a batch is.
        watcher: is told what tensors are for.
        micro_batch: samples of one call.
        steps: calls.
    """
    step = made.job.own.step(made.model)
    for _ in range(steps):
        watcher.enter_phase(Phase.DATA)
        inputs, target = batches.make(micro_batch, made.device)
        _adopt_batch((inputs, target), watcher)
        step(inputs.alone if isinstance(inputs, Arguments) else inputs, target)
        yield
    del inputs, target


#: What whole steps of the user's own do by themselves, or not.
_OF_OWN_STEPS = (
    "accumulation", "global_batch", "clip_grad_norm", "ema", "optimizer", "zero_grad", "mode",
    "eval_batch_size",
)  # fmt: skip


def check_own_steps(job: Job) -> None:
    """Refuse what a class that does whole steps would leave undone without a word.

    Raises:
        UsageError: the recipe asks for such a thing.
    """
    if not isinstance(job.own.step, type):
        return
    recipe = job.recipe
    asked = [name for name in _OF_OWN_STEPS if getattr(recipe, name) != FIELDS[name].default]
    if recipe.precision.startswith("amp"):
        asked.append("precision")
    if asked:
        raise UsageError(
            f"{job.own.step.__name__} does whole steps; {asked[0]} would change nothing.",
            hint="Do it in the class, as your own loop would.",
        )


def _share(found: tuple[Tensor, Any], parts: int) -> tuple[Tensor, Any]:
    """The loss as one of the parts of a step; the output lives on in the loop."""
    loss, output = found
    return (loss / parts if parts > 1 else loss), output


def _adopt_batch(batch: Any, watcher: Watcher) -> None:
    for tensor in tensors_in(batch):
        watcher.adopt(tensor, Part.BATCH)


def _adopt_state(made: Ingredients, watcher: Watcher) -> None:
    for tensor in made.state_tensors():
        watcher.adopt(tensor, Part.OPTIMIZER)


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
