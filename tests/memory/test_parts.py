"""Every part is shown, in one order, with names of its own."""

from __future__ import annotations

from memfit.memory.tape.parts import ALLOCATED_PARTS, PARTS, UNKNOWN
from memfit.memory.tape.tape import Part


def test_every_part_has_its_look_in_order() -> None:
    assert [part for part in PARTS if part != UNKNOWN] == list(Part)
    assert [*ALLOCATED_PARTS, Part.CACHE, Part.CONTEXT] == list(Part)


def test_the_four_parts_are_numbered_and_gradients_share_the_first() -> None:
    heads = [look.row_head for look in PARTS.values() if look.number]
    assert heads == [
        ("1", "parameters"), ("", "+ gradients"), ("2", "optimizer state"), ("3", "data batch"),
        ("4", "activations"),
    ]  # fmt: skip


def test_names_and_colours_are_told_apart() -> None:
    for words in ("name", "name_zh", "colour", "dark_colour"):
        assert len({getattr(look, words) for look in PARTS.values()}) == len(PARTS)
