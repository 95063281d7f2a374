"""Why a request found no room, what would have, and what to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from memfit.explain.history import Failure
from memfit.memory.allocator.sizes import (
    LARGE_SEGMENT_BYTES,
    MIN_LARGE_BYTES,
    ROUND_LARGE_BYTES,
    SMALL_BYTES,
    SMALL_SEGMENT_BYTES,
    SizeRules,
)
from memfit.memory.tape.tape import Part, Phase
from memfit.units import MIB, format_bytes

__all__ = ["Cause", "OutOfMemory", "explain_failure"]

#: Of what grows with the batch this much is aimed at: the rest is for what a trace cannot tell.
_MARGIN = 0.95

#: What grows with the batch: linear in it, as ``docs/decisions.md`` says of tapes.
_GROWS = (Part.BATCH, Part.ACTIVATIONS, Part.TEMPORARIES)


class Cause(StrEnum):
    """Why there was no room."""

    FRAGMENTED = "fragmented"  # enough is free, in pieces that are too small
    FULL = "full"


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """One request that was refused.

    Args:
        cause: why.
        requested_bytes: as the allocator rounded it.
        device_free_bytes: what the device still had.
        cached_free_bytes: reserved and free, in all pieces.
        largest_free_bytes: of one free piece in the cache.
        segment_bytes: what the allocator would have taken from the device for the request.
        fits_bytes: the largest request that would have found room.
        missing_bytes: how much less in use would have been enough, were nothing in pieces.
        capacity_bytes: what this process could have: reserved and what the device still had.
        allocated_bytes: in use.
        reserved_bytes: held by the allocator.
        phase: of the training loop.
        where: the user's own code that asked.
        operator: that asked.
        parts: in use by part.
        largest_part: the part with most.
        batch_share: the batch that might have fitted, of the batch there was; None when
            another batch would not help.
        advice: what to try, most promising first.
    """

    cause: Cause
    requested_bytes: int
    device_free_bytes: int
    cached_free_bytes: int
    largest_free_bytes: int
    segment_bytes: int
    fits_bytes: int
    missing_bytes: int
    capacity_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    phase: str
    where: str
    operator: str
    parts: dict[str, int]
    largest_part: str
    batch_share: float | None
    advice: tuple[str, ...]


def explain_failure(
    failure: Failure,
    parts: Mapping[str, int],
    *,
    phase: Phase,
    where: str,
    operator: str,
    is_expandable: bool,
) -> OutOfMemory:
    """The reason for a refused request, from what was in use then.

    Args:
        failure: what was asked and what was there.
        parts: requested bytes in use by part.
        phase: of the training loop.
        where: the user's own code that asked.
        operator: that asked.
        is_expandable: whether the segments are expandable.
    """
    free = failure.free
    missing = failure.requested_bytes - failure.device_free_bytes - free.free_bytes
    cause = Cause.FULL if missing > 0 else Cause.FRAGMENTED
    share = _batch_share(failure, parts, phase) if cause is Cause.FULL else None
    return OutOfMemory(
        cause=cause,
        requested_bytes=failure.requested_bytes,
        device_free_bytes=failure.device_free_bytes,
        cached_free_bytes=free.free_bytes,
        largest_free_bytes=free.largest_bytes,
        segment_bytes=SizeRules(expandable=is_expandable).taken_bytes(failure.requested_bytes),
        fits_bytes=max(
            _cached_room(free.largest_bytes),
            _device_room(failure.device_free_bytes, is_expandable=is_expandable),
        ),
        missing_bytes=max(0, missing),
        capacity_bytes=failure.reserved_bytes + failure.device_free_bytes,
        allocated_bytes=failure.allocated_bytes,
        reserved_bytes=failure.reserved_bytes,
        phase=str(phase),
        where=where,
        operator=operator,
        parts=dict(parts),
        largest_part=max(parts, key=lambda name: parts[name]) if any(parts.values()) else "",
        batch_share=share,
        advice=tuple(_advice(cause, parts, share, is_expandable=is_expandable)),
    )


def _device_room(free_bytes: int, *, is_expandable: bool) -> int:
    """The largest request that the device would have given a segment for."""
    unit_bytes = LARGE_SEGMENT_BYTES if is_expandable else ROUND_LARGE_BYTES
    whole_bytes = free_bytes // unit_bytes * unit_bytes
    if whole_bytes >= MIN_LARGE_BYTES:
        return whole_bytes
    return SMALL_BYTES if free_bytes >= SMALL_SEGMENT_BYTES else 0


def _cached_room(piece_bytes: int) -> int:
    """The largest request for a free piece; one of a small segment serves small ones only."""
    return piece_bytes if piece_bytes > SMALL_SEGMENT_BYTES else min(piece_bytes, SMALL_BYTES)


def _batch_share(failure: Failure, parts: Mapping[str, int], phase: Phase) -> float | None:
    """How much of the batch might fit: what grows with it is taken as proportional to it."""
    grows = sum(parts[part] for part in _GROWS)
    if phase in (Phase.DATA, Phase.FORWARD, Phase.BACKWARD):
        grows += failure.requested_bytes
    fixed = sum(parts.values()) - sum(parts[part] for part in _GROWS)
    room = failure.reserved_bytes + failure.device_free_bytes - fixed
    if grows * 4 < sum(parts.values()) or room <= 0:
        return None
    share = _MARGIN * room / grows
    return share if 0 < share < 1 else None


def _advice(
    cause: Cause, parts: Mapping[str, int], share: float | None, *, is_expandable: bool
) -> list[str]:
    found = []
    if cause is Cause.FRAGMENTED and not is_expandable:
        found.append(
            "PYTORCH_ALLOC_CONF=expandable_segments:True: what is free would be one piece."
        )
    if cause is Cause.FRAGMENTED and is_expandable:
        found.append("torch.cuda.empty_cache() between phases of different sizes.")
    if share is not None:
        found.append(
            f"A batch of at most {share:.0%} of this one, with accumulation for the rest "
            "(an estimate: activations taken as proportional to the batch).".replace("%", " %")
        )
    activations = parts[Part.ACTIVATIONS]
    if activations * 3 > sum(parts.values()):
        found.append("Gradient checkpointing, or mixed precision: activations take most.")
    state = parts[Part.OPTIMIZER]
    if state * 4 > sum(parts.values()) and state > 64 * MIB:
        found.append(
            f"An optimizer with less state: it holds {format_bytes(state)} (SGD holds none or one "
            "copy of the parameters, Adam two)."
        )
    if not found:
        found.append("A card with more memory, or a smaller model.")
    found.append("memfit plan MODEL --gpu NAME says what fits before anything runs.")
    return found
