"""The command that gives a plan again."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from memfit.recipe.recipe import Recipe

__all__ = ["plan_words"]

#: In the order of ``memfit plan --help``. The batch size and the card are the page's to add.
_FLAGS = (
    "input_shape", "input_ids", "num_classes", "data", "root", "colour", "augment", "global_batch",
    "optimizer", "precision", "memory_format", "attention", "zero_grad", "cudnn_benchmark",
    "gradient_checkpointing", "accumulation", "clip_grad_norm", "ema", "frozen", "allocator",
    "base_lr", "base_batch_size", "safety",
)  # fmt: skip


def plan_words(recipe: Recipe) -> list[str]:
    """``memfit plan …`` with every flag that is not as it would be anyway.

    Args:
        recipe: code given as an object is named, and cannot be typed.

    Returns:
        The words, not quoted; without ``--batch-size`` and ``--gpu``.
    """
    values = recipe.to_dict()
    defaults = {field.name: field.default for field in fields(Recipe)}
    words = ["memfit", "plan", str(values["model"])]
    for name in _FLAGS:
        if getattr(recipe, name) != defaults[name]:
            words += _flag(name, values[name])
    return words


def _flag(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if value == "reentrant":
        return ["--reentrant"]
    if value is True or value == "non-reentrant":
        return [flag]
    if isinstance(value, dict):
        return [flag, _optimizer(value)]
    if name == "input_shape":
        return [flag, "x".join(str(size) for size in value)]
    if isinstance(value, list):
        return [word for item in value for word in (flag, str(item))]
    return [flag, str(value)]


def _optimizer(spec: dict[str, Any]) -> str:
    options = {key: value for key, value in spec.items() if key != "name"}
    return ",".join([str(spec["name"]), *(f"{key}={_word(v)}" for key, v in options.items())])


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
