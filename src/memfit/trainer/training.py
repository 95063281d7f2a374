"""The training step: forward and backward in micro-batches, then one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memfit.data.loading import Batch, Loader
from memfit.data.randomness import Purpose, seed_of
from memfit.errors import MemfitError
from memfit.trainer.ingredients import Ingredients
from memfit.trainer.out_of_memory import release_accelerator_cache
from memfit.trainer.ranks import GradientBuckets, Ranks
from memfit.trainer.schedule import peak_learning_rate, rate_at
from memfit.trainer.transaction import Fitting, MicroBatchEvent, fit_micro_batch

__all__ = ["NonFiniteLoss", "StepResult", "Training"]


class NonFiniteLoss(MemfitError):
    """The loss became infinite or no number.

    Args:
        step: the optimizer step that was not taken.
        loss: what it was.
        samples: names of the samples of the batch.
    """

    def __init__(self, step: int, loss: float, samples: Sequence[str]) -> None:
        shown = ", ".join(samples[:8])
        more = f" and {len(samples) - 8} more" if len(samples) > 8 else ""
        super().__init__(
            f"The loss of step {step} is {loss}. Its batch: {shown}{more}.",
            hint="The model is as it was before the step. A smaller learning rate, a longer "
            "warm-up or clipping (--clip-grad-norm 1) usually helps; fp16 overflows where bf16 "
            "does not.",
        )
        self.step, self.samples = step, list(samples)


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
        recipe, device = ingredients.recipe, ingredients.device
        self.peak_rate = peak_learning_rate(recipe, loader.batch_size)
        groups = ingredients.optimizer.param_groups
        self._trainable = [p for group in groups for p in group["params"]]
        self._share = 1.0  # of the global batch that is here
        self._buckets = None
        agree = None
        if self.ranks.are_many:
            self._buckets = GradientBuckets(self._trainable, self.ranks)

            def agree(failed: bool) -> bool:
                return self.ranks.any(failed, device)

        self.fitting: Fitting = fit_micro_batch(
            ingredients.model,
            ingredients.optimizer,
            sizes,
            scale=self._scaled,
            grow_after=recipe.grow_after,
            on_event=on_event,
            agree=agree,
            release_cache=release_cache,
        )

    def take_step(self, batch: Batch) -> StepResult:
        """One optimizer step on this rank's share of a global batch.

        Raises:
            NonFiniteLoss: everything is as it was before.
            DoesNotFit: not even one sample fits; everything is as it was before.
        """
        made = self.ingredients
        self._seed()
        rate = self.peak_rate * rate_at(self.step, self.total_steps, made.recipe)
        for group in made.optimizer.param_groups:
            group["lr"] = rate
        samples = self.ranks.total(len(batch), made.device)
        self._share = len(batch) / samples
        self._clear_gradients()
        loss = self._backward(batch)
        mean = self.ranks.total(float(loss) * self._share, made.device)
        if not math.isfinite(mean):
            self.fitting.undo()
            names = [self.loader.split.sample_name(int(index)) for index in batch.indices]
            raise NonFiniteLoss(self.step + 1, mean, names)
        if self._buckets is not None:
            self._buckets.sum()
        self._update()
        self.step += 1
        return StepResult(self.step, mean, rate, int(samples), self.fitting.size)

    def _seed(self) -> None:
        """Random numbers (dropout) follow from seed, step and rank; no state is kept."""
        key = (self.step << 16) + self.ranks.rank
        torch.manual_seed(seed_of(self.ingredients.recipe.seed, 0, Purpose.STEP, key) >> 1)

    def _backward(self, batch: Batch) -> Tensor:
        made, loader = self.ingredients, self.loader

        def compute_loss(part: slice) -> Tensor:
            inputs, targets = loader.prepare(batch[part], made.device)
            return made.compute_loss(inputs, targets)

        return self.fitting.backward(len(batch), compute_loss)

    def _scaled(self, loss: Tensor) -> Tensor:
        if self._share != 1.0:
            loss = loss * self._share
        return self.ingredients.scaler.scale(loss)

    def _clear_gradients(self) -> None:
        made = self.ingredients
        if self._buckets is not None:
            self._buckets.clear()
        else:
            made.optimizer.zero_grad(set_to_none=made.recipe.zero_grad == "none")

    def _update(self) -> None:
        made = self.ingredients
        if made.recipe.clip_grad_norm is not None:
            made.scaler.unscale_(made.optimizer)
            nn.utils.clip_grad_norm_(self._trainable, made.recipe.clip_grad_norm)
        made.scaler.step(made.optimizer)
        made.scaler.update()
        if made.average is not None:
            made.average.update_parameters(made.model)

    # -- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the steps to come, on whatever device it is."""
        made = self.ingredients
        return {
            "model": made.model.state_dict(),
            "optimizer": made.optimizer.state_dict(),
            "scaler": made.scaler.state_dict(),
            "model_average": None if made.average is None else made.average.module.state_dict(),
            "averaged_steps": None if made.average is None else made.average.n_averaged,
            "micro_batch": self.fitting.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        made = self.ingredients
        made.model.load_state_dict(state["model"])
        made.optimizer.load_state_dict(state["optimizer"])
        made.scaler.load_state_dict(state["scaler"])
        if made.average is not None and state["model_average"] is not None:
            made.average.module.load_state_dict(state["model_average"])
            made.average.n_averaged.copy_(state["averaged_steps"])
        self.fitting.load_state_dict(state["micro_batch"])
        self.step = state["step"]
