"""The training step: forward and backward in micro-batches, then one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from memfit.data.loading.batch import Batch
from memfit.data.loading.loader import Loader
from memfit.data.loading.randomness import Purpose, seed_of
from memfit.errors import CannotRedo, NonFiniteLoss
from memfit.memory.tape.tape import Part
from memfit.step.ingredients import Ingredients
from memfit.trainer.ranks.gradients import FirstBuffers, GradientBuckets
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.ranks.shard import (
    full_model_state,
    full_optimizer_state,
    load_model_state,
    load_optimizer_state,
)
from memfit.trainer.recovery.before_step import Buffers
from memfit.trainer.recovery.out_of_memory import OutOfMemoryKept, release_accelerator_cache
from memfit.trainer.recovery.transaction import (
    Fitting,
    MicroBatchEvent,
    batch_dependent_layers,
    fit_micro_batch,
)
from memfit.trainer.step.schedule import has_own_rate, peak_learning_rate, rate_at
from memfit.trainer.weights.weights import apply_weights

__all__ = ["Adopts", "StepResult", "Training", "in_evaluation"]


@dataclass(frozen=True, slots=True)
class StepResult:
    """One optimizer step.

    Args:
        step: from 1.
        loss: mean over the global batch.
        learning_rate: that was used.
        samples: in the global batch.
        micro_batch: largest number of samples in one forward, on one device.
    """

    step: int
    loss: float
    learning_rate: float
    samples: int
    micro_batch: int


class Adopts(Protocol):
    """Who counts tensors: a recorder, or the CPU's budget."""

    def adopt(self, tensor: Tensor, part: Part) -> None:
        """Say what a tensor is for."""


class Training:
    """Takes optimizer steps; everything that a step changes is in its state.

    Args:
        ingredients: model, optimizer, loss.
        loader: of the training data.
        total_steps: of the whole run, for the schedule.
        sizes: of micro-batches, largest first.
        ranks: the processes of the run.
        on_event: is told when the micro-batch changes.
        release_cache: gives cached memory back after out-of-memory.
    """

    def __init__(
        self,
        ingredients: Ingredients,
        loader: Loader,
        total_steps: int,
        sizes: Sequence[int],
        *,
        ranks: Ranks | None = None,
        on_event: Callable[[MicroBatchEvent], None] | None = None,
        release_cache: Callable[[], None] = release_accelerator_cache,
    ) -> None:
        self.ingredients = ingredients
        self.loader = loader
        self.total_steps = total_steps
        self.ranks = ranks or Ranks()
        self.step = 0
        recipe = ingredients.recipe
        groups = ingredients.optimizer.param_groups
        self._peak_rates = [group["lr"] for group in groups]
        if not has_own_rate(ingredients.job):
            self._peak_rates = [peak_learning_rate(recipe, loader.batch_size)] * len(groups)
        self._trainable = ingredients.trainable
        self._share = 1.0  # of the global batch that is here
        self._has_batch_norm = bool(batch_dependent_layers(ingredients.model))
        self.note: str | None = None  # what the user should know, once
        self._buckets: GradientBuckets | None = None
        self._first_buffers: FirstBuffers | None = None
        if self.ranks.are_many:
            self._first_buffers = FirstBuffers(ingredients.model, self.ranks)
            if not ingredients.is_sharded:
                self._buckets = GradientBuckets(self._trainable, self.ranks)
        self.fitting: Fitting = fit_micro_batch(
            ingredients.model,
            ingredients.optimizer,
            sizes,
            scale=self._scaled,
            grow_after=recipe.grow_after,
            on_event=on_event,
            agree=self._agree if self.ranks.are_many else None,
            release_cache=release_cache,
        )
        self.fitting.allocate_state()

    def tell(self, watcher: Adopts) -> None:
        """Say what the tensors are for that live from step to step; the model's are known."""
        for tensor in self.ingredients.state_tensors():
            watcher.adopt(tensor, Part.OPTIMIZER)
        for flat in () if self._buckets is None else self._buckets.flat:
            watcher.adopt(flat, Part.GRADIENTS)
        copies = [] if self._first_buffers is None else self._first_buffers.flat
        for copy in (*copies, *self.fitting.shadows):
            watcher.adopt(copy, Part.PARAMETERS)

    def take_step(self, batch: Batch) -> StepResult | None:
        """One optimizer step on this rank's share of a global batch.

        Returns:
            None when no rank has a sample, because none of them could be read.

        Raises:
            NonFiniteLoss: everything is as it was before.
            DoesNotFit: not even one sample fits; everything is as it was before.
            CannotRedo: memory ran out in a sharded step.
            torch.OutOfMemoryError: in the optimizer's step, on this or another rank; where there
                are several, all raise it.
        """
        made = self.ingredients
        self._seed()
        counts = [int(count) for count in self.ranks.each(len(batch), made.device)]
        if not (samples := sum(counts)):
            return None
        self._share = len(batch) / samples
        (made if self._buckets is None else self._buckets).clear_gradients()
        sizes_before = self.fitting.state_dict()
        loss = self._backward(batch, max(counts))
        used = [] if self._buckets is None else self._buckets.used
        mean, *used = self.ranks.totals([float(loss) * self._share, *used], made.device)
        if not math.isfinite(mean):
            self.fitting.undo()
            self.fitting.load_state_dict(sizes_before)
            names = self._sample_names(batch)
            raise NonFiniteLoss(self.step + 1, mean, names, self.is_finite())
        if self._buckets is not None:
            self._buckets.sum(used)
        share = rate_at(self.step, self.total_steps, made.recipe)
        for group, peak in zip(made.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = peak * share
        self._update_together()
        self.step += 1
        return StepResult(self.step, mean, self.peak_rate * share, samples, self.fitting.size)

    @property
    def peak_rate(self) -> float:
        """The learning rate after warm-up, of the first group of parameters."""
        return float(self._peak_rates[0])

    def is_finite(self) -> bool:
        """Whether every weight is a number; before the first step they are as they were made."""
        if not self.step:
            return True
        weights = [p.detach() for p in self.ingredients.model.parameters()]
        largest = nn.utils.get_total_norm(weights, math.inf)
        if self.ingredients.is_sharded:
            largest = largest.full_tensor()  # type: ignore[attr-defined]  # a DTensor
        return math.isfinite(float(largest))

    def _sample_names(self, batch: Batch) -> list[str]:
        """Of the global batch."""
        own = [self.loader.split.sample_name(int(index)) for index in batch.indices]
        return [name for names in self.ranks.gather(own) for name in names]

    def _agree(self, failed: bool) -> bool:
        """Whether any rank failed; a sharded model has no vote, it has talked all along."""
        if not self.ingredients.is_sharded:
            return self.ranks.any(failed, self.ingredients.device)
        if failed:
            raise CannotRedo(f"step {self.step + 1}", self.fitting.size)
        return False

    def _seed(self) -> None:
        """Random numbers (dropout) follow from seed, step and rank; no state is kept."""
        made = self.ingredients
        key = (self.step << 16) + self.ranks.rank
        seed = seed_of(made.recipe.seed, 0, Purpose.STEP, key) >> 1
        # not torch.manual_seed: it formats a traceback for each kind of device not in use yet
        torch.default_generator.manual_seed(seed)
        if made.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _backward(self, batch: Batch, largest: int) -> Tensor:
        made, loader = self.ingredients, self.loader

        def compute_loss(part: slice) -> Tensor:
            if part.start == part.stop:
                return self._loss_of_none()
            inputs, targets = loader.prepare(batch[part], made.device)
            if len(inputs) == 1 and self._has_batch_norm:
                return self._loss_of_one(inputs, targets)
            return made.forward_and_loss(inputs, targets)[0]

        return self.fitting.backward(
            len(batch), compute_loss,
            largest=largest, with_empty=made.is_sharded, are_cleared=True,
        )  # fmt: skip

    def _loss_of_none(self) -> Tensor:
        """Take part in the others' forward and backward, with a gradient of zero."""
        made = self.ingredients
        blank = self.loader.blank(1, "cpu")
        for part in (blank, blank.neighbours):
            if part is not None:
                part.pixels.zero_()
                part.labels.zero_()
        with _frozen_statistics(made.model):
            return made.forward_and_loss(*self.loader.prepare(blank, made.device))[0] * 0.0

    def _loss_of_one(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Where BatchNorm has one value for each channel, it has no statistics but the running."""
        made, buffers = self.ingredients, Buffers(self.ingredients.model)
        if made.is_sharded:  # other ranks take part in one forward, not in two
            with _frozen_statistics(made.model):
                return made.forward_and_loss(inputs, targets)[0]
        buffers.save()
        try:
            return made.forward_and_loss(inputs, targets)[0]
        except ValueError as error:  # torch 2.15, torch/nn/functional.py, _verify_batch_size
            if "more than 1 value per channel" not in str(error):
                raise
        buffers.restore()
        self.note = (
            "A sample was alone in its batch: BatchNorm took its running statistics instead. "
            "Another global batch avoids it."
        )
        with _frozen_statistics(made.model):
            return made.forward_and_loss(inputs, targets)[0]

    def _scaled(self, loss: Tensor) -> Tensor:
        # FSDP2 divides the sum of the ranks' gradients by their number
        share = self._share * (self.ranks.world_size if self.ingredients.is_sharded else 1)
        if share != 1.0:
            loss = loss * share
        return self.ingredients.scaler.scale(loss)

    def _update_together(self) -> None:
        made = self.ingredients
        if not self.ranks.are_many:
            made.update()
            return
        with OutOfMemoryKept() as kept:
            if self._first_buffers is not None:
                self._first_buffers.copy()
            made.update()
        if self.ranks.any(kept.message is not None, made.device):
            raise torch.OutOfMemoryError(kept.message or "out of memory on another rank")

    # -- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the steps to come, on whatever device it is.

        Of a sharded model all ranks call it together, and the first one has the tensors.
        """
        made = self.ingredients
        if made.is_sharded:
            model = full_model_state(made.model)
            optimizer = full_optimizer_state(made.model, made.optimizer)
            average = None if made.average is None else full_model_state(made.average.module)
        else:
            model, optimizer = made.model.state_dict(), made.optimizer.state_dict()
            average = None if made.average is None else made.average.module.state_dict()
        return {
            "model": model,
            "optimizer": optimizer,
            "scaler": made.scaler.state_dict(),
            "model_average": average,
            "averaged_steps": None if made.average is None else made.average.n_averaged,
            "micro_batch": self.fitting.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`, of any number of ranks, sharded or not."""
        made = self.ingredients
        if made.is_sharded:
            load_model_state(made.model, state["model"])
            load_optimizer_state(made.model, made.optimizer, state["optimizer"])
        else:
            # names the tensors that differ, where load_state_dict would raise as it likes
            apply_weights(made.model, state["model"], allow_head_mismatch=False)
            made.optimizer.state.clear()  # there may be no room for two
            made.optimizer.load_state_dict(state["optimizer"])
        made.scaler.load_state_dict(state["scaler"])
        if made.average is not None and state["model_average"] is not None:
            if made.is_sharded:
                load_model_state(made.average.module, state["model_average"])
            else:
                made.average.module.load_state_dict(state["model_average"])
            made.average.n_averaged.copy_(state["averaged_steps"])
        self.fitting.load_state_dict(state["micro_batch"])
        self.step = state["step"]


def _frozen_statistics(model: nn.Module) -> AbstractContextManager[None]:
    """Inside, BatchNorm layers normalise as in evaluation."""
    return in_evaluation([model.get_submodule(name) for name in batch_dependent_layers(model)])


@contextmanager
def in_evaluation(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, some layers that train behave as in evaluation."""
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
