"""What a recipe trains with, on a real device: model, optimizer, scaler, average."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from memfit.errors import UsageError
from memfit.models import build_for_training
from memfit.recipe.precision import autocast_dtype
from memfit.recipe.recipe import Recipe
from memfit.step.batch import logits_of
from memfit.step.job import Job
from memfit.step.loop import loss_of
from memfit.step.optimizers import EightBit, build_optimizer
from memfit.step.prepare import prepare_model
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.ranks.shard import shard
from memfit.trainer.weights.pretrained import pretrained_weights
from memfit.trainer.weights.weights import apply_weights, load_weights

__all__ = ["Ingredients", "prepare_ingredients"]


@dataclass
class Ingredients:
    """Everything that a training step touches.

    Args:
        job: with everything known.
        device: where it is.
        model: with its weights; what is saved.
        forward: what is called: the model, or its compiled form.
        optimizer: over the parameters that train.
        scaler: enabled for ``amp-fp16`` on CUDA.
        average: of the weights, with ``ema``.
        loss: ``(output, target) -> mean loss``.
        notes: what the user should know, in sentences.
        is_sharded: each rank has a part of model, optimizer and average.
    """

    job: Job
    device: torch.device
    model: nn.Module
    forward: Callable[..., Any]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    loss: Callable[[Any, Tensor], Tensor]
    notes: list[str]
    is_sharded: bool = False

    @property
    def recipe(self) -> Recipe:
        """Of the job."""
        return self.job.recipe

    def autocast(self) -> AbstractContextManager[Any]:
        """The recipe's mixed precision; nothing for the others."""
        dtype = autocast_dtype(self.recipe.precision)
        if dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=dtype)

    def compute_loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Forward and the mean loss."""
        with self.autocast():
            if self.job.own.step is not None:
                result = self.job.own.step(self.forward, inputs, targets)
                loss: Tensor = result[0] if isinstance(result, tuple) else result
                return loss
            return self.loss(self.forward(inputs), targets)

    def predict(self, inputs: Tensor) -> Tensor:
        """Scores of the classes ``(N, classes)``, float32, by the average where there is one."""
        model = self.model if self.average is None else self.average.module
        # gathered parameters are used again in training, so they must not be inference tensors
        without_gradients = torch.no_grad() if self.is_sharded else torch.inference_mode()
        with without_gradients, self.autocast():
            return logits_of(model(inputs)).float()


def prepare_ingredients(job: Job, device: torch.device, ranks: Ranks | None = None) -> Ingredients:
    """Build what a job trains with.

    Args:
        job: its ``input_shape`` and ``num_classes`` are known.
        device: to train on.
        ranks: all get the first one's weights; with ``recipe.shard`` each a part of them.

    Raises:
        ModelError: the model cannot be built.
        UsageError: the recipe asks for what cannot be trained.
    """
    recipe = job.recipe
    built = build_for_training(
        job.model,
        input_shape=recipe.input_shape,
        num_classes=recipe.num_classes,
        seed=recipe.seed,
    )
    if built.kind == "token":
        raise UsageError(f"{built.name} reads tokens; memfit trains models of images.")
    model, notes = built.module, []
    if recipe.weights is not None:
        notes.append(_start_from(recipe, built.name, model))
    prepare_model(model, recipe)
    ranks = ranks or Ranks()
    is_sharded = recipe.shard and ranks.are_many
    if not is_sharded:
        model.to(device)
    ranks.copy_from_first([*model.parameters(), *model.buffers()], device)
    average = None
    if recipe.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
    if is_sharded:  # block by block to the device: there is never room needed for the whole
        shard(model, device)
        if average is not None:
            shard(average.module, device)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise UsageError("There is nothing to train: all parameters are frozen.")
    optimizer = build_optimizer(job.optimizer, trainable)
    if isinstance(optimizer, EightBit):
        raise UsageError(
            "8-bit optimizers are planned, not trained, by memfit.",
            hint="In your own loop use bitsandbytes; here take adamw or lion.",
        )
    scaled = recipe.precision == "amp-fp16" and device.type == "cuda"
    return Ingredients(
        job,
        device,
        model,
        torch.compile(model) if recipe.compile else model,
        optimizer,
        torch.amp.GradScaler(device.type, enabled=scaled),
        average,
        loss_of(job),
        notes,
        is_sharded,
    )


def _start_from(recipe: Recipe, name: str, model: nn.Module) -> str:
    """Fine-tuning: load what is asked for; the head may have other classes."""
    assert recipe.weights is not None
    if recipe.weights == "pretrained":
        weights = pretrained_weights(name)
    else:
        weights = load_weights(Path(recipe.weights))
    applied = apply_weights(model, weights, allow_head_mismatch=True)
    left = (*applied.missing, *applied.reshaped)
    fresh = f"; fresh: {', '.join(left)}" if left else ""
    return f"Started from {recipe.weights}: {len(applied.loaded)} tensors{fresh}."
