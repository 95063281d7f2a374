"""What people write in one word, understood: a shape, a name with options."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from memfit.errors import UsageError

__all__ = ["parse_shape", "parse_spec", "plain", "plain_options", "write_spec"]


#: Half a character: how Python holds bytes that are no UTF-8.
_NO_UNICODE = re.compile("[\ud800-\udfff]")


def parse_shape(text: str) -> tuple[int, ...]:
    """``"3x224x224"`` (or with commas) as ``(3, 224, 224)``.

    Raises:
        UsageError: it is no shape.
    """
    parts = text.lower().replace(",", "x").replace("×", "x").split("x")
    if not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"{text!r} is not a shape.", hint="Write it like 3x224x224.")
    return tuple(int(part) for part in parts)


def parse_spec(
    text: str, what: str = "an optimizer", example: str = "sgd,momentum=0.9"
) -> dict[str, Any]:
    """``"sgd,momentum=0.9,foreach=false"`` as ``{"name": "sgd", "momentum": 0.9, …}``.

    Args:
        text: a name, then options after commas.
        what: the options are of, for the error.
        example: for the error.

    Raises:
        UsageError: an option is not ``key=value``.
    """
    name, *options = (part.strip() for part in text.split(","))
    spec: dict[str, Any] = {"name": name}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key.isidentifier():
            raise UsageError(
                f"{option!r} is no option of {what}.", hint=f"Write it like {example}."
            )
        try:
            spec[key] = tomllib.loads(f"value = {value.lower()}")["value"]
        except tomllib.TOMLDecodeError:
            spec[key] = value
    return spec


def write_spec(spec: Mapping[str, Any]) -> str:
    """What :func:`parse_spec` reads as these options."""
    options = ((key, value) for key, value in spec.items() if key != "name")
    words = (f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in options)
    return ",".join([str(spec["name"]), *words])


def plain(name: str, value: Any) -> Any:
    """A value that JSON and TOML can hold; tuples become lists.

    Args:
        name: of the value, for the error.
        value: a text, number, true or false, or lists of these.

    Raises:
        UsageError: it, or something in it, is none of these.
    """
    if isinstance(value, (list, tuple)):
        return [plain(name, entry) for entry in value]
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, str) and not _NO_UNICODE.search(value):
        return str(value)
    raise UsageError(f"{name} is {value!r}; it must be a number, a text, true or false.")


def plain_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that JSON and TOML can hold; what is None is left out, and so is as usual.

    Raises:
        UsageError: one of them is no plain value.
    """
    given = {plain(f"a key of {name}", k): v for k, v in options.items() if v is not None}
    return {key: plain(f"{name}.{key}", value) for key, value in given.items()}
