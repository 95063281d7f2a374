"""The largest batches that run, by one rule, whatever is asked first.

What runs does not end at one batch: cuDNN changes its plan with the batch and segments fall
together differently, so a batch may run although a smaller one does not. Hence three figures.
*Stops* are the multiples of 8, thinned to 32 from each power of two to the next, so the upper
half of any batch has at most 33.

- ``max_batch_size`` is a promise: the largest stop that runs together with every stop down to its
  half; and from there, before the next stop, as far as batches run. Further down the reservation
  without any limit is already less than the card has.
- ``largest_that_runs``: the last batch that runs in a window above that one. The window is an
  eighth of it, at least 8; at most 16 of its batches are tried, spread evenly.
- ``recommended_batch_size``: the largest stop that runs on a card with ``safety`` of the memory
  (of the usable and of the whole, rounded down to bytes; the CUDA context stays as it is);
  and from there, before the next stop, as far as batches do. It is never more than
  ``max_batch_size``, nor than a useful batch (:func:`useful_batch`), and a multiple of 8
  from 16 up.

Where no two traces answer every batch there are 4 stops instead of 32, and 2 tries instead of 16.
"As far as" goes digit by digit: up in steps of an eighth of the gap while the batch runs, then in
steps of an eighth of that. So where stops are 8 apart every batch beyond one is tried.
``tests/engine/limits.json`` holds this and the page's JavaScript to the same answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "MOST_USEFUL_BATCH",
    "STOPS",
    "STOPS_WHEN_TRACED",
    "BatchLimits",
    "UsefulBatch",
    "find_limits",
    "promised_batch",
    "stops_up_to",
    "useful_batch",
]

#: Stops from one power of two to the next; where every batch is traced, each takes a second.
STOPS, STOPS_WHEN_TRACED = 32, 4

#: The largest batch with which ImageNet was trained as well as with small ones: Goyal et al. 2017,
#: arXiv 1706.02677, figure 1. Every workload stops to gain at some batch (Shallue et al. 2019,
#: arXiv 1811.03600), small and easy ones far earlier (McCandlish et al. 2018, arXiv 1812.06162).
MOST_USEFUL_BATCH = 8192

_SENTENCES = {
    "published": "larger ones have rarely trained better (Goyal et al. 2017; memfit noise measures "
    "how many samples help you)",
    "samples": "the training set has {batch_size:,} samples",
    "global_batch": "the global batch is {batch_size:,}",
}

_LEAST_STOP = 8
_EIGHTH = 8

Runs = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The micro-batches that run on a card; 0 where none does.

    Args:
        max_batch_size: every micro-batch up to it runs.
        largest_that_runs: a larger one that runs although some below it do not; often the same.
        recommended_batch_size: the largest that runs with ``safety`` of the card's memory, and is
            of use.
    """

    max_batch_size: int
    largest_that_runs: int
    recommended_batch_size: int


@dataclass(frozen=True, slots=True)
class UsefulBatch:
    """The most samples worth a batch, whatever memory holds.

    Args:
        batch_size: no larger micro-batch is recommended.
        because: what says so: published work, the number of samples, or the asked global batch.
    """

    batch_size: int
    because: Literal["published", "samples", "global_batch"]

    @property
    def text(self) -> str:
        """Why, in English."""
        return _SENTENCES[self.because].format(batch_size=self.batch_size)

    def is_reached_by(self, recommended: int) -> bool:
        """Whether it is what ends the recommended batch, and not memory: a multiple of 8 from 16.

        >>> useful_batch(500, None).is_reached_by(496)
        True
        """
        whole = self.batch_size if self.batch_size < 16 else self.batch_size // 8 * 8
        return recommended == whole


def useful_batch(samples: int | None, global_batch: int | None) -> UsefulBatch:
    """The rule: no more than the training set has, nor than published work found useful.

    Args:
        samples: of the training set; None where it is not known.
        global_batch: as asked; whoever asks for more than published work had is given it.

    >>> useful_batch(60_000, None).batch_size, useful_batch(500, None).batch_size
    (8192, 500)
    """
    found = UsefulBatch(MOST_USEFUL_BATCH, "published")
    if global_batch is not None and global_batch > MOST_USEFUL_BATCH:
        found = UsefulBatch(global_batch, "global_batch")
    if samples and samples <= found.batch_size:
        found = UsefulBatch(samples, "samples")
    return found


def find_limits(
    runs: Runs, runs_safely: Runs, last: int, stops: int = STOPS, useful: int | None = None
) -> BatchLimits:
    """The limits of a card, by the rule above.

    Args:
        runs: whether a micro-batch runs on the card.
        runs_safely: the same with ``safety`` of the memory.
        last: no larger micro-batch is asked about.
        stops: from one power of two to the next.
        useful: no larger micro-batch is recommended; None for no such limit.

    >>> find_limits(lambda batch: batch <= 140, lambda batch: batch <= 117, last=1024)
    BatchLimits(max_batch_size=140, largest_that_runs=140, recommended_batch_size=112)
    """

    def runs_at_all(batch: int) -> bool:
        return batch <= last and runs(batch)

    most = promised_batch(runs, last, stops)
    most_useful = most if useful is None else min(most, useful)

    def is_recommended(batch: int) -> bool:
        return batch <= most_useful and runs_safely(batch)

    tried = reversed(stops_up_to(last, stops))
    safe = next((stop for stop in tried if is_recommended(stop)), 0)
    unit = 1 if safe < 16 else 8
    return BatchLimits(
        max_batch_size=most,
        largest_that_runs=_last_of_window(runs_at_all, most, stops // 2),
        recommended_batch_size=_as_far_as_it_runs(is_recommended, safe, stops, unit),
    )


def promised_batch(runs: Runs, last: int, stops: int = STOPS) -> int:
    """``max_batch_size`` alone; arguments as of :func:`find_limits`."""
    promised = 0
    for stop in reversed(stops_up_to(last, stops)):
        if 2 * stop < promised:
            break
        promised = (promised or stop) if runs(stop) else 0
    return _as_far_as_it_runs(lambda batch: batch <= last and runs(batch), promised, stops)


def stops_up_to(last: int, stops: int = STOPS) -> list[int]:
    """Multiples of 8 up to ``last``, at most ``stops`` from each power of two to the next.

    >>> stops_up_to(48), stops_up_to(1 << 20)[-1] - stops_up_to(1 << 20)[-2]
    ([8, 16, 24, 32, 40, 48], 16384)
    """
    found, stop = [], _LEAST_STOP
    while stop <= last:
        found.append(stop)
        stop += _gap_above(stop, stops)
    return found


def _gap_above(stop: int, stops: int) -> int:
    """From a stop to the next; from 0 to the first."""
    power_of_two = (1 << stop.bit_length()) // 2
    return max(_LEAST_STOP, power_of_two // stops)


def _as_far_as_it_runs(runs: Runs, stop: int, stops: int, unit: int = 1) -> int:
    """From a stop that runs (or 0) towards the next, a multiple of ``unit``."""
    batch, gap = stop, _gap_above(stop, stops)
    while gap > unit:
        step = max(unit, gap // _EIGHTH)
        end = batch + gap
        while batch + step < end and runs(batch + step):
            batch += step
        gap = step
    return batch


def _last_of_window(runs: Runs, most: int, tries: int) -> int:
    width = max(_EIGHTH, most // _EIGHTH)
    step = -(-width // tries)
    above = range(most + width // step * step, most, -step)
    return next((batch for batch in above if runs(batch)), most)
