"""From bytes that a browser sent to a recipe: known keys, plain types, bounded sizes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memfit.errors import MemfitError, UnknownName, UsageError
from memfit.recipe.fields import MAX_BATCH, Offer, offered
from memfit.recipe.kinds import Kind, Text, Whole
from memfit.recipe.recipe import Recipe
from memfit.web.asking.cards import card_of
from memfit.web.asking.names import KnownNames, listed
from memfit.web.asking.refusals import Refusal

__all__ = [
    "FREE_BYTES", "GPU_WORD", "PlanRequest", "read_batch", "read_number", "read_plan_request",
]  # fmt: skip

#: What a request says of the card: its name or size, and no more bytes than any card has.
GPU_WORD, FREE_BYTES = Text(64), Whole(1, 1 << 44)

#: Options that decide an optimizer's memory or are harmless for it.
_OPTIMIZER_OPTIONS = frozenset({
    "alpha", "amsgrad", "capturable", "centered", "dampening", "decoupled_weight_decay",
    "differentiable", "eps", "etas", "foreach", "fused", "initial_accumulator_value", "lambd",
    "lr", "lr_decay", "maximize", "momentum", "momentum_decay", "nesterov", "rho", "t0",
    "weight_decay",
})  # fmt: skip


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
    gpu = _value("gpu", content.get("gpu"), GPU_WORD, or_null=True)
    free_bytes = _value("free_bytes", content.get("free_bytes"), FREE_BYTES, or_null=True)
    if free_bytes is not None and gpu is None:
        raise UsageError("free_bytes says how much of a card is free: name the card, too.")
    card = card_of(gpu, free_bytes)
    if card is not None and card.usable_bytes > FREE_BYTES.most:
        raise UsageError("No card has so much memory.", hint="Write a size like 11GiB.")
    whole = Recipe(**recipe)
    named_card = None if card is None else [card.key, card.usable_bytes]
    canonical = [whole.to_dict(), named_card, names.written(whole.model)]
    digest = hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()
    return PlanRequest(digest[:32], recipe, gpu, free_bytes)


def _recipe_fields(given: Any, names: KnownNames) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UsageError("recipe must be an object.", hint='Such as {"model": "mlp"}')
    asked = {row.name: row for row in offered(Offer.REQUEST)}
    values = {}
    for key, value in given.items():
        row = asked[listed("key in the recipe:", key, asked)]
        values[key] = _value(key, value, row.kind, or_null=row.default is None)
    if "model" not in values:
        raise UsageError("Which model?", hint="Name one that /api/about lists.")
    values["model"] = names.model(values["model"])
    if "optimizer" in values:
        values["optimizer"] = _optimizer(values["optimizer"], names)
    return values


def _value(name: str, value: Any, kind: Kind, *, or_null: bool) -> Any:
    """A value that is possible, in the very type of JSON that is asked for."""
    if value is None and or_null:
        return None
    schema = kind.schema
    types = {type(word) for word in schema.get("enum", ())} or _TYPES[schema["type"]]
    if type(value) not in types:
        words = " or ".join(sorted(_TYPE_WORDS[each] for each in types))
        raise UsageError(f"{name} must be {words}.")
    return kind.checked(name, value)


def _optimizer(given: str | dict[str, Any], names: KnownNames) -> str | dict[str, Any]:
    spec = {"name": given} if isinstance(given, str) else dict(given)
    name = listed("optimizer", spec.pop("name").lower(), names.optimizers)
    for key, value in spec.items():
        if key not in _OPTIMIZER_OPTIONS:
            raise UnknownName("option of an optimizer:", key, _OPTIMIZER_OPTIONS)
        if not isinstance(value, (bool, int, float)):
            raise UsageError(f"The optimizer's {key} must be a number, true or false.")
    return {"name": name, **spec} if spec else name


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
    "array": (list,),
}  # fmt: skip
_TYPE_WORDS: Mapping[type, str] = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list",
}  # fmt: skip
