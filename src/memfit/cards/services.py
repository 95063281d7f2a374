"""Where people train on cards that they do not own: what ``colab`` and ``kaggle`` stand for."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Service", "services"]


@dataclass(frozen=True, slots=True)
class Service:
    """A service and its cards.

    Args:
        name: what users type, such as ``"colab"``.
        cards: keys of the catalogue, one for each card that a process may get; the usual first.
        offers: the same in words.
        source: where that was said.
        date: when.
    """

    name: str
    cards: tuple[str, ...]
    offers: str
    source: str
    date: str


@cache
def services() -> Mapping[str, Service]:
    """The services of ``services.toml`` by name.

    >>> services()["kaggle"].cards
    ('t4', 'p100')
    """
    text = Path(__file__).with_name("services.toml").read_text(encoding="utf-8")
    rows = [{**row, "cards": tuple(row["cards"])} for row in tomllib.loads(text)["service"]]
    return {row["name"]: Service(**row) for row in rows}
