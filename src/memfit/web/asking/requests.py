"""From bytes that a browser sent to a recipe: known keys, plain types, bounded sizes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memfit.errors import MemfitError, UnknownName, UsageError
from memfit.recipe.recipe import MAX_BATCH, Recipe, parse_optimizer
from memfit.web.asking.cards import card_of
from memfit.web.asking.names import KnownNames, listed
from memfit.web.asking.refusals import Refusal

__all__ = ["RECIPE_FIELDS", "PlanRequest", "read_batch", "read_number", "read_plan_request"]

#: Fields of a recipe that a page may set: types, and the largest number or longest text.
RECIPE_FIELDS: Mapping[str, tuple[tuple[type, ...], int]] = {
    "model": ((str,), 200),
    "input_shape": ((list, type(None)), 4),
    "input_ids": ((int, type(None)), 1 << 17),
    "num_classes": ((int, type(None)), 1_000_000),
    "batch_size": ((int, type(None)), MAX_BATCH),
    "global_batch": ((int, type(None)), MAX_BATCH),
    "accumulation": ((int,), 1 << 16),
    "precision": ((str,), 16),
    "optimizer": ((str,), 200),
    "gradient_checkpointing": ((bool, str), 16),
    "memory_format": ((str,), 16),
    "zero_grad": ((str,), 16),
    "ema": ((bool,), 1),
    "cudnn_benchmark": ((bool,), 1),
    "attention": ((str,), 16),
    "clip_grad_norm": ((int, float, type(None)), 1_000_000),
    "safety": ((int, float), 1),
    "allocator": ((str,), 200),
}

#: One side of an image, and all values of one sample.
_LARGEST_SIDE, _LARGEST_SAMPLE = 1 << 14, 1 << 27

#: More memory than any card has.
_LARGEST_CARD_BYTES = 1 << 44

#: Options that decide an optimizer's memory or are harmless for it.
_OPTIMIZER_OPTIONS = frozenset({
    "alpha", "amsgrad", "capturable", "centered", "dampening", "decoupled_weight_decay",
    "differentiable", "eps", "etas", "foreach", "fused", "initial_accumulator_value", "lambd",
    "lr", "lr_decay", "maximize", "momentum", "momentum_decay", "nesterov", "rho", "t0",
    "weight_decay",
})  # fmt: skip
_OPTIMIZER_TEXT = re.compile(r"[A-Za-z0-9_.,=+\- ]*")
_ALLOCATOR_TEXT = re.compile(r"[A-Za-z0-9_.,:<>=\[\]\- ]*")


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A plan that a page asks for, found good.

    Args:
        name: the same for every spelling of the same question.
        recipe: fields of :class:`~memfit.Recipe`, plain values.
        gpu: a card's key or a size.
        free_bytes: what of the card may be used.
    """

    name: str
    recipe: Mapping[str, Any]
    gpu: str | None
    free_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """For a worker."""
        return {
            "plan": self.name,
            "recipe": dict(self.recipe),
            "gpu": self.gpu,
            "free_bytes": self.free_bytes,
        }


def read_plan_request(body: bytes, names: KnownNames) -> PlanRequest:
    """The plan that the body of ``POST /api/plan`` asks for.

    Args:
        body: as it came.
        names: what may be asked for.

    Raises:
        Refusal: 400, it is no JSON object; 422, something in it is unknown or impossible.
    """
    content = _object(body)
    try:
        return _plan_request(content, names)
    except MemfitError as error:
        raise Refusal(422, error.message, hint=error.hint) from None


def read_batch(text: str | None) -> int:
    """A micro-batch of a query.

    Raises:
        Refusal: it is none.
    """
    return read_number("batch", text, MAX_BATCH, smallest=1)


def read_number(name: str, text: str | None, largest: int, *, smallest: int = 0) -> int:
    """A whole number of a query.

    Raises:
        Refusal: it is missing, no number, or too large.
    """
    is_number = text is not None and re.fullmatch(r"[0-9]{1,15}", text)
    if not is_number or not smallest <= int(text or "") <= largest:
        raise Refusal(422, f"{name} must be a whole number, {smallest} to {largest:,}.")
    return int(text or "")


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Refusal(400, "The request is not JSON.") from None
    if not isinstance(content, dict):
        raise Refusal(400, "The request is not a JSON object.")
    return content


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _plan_request(content: dict[str, Any], names: KnownNames) -> PlanRequest:
    for key in content:
        listed("key in the request:", key, ("recipe", "gpu", "free_bytes"))
    recipe = _recipe_fields(content.get("recipe"), names)
    gpu = _typed("gpu", content.get("gpu"), (str, type(None)), 64)
    free_bytes = _typed(
        "free_bytes", content.get("free_bytes"), (int, type(None)), _LARGEST_CARD_BYTES
    )
    if free_bytes is not None and (gpu is None or free_bytes < 1):
        raise UsageError("free_bytes says how much of a card is free: name the card, too.")
    card = card_of(gpu, free_bytes)
    if card is not None and card.usable_bytes > _LARGEST_CARD_BYTES:
        raise UsageError("No card has so much memory.", hint="Write a size like 11GiB.")
    whole = Recipe(**recipe)
    named_card = None if card is None else [card.key, card.usable_bytes]
    canonical = [whole.to_dict(), named_card, names.written(whole.model)]
    digest = hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()
    return PlanRequest(digest[:32], recipe, gpu, free_bytes)


def _recipe_fields(given: Any, names: KnownNames) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UsageError("recipe must be an object.", hint='Such as {"model": "mlp"}')
    for key in given:
        listed("key in the recipe:", key, RECIPE_FIELDS)
    values = {key: _typed(key, value, *RECIPE_FIELDS[key]) for key, value in given.items()}
    if "model" not in values:
        raise UsageError("Which model?", hint="Name one that /api/about lists.")
    values["model"] = names.model(values["model"])
    if "optimizer" in values:
        values["optimizer"] = _optimizer(values["optimizer"], names)
    if values.get("input_shape") is not None:
        values["input_shape"] = _shape(values["input_shape"])
    if not _ALLOCATOR_TEXT.fullmatch(values.get("allocator", "")):
        raise UsageError("allocator has characters that no option has.")
    return values


def _typed(name: str, value: Any, kinds: tuple[type, ...], largest: int) -> Any:
    """The value, when it has one of the types and is not too long or too large."""
    if type(value) not in kinds:
        words = " or ".join(_TYPE_WORDS[kind] for kind in kinds)
        raise UsageError(f"{name} must be {words}.")
    if isinstance(value, (str, list)) and len(value) > largest:
        raise UsageError(f"{name} is too long: at most {largest}.")
    if isinstance(value, (int, float)) and not (math.isfinite(value) and abs(value) <= largest):
        raise UsageError(f"{name} is too large: at most {largest:,}.")
    return value


def _shape(sizes: list[Any]) -> list[int]:
    for size in sizes:
        if type(size) is not int or not 1 <= size <= _LARGEST_SIDE:
            raise UsageError(
                f"Each size in input_shape must be a whole number, 1 to {_LARGEST_SIDE:,}.",
                hint="Such as [3, 224, 224]",
            )
    if not sizes or math.prod(sizes) > _LARGEST_SAMPLE:
        raise UsageError(f"input_shape must hold 1 to {_LARGEST_SAMPLE:,} values.")
    return sizes


def _optimizer(text: str, names: KnownNames) -> str | dict[str, Any]:
    if not _OPTIMIZER_TEXT.fullmatch(text):
        raise UsageError("optimizer has characters that no optimizer has.")
    spec = parse_optimizer(text)
    name = listed("optimizer", spec.pop("name").lower(), names.optimizers)
    for key, value in spec.items():
        if key not in _OPTIMIZER_OPTIONS:
            raise UnknownName("option of an optimizer:", key, _OPTIMIZER_OPTIONS)
        if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
            raise UsageError(f"The optimizer's {key} must be a number, true or false.")
    return {"name": name, **spec} if spec else name


_TYPE_WORDS: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    type(None): "null",
}
