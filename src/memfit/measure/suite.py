"""The suite: recipes to measure, in an order whose beginning already covers every family."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfit.errors import UnknownName, UsageError
from memfit.measure.process import recipe_facts
from memfit.measure.records import resolved_model
from memfit.recipe.fields import FIELDS
from memfit.recipe.recipe import Recipe

__all__ = ["Entry", "Work", "default_suite", "entry_of", "in_order", "load_suite"]

SCHEMA_VERSION = 1
_OWN_KEYS = {"name", "family", "batch_sizes", "keep_sequence"}


@dataclass(frozen=True)
class Entry:
    """One recipe of a suite.

    Args:
        name: of its record.
        family: such as ``resnet``.
        recipe: what decides memory.
        batch_sizes: to measure, rising.
        keep_sequence: keep the allocator's sequence in the record.
        facts: the recipe as it is written in the suite.
    """

    name: str
    family: str
    recipe: Recipe
    batch_sizes: tuple[int, ...]
    keep_sequence: bool
    facts: dict[str, Any]

    @property
    def composed_batch(self) -> int:
        """The micro-batch whose peak is taken apart: the one in the middle."""
        return self.batch_sizes[len(self.batch_sizes) // 2]


@dataclass(frozen=True, slots=True)
class Work:
    """A recipe at a micro-batch; a micro-batch of 0 stands for the search of the largest."""

    entry: Entry
    batch_size: int

    @property
    def is_search(self) -> bool:
        """Whether the largest micro-batch is looked for."""
        return self.batch_size == 0

    @property
    def is_composed(self) -> bool:
        """Whether the peak is taken apart as well."""
        return self.batch_size == self.entry.composed_batch


def load_suite(path: Path) -> list[Entry]:
    """Read a suite.

    Raises:
        UsageError: no such file, no TOML, another version, or a recipe that is none.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read the suite {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a TOML file: {error}.") from None
    if content.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(f"{path} is no suite: schema_version = {SCHEMA_VERSION} is not in it.")
    entries = [_entry(row, path) for row in content.get("recipe", ())]
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not entries:
        raise UsageError(f"{path}: {f'two recipes are called {twice[0]}' if twice else 'empty'}.")
    return entries


def in_order(entries: Iterable[Entry]) -> list[Work]:
    """Every recipe's middle micro-batch first, in the order of the file; then the others."""
    entries = list(entries)
    middle = [Work(entry, entry.composed_batch) for entry in entries]
    others = [
        Work(entry, batch)
        for entry in entries
        for batch in entry.batch_sizes
        if batch != entry.composed_batch
    ]
    return middle + others


def default_suite() -> Path:
    """``bench/truth/suite.toml`` of the checkout that memfit runs from, or below this folder.

    Raises:
        UsageError: there is none.
    """
    below = Path("bench") / "truth" / "suite.toml"
    for folder in (Path(__file__).resolve().parents[3], Path.cwd()):
        if (folder / below).is_file():
            return folder / below
    raise UsageError("There is no suite here.", hint="memfit measure --suite path/to/suite.toml")


def _entry(row: dict[str, Any], path: Path) -> Entry:
    name = str(row.get("name", ""))
    known = FIELDS.keys() | _OWN_KEYS
    for key in row:
        if key not in known or key == "batch_size":
            raise UnknownName(f"key of recipe {name!r} in {path}:", key, known - {"batch_size"})
    if not name or not set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_"):
        raise UsageError(
            f"{path}: {name!r} is no name of a record: small letters, digits, - and _."
        )
    facts = {key: value for key, value in row.items() if key not in _OWN_KEYS}
    if "model" not in facts:
        raise UsageError(f"{path}: the recipe {name!r} names no model.")
    recipe = Recipe(**facts | {"model": resolved_model(facts["model"], path.parent)})
    return Entry(
        name,
        str(row.get("family", "other")),
        recipe,
        _batch_sizes(row.get("batch_sizes"), name, path),
        bool(row.get("keep_sequence", False)),
        facts,
    )


def _batch_sizes(value: Any, name: str, path: Path) -> tuple[int, ...]:
    is_list = isinstance(value, list) and bool(value)
    if not is_list or not all(type(size) is int and size > 0 for size in value):
        raise UsageError(f"{path}: batch_sizes of {name!r} must be a list such as [8, 32, 128].")
    return tuple(sorted(set(value)))


def entry_of(recipe: Recipe, batch_sizes: tuple[int, ...]) -> Entry:
    """A recipe that is in no suite, under a name made of what it is.

    Args:
        recipe: its model is named, not an object.
        batch_sizes: to measure.
    """
    facts = recipe_facts(recipe)
    model = str(facts["model"])
    family = re.sub(r"[^a-z0-9]+", "-", Path(model).name.lower()).strip("-")
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    return Entry(f"{family}-{digest}", family, recipe, batch_sizes, True, facts)
