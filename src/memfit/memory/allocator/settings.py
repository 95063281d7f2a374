"""Options of the caching allocator, as ``PYTORCH_ALLOC_CONF`` writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from memfit.errors import UnknownName, UsageError
from memfit.memory.allocator.sizes import (
    LARGE_SEGMENT_BYTES,
    MIN_LARGE_BYTES,
    UNLIMITED,
    SizeRules,
)
from memfit.units import MIB

__all__ = ["AllocatorSettings"]

# One entry for each power of two from 1 MiB to 32 GiB (kRoundUpPowerOfTwoIntervals).
_INTERVALS = 16

# Options that change speed or pinned host memory, not device memory (getKeys in
# AllocatorConfig.cpp and CUDAAllocatorConfig.h, torch 2.15). Accepted and not kept.
WITHOUT_EFFECT = (
    "graph_capture_record_stream_reuse", "pinned_free_catch_all", "pinned_max_cached_size_mb",
    "pinned_max_round_threshold_mb", "pinned_num_register_threads",
    "pinned_reserve_segment_size_mb", "pinned_use_background_threads",
    "pinned_use_cuda_host_register", "pinned_use_hip_host_register", "release_lock_on_cudamalloc",
    "release_lock_on_hipmalloc",
)  # fmt: skip

# Options of torch that do change device memory and that the model does not follow, with the
# only value that means the same as leaving them out.
NOT_MODELLED: dict[str, str | None] = {
    "backend": "native",
    "throw_on_cudamalloc_oom": "False",
    "expandable_segments_reserve": None,
    "expandable_segments_reserve_by_class": None,
}


_SIZE_HINT = "Write a whole number of MiB, such as 128."
_DIVISIONS_HINT = "Write a power of two such as 4, or a list such as [256:1,512:2,>:4]."


@dataclass(frozen=True, slots=True)
class _Option:
    """How an option's value is read, into which field."""

    field: str
    read: Callable[[str], object]
    hint: str


@dataclass(frozen=True, slots=True)
class AllocatorSettings:
    """Options of ``PYTORCH_ALLOC_CONF`` (older: ``PYTORCH_CUDA_ALLOC_CONF``).

    Args:
        expandable_segments: one segment a pool and stream that grows by pages.
        max_split_size_bytes: blocks from this size on are not split; None for no limit.
        roundup_power2_divisions: steps between powers of two that sizes are rounded up to;
            0 for none, one number for all sizes, or pairs (interval in MiB, steps) as in
            ``[256:1,512:2,>:4]``, with None for ``>``.
        garbage_collection_threshold: from this share of the allowed memory on, old segments
            are released before new ones are taken; 0 for never. Torch collects only when
            ``per_process_memory_fraction`` is below 1.
        large_segment_size_bytes: segment for requests between 1 and 10 MiB, page of
            expandable segments.
        per_process_memory_fraction: share of the device's memory that may be reserved.
        max_non_split_rounding_bytes: how much larger than the request an unsplittable block
            may be; ``large_segment_size_bytes`` when None.

    >>> AllocatorSettings.parse("max_split_size_mb:128").max_split_size_bytes
    134217728
    """

    expandable_segments: bool = False
    max_split_size_bytes: int | None = None
    roundup_power2_divisions: int | tuple[tuple[int | None, int], ...] = 0
    garbage_collection_threshold: float = 0.0
    large_segment_size_bytes: int = LARGE_SEGMENT_BYTES
    per_process_memory_fraction: float = 1.0
    max_non_split_rounding_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse what torch refuses (``AllocatorConfig.cpp``)."""
        if self.large_segment_size_bytes <= MIN_LARGE_BYTES:
            raise UsageError("large_segment_size_mb must be more than 10.")
        least = self.large_segment_size_bytes
        _check_size("large_segment_size_mb", self.large_segment_size_bytes, least)
        _check_size("max_split_size_mb", self.max_split_size_bytes, least)
        _check_size("max_non_split_rounding_mb", self.max_non_split_rounding_bytes, least)
        if not 0.0 <= self.garbage_collection_threshold < 1.0:
            raise UsageError("garbage_collection_threshold must be between 0 and 1.")
        if not 0.0 <= self.per_process_memory_fraction <= 1.0:
            raise UsageError("per_process_memory_fraction must be from 0 to 1.")
        _check_divisions(self.roundup_power2_divisions)

    @classmethod
    def parse(cls, text: str) -> AllocatorSettings:
        """Settings from ``"expandable_segments:True,max_split_size_mb:128"``.

        Args:
            text: pairs ``name:value`` with commas between; empty for the defaults.

        Raises:
            UsageError: an unknown option (with the nearest names), or a value it cannot take.
        """
        values: dict[str, object] = {}
        for name, value in _pairs(text):
            if name in _OPTIONS:
                option = _OPTIONS[name]
                values[option.field] = _read(name, value, option)
            elif name in NOT_MODELLED:
                _refuse_unless_default(name, value)
            elif name not in WITHOUT_EFFECT:
                known = [*_OPTIONS, *NOT_MODELLED, *WITHOUT_EFFECT]
                raise UnknownName("allocator option", name, known)
        return cls(**values)  # type: ignore[arg-type]  # each field has its own reader

    @property
    def depends_on_the_card(self) -> bool:
        """Whether a replay without a limit may differ from one on a card with enough memory."""
        return self.expandable_segments or self.per_process_memory_fraction < 1.0

    @property
    def size_rules(self) -> SizeRules:
        """What these options make of sizes."""
        return SizeRules(
            self.max_split_size_bytes or UNLIMITED,
            self.divisions_by_interval(),
            self.large_segment_size_bytes,
            self.expandable_segments,
        )

    def divisions_by_interval(self) -> tuple[int, ...] | None:
        """Steps for sizes of 1 to 2 MiB (and below), 2 to 4 MiB ... 32 GiB and above, or None.

        As ``parseRoundUpPower2Divisions`` fills its table: the first interval of the list also
        covers all below it, ``>`` all above the one before it, and one not named has none.
        """
        given = self.roundup_power2_divisions
        if isinstance(given, int):
            return (given,) * _INTERVALS if given else None
        table = [0] * _INTERVALS
        last, first = 0, True
        for interval_mib, steps in given:
            if interval_mib is None:
                table[last + 1 :] = [steps] * (_INTERVALS - last - 1)
                continue
            last = min(interval_mib.bit_length() - 1, _INTERVALS - 1)
            if first:
                table[:last] = [steps] * last
                first = False
            table[last] = steps
        return tuple(table)


def _pairs(text: str) -> list[tuple[str, str]]:
    """Names and values of ``a:1,b:[2:3,4:5]``; white space is ignored, as is a last comma."""
    compact = re.sub(r"\s", "", text)
    pairs = []
    for item in re.split(r",(?![^\[]*\])", compact.removesuffix(",")) if compact else []:
        name, colon, value = item.partition(":")
        if not name or not colon or not value:
            raise UsageError(
                f"Allocator options {text!r}: {item!r} is not name:value.",
                hint='Write them like "expandable_segments:True,max_split_size_mb:128".',
            )
        pairs.append((name, value))
    return pairs


def _read(name: str, value: str, option: _Option) -> object:
    try:
        return option.read(value)
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"Allocator option {name}: {value!r} is not a value it takes.", hint=option.hint
        ) from error


def _flag(value: str) -> bool:
    return {"True": True, "False": False}[value]


def _mebibytes(value: str) -> int:
    return _whole(value) * MIB


def _whole(value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise ValueError(value)
    return int(value)


def _threshold(value: str) -> float:
    share = float(value)
    if not 0.0 < share < 1.0:
        raise ValueError(value)
    return share


def _divisions(value: str) -> int | tuple[tuple[int | None, int], ...]:
    if not value.startswith("["):
        steps = _whole(value)
        if steps == 0:  # torch takes 0 inside a list only
            raise ValueError(value)
        return steps
    if not value.endswith("]"):
        raise ValueError(value)
    pairs: list[tuple[int | None, int]] = []
    for item in value[1:-1].split(",") if value != "[]" else []:
        interval, _, steps_text = item.partition(":")
        pairs.append((None if interval == ">" else _whole(interval), _whole(steps_text)))
    return tuple(pairs)


def _check_size(name: str, size_bytes: int | None, least_bytes: int) -> None:
    if size_bytes is None:
        return
    if size_bytes % MIB:
        raise UsageError(f"{name} must be a whole number of MiB.")
    if size_bytes < least_bytes:
        raise UsageError(
            f"{name} must be at least {least_bytes // MIB}.",
            hint="It may not be less than large_segment_size_mb, which is 20 by default.",
        )


def _check_divisions(given: int | tuple[tuple[int | None, int], ...]) -> None:
    if isinstance(given, int):
        given = ((None, given),)
    for interval_mib, steps in given:
        for number in (1 if interval_mib is None else interval_mib, steps or 1):
            if number < 1 or number & (number - 1):
                raise UsageError(
                    f"roundup_power2_divisions: {number} is not a power of two.",
                    hint=_DIVISIONS_HINT,
                )


def _refuse_unless_default(name: str, value: str) -> None:
    if value != (default := NOT_MODELLED[name]):
        raise UsageError(
            f"Allocator option {name}:{value} changes device memory in a way memfit cannot model.",
            hint=f"Leave it out{f' or write {name}:{default}' if default else ''}.",
        )


_OPTIONS = {
    "expandable_segments": _Option("expandable_segments", _flag, "Write True or False."),
    "max_split_size_mb": _Option("max_split_size_bytes", _mebibytes, _SIZE_HINT),
    "max_non_split_rounding_mb": _Option("max_non_split_rounding_bytes", _mebibytes, _SIZE_HINT),
    "large_segment_size_mb": _Option("large_segment_size_bytes", _mebibytes, _SIZE_HINT),
    "roundup_power2_divisions": _Option("roundup_power2_divisions", _divisions, _DIVISIONS_HINT),
    "garbage_collection_threshold": _Option(
        "garbage_collection_threshold", _threshold, "Write a number between 0 and 1, such as 0.8."
    ),
    "per_process_memory_fraction": _Option(
        "per_process_memory_fraction", float, "Write a number from 0 to 1, such as 0.9."
    ),
}
