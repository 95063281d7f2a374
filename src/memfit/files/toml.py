"""Writing TOML: the standard library only reads it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["recipe_to_toml"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
#: TOML 1.0, "String": what a basic string must escape.
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def recipe_to_toml(values: Mapping[str, Any]) -> str:
    r"""The mapping as TOML 1.0; reading it with ``tomllib`` gives the same values.

    Args:
        values: words, numbers, booleans, lists or tuples of them, and nested mappings. Keys whose
            value is None are left out: TOML has no word for nothing.

    Raises:
        ValueError: a value, or a character, that TOML cannot hold; names its key.

    >>> print(recipe_to_toml({"model": "cnn", "mean": None, "optimizer": {"lr": 1e-3}}), end="")
    model = "cnn"
    <BLANKLINE>
    [optimizer]
    lr = 0.001
    """
    return "\n".join(_table(values, ())).lstrip("\n") + "\n"


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    if path:
        yield f"\n[{'.'.join(_key(name) for name in path)}]"
    for key, value in values.items():
        if key not in tables and value is not None:
            yield f"{_key(key)} = {_value(value, (*path, key))}"
    for key, table in tables.items():
        yield from _table(table, (*path, key))


def _value(value: Any, path: tuple[str, ...]) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value, path)
        case int():
            return int.__repr__(value)
        case float():
            return _float(value)
        case list() | tuple():
            return "[" + ", ".join(_value(entry, path) for entry in value) + "]"
        case Mapping():
            entries = ((key, entry) for key, entry in value.items() if entry is not None)
            inside = ", ".join(f"{_key(k)} = {_value(v, (*path, k))}" for k, v in entries)
            return "{" + inside + "}"
    raise ValueError(f"{'.'.join(path)} is {value!r}; TOML cannot hold a {type(value).__name__}.")


def _float(value: float) -> str:
    if math.isnan(value):
        return "nan"
    return float.__repr__(value)  # inf, -inf, 1e-05 and 1e+16 are TOML as they are


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key, (key,))


def _text(text: str, path: tuple[str, ...]) -> str:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{'.'.join(path)} is {text!r}; it has bytes that are no UTF-8.")
    return '"' + _ESCAPED.sub(_escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04x}"
