"""The micro-batches that run on cards: the tapes of one plan, held against capacities."""

from __future__ import annotations

from dataclasses import replace

from memfit.cards.catalogue import GPU
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import peak_reserved_bytes, runs_on
from memfit.planner.largest import STOPS, STOPS_WHEN_TRACED, BatchLimits, find_limits
from memfit.planner.tapes import Tapes

__all__ = ["Limits"]


class Limits:
    """What runs, on any card; every answer is worked out once.

    Args:
        tapes: of the step.
        settings: options of the allocator.
        safety: the share of a card's memory that a recommended batch runs with.
    """

    def __init__(self, tapes: Tapes, settings: AllocatorSettings, safety: float) -> None:
        self._tapes = tapes
        self._settings = settings
        self._safety = safety
        self._reserved: dict[int, int] = {}
        self._found: dict[tuple[int, int, int], BatchLimits] = {}

    def runs_on(self, gpu: GPU, batch_size: int) -> bool:
        """Whether a micro-batch runs on a card, releasing cached blocks where torch would."""
        if self._tapes.least_bytes(batch_size) > gpu.capacity_bytes:
            return False
        tape, sizes = self._tapes.at(batch_size)
        if not self._settings.depends_on_the_card:
            if batch_size not in self._reserved:
                self._reserved[batch_size] = peak_reserved_bytes(tape, sizes, self._settings)
            if self._reserved[batch_size] <= gpu.capacity_bytes:
                return True
        return runs_on(tape, sizes, gpu, self._settings)

    def on(self, gpu: GPU) -> BatchLimits:
        """The largest and the recommended micro-batch of a card."""
        key = (gpu.usable_bytes, gpu.context_bytes, gpu.total_bytes)
        if key not in self._found:
            safe = _with_share(gpu, self._safety)
            self._found[key] = find_limits(
                lambda batch: self.runs_on(gpu, batch),
                lambda batch: self.runs_on(safe, batch),
                self._last_batch(gpu),
                STOPS if self._tapes.affine is not None else STOPS_WHEN_TRACED,
            )
        return self._found[key]

    def _last_batch(self, gpu: GPU) -> int:
        """No larger batch runs: its tensors alone are more than the card has."""
        last, most = 1, self._tapes.last_batch
        while last < most and self._tapes.least_bytes(last) <= gpu.capacity_bytes:
            last *= 2
        return min(last, most)


def _with_share(gpu: GPU, share: float) -> GPU:
    """The card with so much less memory, usable and whole; its CUDA context stays."""
    usable_bytes, total_bytes = int(gpu.usable_bytes * share), int(gpu.total_bytes * share)
    return replace(gpu, usable_bytes=usable_bytes, total_bytes=total_bytes)
