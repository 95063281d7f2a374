"""What a recipe trains with, on a real device and with its weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

from memfit.errors import UsageError
from memfit.models import build_for_training
from memfit.recipe.recipe import Recipe
from memfit.step.ingredients import Ingredients, combine
from memfit.step.job import Job
from memfit.step.optimizers import EightBit
from memfit.step.prepare import prepare_model
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.ranks.shard import shard
from memfit.trainer.weights.pretrained import pretrained_weights
from memfit.trainer.weights.weights import apply_weights, load_weights

__all__ = ["prepare_ingredients"]


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
        job.model, input_shape=recipe.input_shape, num_classes=recipe.num_classes, seed=recipe.seed
    )
    if built.kind == "token":
        raise UsageError(f"{built.name} reads tokens; memfit trains models of images.")
    model, notes = built.module, []
    if recipe.weights is not None:
        notes.append(_start_from(recipe, built.name, model))
    prepare_model(model, recipe)
    ranks = ranks or Ranks()
    is_sharded = recipe.shard and ranks.are_many
    if not is_sharded:  # else block by block: there is never room needed for the whole
        model.to(device)
    ranks.copy_from_first([*model.parameters(), *model.buffers()], device)
    scaled = recipe.precision == "amp-fp16" and device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    split = partial(shard, device=device) if is_sharded else None
    made = combine(job, model, scaler, device, split=split)
    if isinstance(made.optimizer, EightBit):
        raise UsageError(
            "8-bit optimizers are planned, not trained, by memfit.",
            hint="In your own loop use bitsandbytes; here take adamw or lion.",
        )
    made.notes += notes
    if recipe.compile:
        made.forward = torch.compile(model)
    return made


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
