"""A model made what the recipe trains: precision, memory format, frozen, checkpointed."""

from __future__ import annotations

import fnmatch

import torch
from torch import nn

from memfit.errors import UsageError
from memfit.models import enable_gradient_checkpointing
from memfit.recipe.precision import weights_dtype
from memfit.recipe.recipe import Recipe

__all__ = ["prepare_model"]


def prepare_model(model: nn.Module, recipe: Recipe) -> int:
    """Make a model what the recipe trains: precision, memory format, frozen, checkpointed.

    Args:
        model: changed in place.
        recipe: says how.

    Returns:
        Blocks that are recomputed in backward.

    Raises:
        UsageError: the model and the recipe do not go together.
    """
    model.train(recipe.mode == "train")
    _check_precision(model, recipe.precision)
    if (dtype := weights_dtype(recipe.precision)) is not torch.float32:
        model.to(dtype)
    if recipe.memory_format == "nhwc":
        model.to(memory_format=torch.channels_last)
    _freeze(model, recipe.frozen)
    if not recipe.gradient_checkpointing:
        return 0
    reentrant = recipe.gradient_checkpointing == "reentrant"
    blocks = enable_gradient_checkpointing(model, reentrant=reentrant)
    if not blocks:
        raise UsageError(
            "gradient_checkpointing found no repeated blocks in this model.",
            hint="Use torch.utils.checkpoint in your own forward and leave it off here.",
        )
    return blocks


def _check_precision(model: nn.Module, precision: str) -> None:
    """A model that its author made half can only be trained so."""
    short = {weights_dtype(name): name for name in ("fp16", "bf16")}
    for name, parameter in model.named_parameters():
        own = short.get(parameter.dtype)
        if own is not None and precision != own:
            raise UsageError(
                f"The model's {name} is {own} already, which is not {precision} training.",
                hint=f"Plan it with --precision {own}, or leave its parameters float32.",
            )


def _freeze(model: nn.Module, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        matched = [
            p for name, p in model.named_parameters()
            if fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}.")
        ]  # fmt: skip
        if not matched:
            raise UsageError(f"frozen: no parameter matches {pattern!r}.")
        for parameter in matched:
            parameter.requires_grad_(False)
