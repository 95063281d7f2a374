"""Forward passes without gradients beside training steps, and what they took."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Evaluation"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Forward passes without gradients, one after the other.

    Args:
        when: ``"before"`` the first step, ``"between"`` steps or ``"after"`` the last.
        allocated_bytes: the most in live blocks.
        reserved_bytes: the most in segments.
        forwards: how many there were.
        place: file and line of the user's code; empty of a recipe.
    """

    when: str
    allocated_bytes: int
    reserved_bytes: int
    forwards: int
    place: str
