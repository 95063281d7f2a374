"""Which sizes a micro-batch can take, which one it has, and when it changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from memfit.errors import DoesNotFit, UsageError

__all__ = ["MicroBatchEvent", "Sizes", "Where"]

#: Where memory ran out (``"block"``: in a ``with attempt`` block), or that a size is tried again.
Where = Literal["forward", "backward", "another rank", "block", "growth"]


@dataclass(frozen=True, slots=True)
class MicroBatchEvent:
    """The micro-batch changed.

    Args:
        step: of how many finished steps before it.
        phase: where memory ran out, or ``"growth"``.
        from_size: samples in a micro-batch before.
        to_size: and after.
        message: the first line of the error; empty for growth.
    """

    step: int
    phase: Where
    from_size: int
    to_size: int
    message: str = ""


class Sizes:
    """A ladder of sizes, largest first, and the rung that is taken now.

    Args:
        sizes: largest first; one number stands for itself, its half, and so on down to 1.
        on_event: is told of every change.

    Raises:
        UsageError: the sizes are not positive or not descending.

    Example:
        >>> Sizes(20).all
        (20, 10, 5, 2, 1)
    """

    def __init__(
        self, sizes: int | Sequence[int], on_event: Callable[[MicroBatchEvent], None] | None = None
    ) -> None:
        self.all = _halves(sizes) if isinstance(sizes, int) else tuple(sizes)
        is_descending = all(a > b for a, b in pairwise(self.all))
        if not self.all or self.all[-1] < 1 or not is_descending:
            raise UsageError(
                f"sizes={sizes!r} are no micro-batches.",
                hint="Give positive numbers, largest first, such as (64, 48, 16), or one number.",
            )
        self.events: list[MicroBatchEvent] = []
        self._on_event = on_event
        self._rung = 0

    @property
    def now(self) -> int:
        """The micro-batch."""
        return self.all[self._rung]

    @property
    def can_grow(self) -> bool:
        """Whether there is a larger size."""
        return self._rung > 0

    def leave_out_above(self, size: int) -> None:
        """Forget the sizes above this one; the smallest stays."""
        self.all = tuple(each for each in self.all if each <= size) or self.all[-1:]

    def take_at_most(self, size: int) -> None:
        """Take the largest size up to this one, without an event."""
        below = [rung for rung, each in enumerate(self.all) if each <= size]
        self._rung = below[0] if below else len(self.all) - 1

    def grow(self, step: int) -> None:
        """Take the next larger size."""
        self._take(self._rung - 1, step, "growth", "")

    def shrink(self, below: int, step: int, where: Where, message: str) -> None:
        """Take the largest size below what just failed.

        Args:
            below: how many samples did not fit.
            step: how many steps are done.
            where: memory ran out.
            message: what the error said.

        Raises:
            DoesNotFit: there is none.
        """
        for rung in range(self._rung + 1, len(self.all)):
            if self.all[rung] < below:
                self._take(rung, step, where, message)
                return
        raise DoesNotFit(
            f"Not even a micro-batch of {min(below, self.now)} fits, the smallest to try: "
            f"{message}",
            hint="Ask `memfit plan` for ways to need less: half precision, gradient checkpointing, "
            "smaller images, another optimizer; and see whether another process fills the device.",
        )

    def _take(self, rung: int, step: int, where: Where, message: str) -> None:
        event = MicroBatchEvent(step, where, self.now, self.all[rung], message)
        self._rung = rung
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)


def _halves(size: int) -> tuple[int, ...]:
    return tuple(size >> shift for shift in range(size.bit_length())) if size > 0 else (size,)
