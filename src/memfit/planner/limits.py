"""The micro-batches that run on cards: the tapes of one plan, held against capacities."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from functools import partial

from memfit.cards.catalogue import GPU
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import peak_reserved_bytes, runs_on
from memfit.memory.tape.tape import max_live_bytes
from memfit.planner.largest import (
    STOPS,
    STOPS_WHEN_TRACED,
    BatchLimits,
    find_limits,
    promised_batch,
)
from memfit.planner.tapes import Tapes

__all__ = ["Limits"]


class Limits:
    """What runs, on any card; every answer is worked out once.

    Args:
        tapes: of the step.
        settings: options of the allocator.
        safety: the share of a card's memory that a recommended batch runs with.
        useful: no larger batch is recommended; None for no such limit.
    """

    def __init__(
        self, tapes: Tapes, settings: AllocatorSettings, safety: float, useful: int | None = None
    ) -> None:
        self._tapes = tapes
        self._settings = settings
        self._safety = safety
        self._useful = useful
        self._known: dict[int, tuple[int, int]] = {}
        self._found: dict[tuple[int, int, int], BatchLimits] = {}

    def runs_on(self, gpu: GPU, batch_size: int) -> bool:
        """Whether a micro-batch runs on a card, releasing cached blocks where torch would."""
        if self._tapes.least_bytes(batch_size) > gpu.capacity_bytes:
            return False
        live_bytes, reserved_bytes = self._needs(batch_size)
        if live_bytes > gpu.capacity_bytes:
            return False
        if reserved_bytes <= gpu.capacity_bytes and not self._settings.depends_on_the_card:
            return True
        return runs_on(*self._tapes.at(batch_size), gpu, self._settings)

    def runs_safely_on(self, gpu: GPU, batch_size: int) -> bool:
        """Whether it runs with ``safety`` of the card's memory too, as a recommended one does."""
        return self.runs_on(_with_share(gpu, self._safety), batch_size)

    def _needs(self, batch_size: int) -> tuple[int, int]:
        """What is alive at once, and what is reserved without a limit; on any card."""
        if batch_size not in self._known:
            tape, sizes = self._tapes.at(batch_size)
            reserved_bytes = peak_reserved_bytes(tape, sizes, self._settings)
            self._known[batch_size] = max_live_bytes(sizes, tape.events), reserved_bytes
        return self._known[batch_size]

    def on(self, gpu: GPU) -> BatchLimits:
        """The largest and the recommended micro-batch of a card."""
        key = (gpu.usable_bytes, gpu.context_bytes, gpu.total_bytes)
        if key not in self._found:
            runs = partial(self.runs_on, gpu)
            runs_safely = partial(self.runs_safely_on, gpu)
            last = self._last_batch(gpu)
            self._found[key] = find_limits(runs, runs_safely, last, self._stops, self._useful)
        return self._found[key]

    def max_batch_on(self, gpu: GPU) -> int:
        """The largest alone, for a plan of which nothing else is asked."""
        return promised_batch(partial(self.runs_on, gpu), self._last_batch(gpu), self._stops)

    @property
    def _stops(self) -> int:
        return STOPS if self._tapes.affine is not None else STOPS_WHEN_TRACED

    def _last_batch(self, gpu: GPU) -> int:
        """No larger batch runs: its tensors alone are more than the card has."""
        least_bytes, most = self._tapes.least_bytes, self._tapes.last_batch
        last = 1
        while last < most and least_bytes(last) <= gpu.capacity_bytes:
            last *= 2
        if self._tapes.affine is None or least_bytes(last) <= gpu.capacity_bytes:
            return min(last, most)
        # The most of lines is convex, so it is above the capacity from one batch on.
        first = bisect_right(range(last), gpu.capacity_bytes, lo=last // 2, key=least_bytes)
        return min(first - 1, most)


def _with_share(gpu: GPU, share: float) -> GPU:
    """The card with so much less memory, usable and whole; its CUDA context stays."""
    usable_bytes, total_bytes = int(gpu.usable_bytes * share), int(gpu.total_bytes * share)
    return replace(gpu, usable_bytes=usable_bytes, total_bytes=total_bytes)
