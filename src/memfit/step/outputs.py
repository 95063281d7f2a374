"""What a model returns, by name: its tensors, the scores among them, and the loss of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from memfit.errors import StepError

__all__ = ["embeddings_of", "logits_of", "loss_in", "named_output", "named_outputs", "tensors_of"]


def named_outputs(output: Any, name: str = "") -> dict[str, Tensor]:
    """Every tensor that a model returns, by name or number: ``{"logits": …, "aux.0": …}``."""
    if isinstance(output, Tensor):
        return {name or "0": output}
    found: dict[str, Tensor] = {}
    for key, value in _entries(output):
        found |= named_outputs(value, f"{name}.{key}" if name else key)
    return found


def _entries(output: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(output, Mapping):
        yield from ((str(key), value) for key, value in output.items())
    elif isinstance(output, (tuple, list)):
        yield from ((str(number), value) for number, value in enumerate(output))
    elif is_dataclass(output):  # perhaps with slots
        yield from ((field.name, getattr(output, field.name)) for field in fields(output))
    elif hasattr(output, "__dict__"):
        yield from vars(output).items()


def logits_of(output: Any) -> Tensor:
    """The scores in what a model returns: ``(N, classes, …)``.

    Raises:
        StepError: there are none.
    """
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "out"):
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    if isinstance(output, (tuple, list)) and output:
        return logits_of(output[0])
    names = ", ".join(named_outputs(output)) or "no tensor"
    raise StepError(
        f"The model returns {type(output).__name__} ({names}); which of it the loss is of is not "
        "known.",
        hint="Name it: --loss cross-entropy@NAME, or pass your own loss in Python.",
    )


def named_output(name: str, output: Any) -> Tensor:
    """What a model returns under a name or a number.

    Raises:
        StepError: there is no such tensor.
    """
    found = named_outputs(output)
    by_field = getattr(output, name, None)  # of a named tuple
    if name in found:
        return found[name]
    if isinstance(by_field, Tensor):
        return by_field
    raise StepError(
        f"The model returns no {name!r}, which the loss is of.",
        hint=f"It returns: {', '.join(found)}.",
    )


def tensors_of(output: Any) -> list[Tensor]:
    """Every floating-point tensor that a model returns."""
    return [t for t in named_outputs(output).values() if t.is_floating_point()]


def embeddings_of(output: Any) -> list[Tensor]:
    """The ``(N, width)`` tensors in it; the scores where there are none."""
    return [t for t in tensors_of(output) if t.dim() == 2] or [logits_of(output)]


def loss_in(output: Any) -> Tensor:
    """The one number in what a model returns.

    Raises:
        StepError: there is none, or several.
    """
    found = named_outputs(output)
    if "loss" in found:
        return found["loss"]
    numbers = [t for t in tensors_of(output) if t.numel() == 1]
    if len(numbers) != 1:
        raise StepError(
            f"The loss is to be the model's own; of what it returns, {len(numbers)} tensors are "
            "one number.",
            hint="Let it return its loss alone, as one number (.mean()), or name it: --loss "
            "none@NAME.",
        )
    return numbers[0]
