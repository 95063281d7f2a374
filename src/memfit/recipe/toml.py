"""A recipe as a TOML file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memfit.errors import UnknownName, UsageError
from memfit.recipe.fields import FIELDS
from memfit.recipe.recipe import Recipe
from memfit.recipe.words import plain_options

__all__ = ["load_recipe", "recipe_to_toml"]


def load_recipe(path: str | Path, **changes: Any) -> Recipe:
    """Read a recipe from a TOML file; ``changes`` that are not None win over the file.

    Raises:
        UsageError: no such file, no TOML, or a value is impossible.
        UnknownName: a key that no recipe has.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read the recipe {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a TOML file: {error}.") from None
    for key in content:
        if key not in FIELDS:
            raise UnknownName(f"key in {path}:", key, FIELDS)
    content |= {name: value for name, value in changes.items() if value is not None}
    if "model" not in content:
        raise UsageError(f"{path} names no model.", hint='Add: model = "torchvision:resnet50"')
    return Recipe(**content)


def recipe_to_toml(values: Mapping[str, Any]) -> str:
    r"""A recipe's ``to_dict()`` as TOML 1.0; :func:`load_recipe` gives the recipe again.

    What a recipe holds (texts, numbers, lists of these, and one table of options) TOML writes as
    JSON does, but for the character DEL. What is None is left out: TOML has no word for nothing.

    Raises:
        UsageError: a value is none of these; names its key.

    >>> print(recipe_to_toml({"model": "cnn", "mean": None, "optimizer": {"lr": 1e-3}}), end="")
    model = "cnn"
    <BLANKLINE>
    [optimizer]
    lr = 0.001
    """
    tables = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    given = plain_options("the recipe", {k: v for k, v in values.items() if k not in tables})
    lines = [_line(name, value) for name, value in given.items()]
    for name, table in tables.items():
        options = plain_options(name, table)
        lines += [f"\n[{name}]", *(_line(key, value) for key, value in options.items())]
    return "\n".join(lines) + "\n"


def _line(name: str, value: Any) -> str:
    key = name if name.isidentifier() and name.isascii() else _json(name)
    return f"{key} = {_json(value)}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
