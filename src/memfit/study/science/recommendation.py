"""One global batch, micro-batch, accumulation and learning rate, and how sure it is.

Goodput (Qiao et al. 2021, "Pollux", arXiv 2008.12260, section 3): throughput times statistical
efficiency. Of a batch ``B`` the share ``1/(1 + B/B_crit)`` of every *sample* is progress, and
``1/(1 + B_crit/B)`` of what a *step* can be at most (McCandlish et al. 2018, arXiv 1812.06162,
equation 2.7). Samples/s times the first and steps/s times the second differ only by the constant
``B_crit``: both say how long training takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Candidate", "Recommendation", "Sureness", "recommend", "sample_efficiency"]

Sureness = Literal["clear", "likely", "cannot tell"]
_Sizes = TypeVar("_Sizes", float, NDArray[np.float64])

#: Goodputs within this share of the best are as good as the best.
CLOSE = 0.05
_CLEAR, _LIKELY = 0.9, 0.6
#: From the intervals.
_DRAWS = 4000


def sample_efficiency(batch_size: _Sizes, critical: float) -> _Sizes:
    """The share of every sample that is progress, with batches of this size.

    >>> sample_efficiency(100, 100)
    0.5
    """
    return 1 / (1 + batch_size / critical)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A batch size that may be recommended.

    Args:
        batch_size: samples for one optimizer step.
        samples_per_second: measured, mean of the rounds.
        rounds: samples/s of each round; in a round all batch sizes took their turn.
        learning_rate: tuned; None where every trial failed.
        micro_batch: that fits the memory; None where none does.
        seconds_to_goal: measured steps to the goal at the measured speed; None if not every seed
            reached it.
        is_able: whether any seed reached the goal; True without a goal.
    """

    batch_size: int
    samples_per_second: float
    rounds: tuple[float, ...]
    learning_rate: float | None
    micro_batch: int | None
    seconds_to_goal: float | None = None
    is_able: bool = True

    @property
    def is_possible(self) -> bool:
        """Whether it trains to the goal and fits."""
        return self.learning_rate is not None and self.micro_batch is not None and self.is_able


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to train with.

    Args:
        global_batch: samples for one optimizer step.
        micro_batch: samples in one forward.
        accumulation: micro-batches for one optimizer step.
        learning_rate: tuned for the batch.
        sureness: how sure it is.
        share: of the draws from all intervals in which its goodput is within 5 % of the best.
        critical: the critical batch that it rests on, samples; None: there was no bounded one.
        basis: where ``critical`` comes from.
        goodput: useful samples/s by batch size; empty without ``critical``.
        as_good: batch sizes whose goodput is within 5 % of the best.
        reasons: why, in sentences.
        changes: what would change it, in sentences.
    """

    global_batch: int
    micro_batch: int
    accumulation: int
    learning_rate: float
    sureness: Sureness
    share: float | None
    critical: tuple[float, float, float] | None
    basis: str
    goodput: dict[int, float]
    as_good: tuple[int, ...]
    reasons: tuple[str, ...]
    changes: tuple[str, ...]


def recommend(
    candidates: Sequence[Candidate],
    critical: tuple[float, float, float] | None,
    basis: str,
    *,
    is_direct: bool = True,
    knee: int | None,
) -> Recommendation | None:
    """The smallest batch whose goodput is within 5 % of the best under the memory ceiling.

    Args:
        candidates: all batch sizes of the study.
        critical: value, low and high of the critical batch; None: nobody knows it.
        basis: where it comes from, in words.
        is_direct: whether it was measured over batch sizes; what theory says of gradients alone
            is never called clear.
        knee: the smallest batch within 5 % of the best speed.

    Returns:
        None when no batch size both trains and fits.
    """
    possible = [c for c in candidates if c.is_possible]
    if not possible:
        return None
    tried = sorted(c.batch_size for c in candidates)
    reasons = [_why_not(c) for c in candidates if not c.is_possible]
    if critical is None:
        return _by_time(possible, knee, reasons, basis)
    sizes = np.array([c.batch_size for c in possible], dtype=float)
    speeds = np.array([c.samples_per_second for c in possible])
    goodput = speeds * sample_efficiency(sizes, critical[0])
    close = goodput >= (1 - CLOSE) * goodput.max()
    chosen = int(np.flatnonzero(close)[np.argmin(sizes[close])])
    drawn = _drawn(possible, sizes, critical)
    share = float((drawn[:, chosen] >= (1 - CLOSE) * drawn.max(1)).mean())
    as_good = tuple(c.batch_size for c, is_close in zip(possible, close, strict=True) if is_close)
    reasons.append(
        f"Of every sample, 1/(1 + {possible[chosen].batch_size}/{critical[0]:.0f}) = "
        f"{sample_efficiency(sizes[chosen], critical[0]):.0%} is progress, at "
        f"{speeds[chosen]:,.0f} samples/s: {goodput[chosen]:,.0f} useful samples/s."
    )
    if len(as_good) > 1:
        others = ", ".join(str(b) for b in as_good if b != possible[chosen].batch_size)
        reasons.append(f"Within 5 % of it: {others}; the smallest needs the least memory.")
    sureness: Sureness = (
        "clear" if share >= _CLEAR else "likely" if share >= _LIKELY else "cannot tell"
    )
    fastest, note = _measured(possible, chosen)
    if note:
        reasons.append(note)
    if (fastest is False or not is_direct) and sureness == "clear":
        sureness = "likely"
    return Recommendation(
        *_settings(possible[chosen]),
        sureness=sureness,
        share=share,
        critical=critical,
        basis=basis,
        goodput={c.batch_size: float(g) for c, g in zip(possible, goodput, strict=True)},
        as_good=as_good,
        reasons=tuple(reasons),
        changes=tuple(_changes(possible, chosen, critical, sizes, speeds, tried)),
    )


def _why_not(candidate: Candidate) -> str:
    if candidate.micro_batch is None:
        return f"Batch {candidate.batch_size} does not fit the memory."
    if candidate.learning_rate is None:
        return f"Batch {candidate.batch_size} trained at no learning rate that was tried."
    return f"Batch {candidate.batch_size} did not reach the goal."


def _settings(chosen: Candidate) -> tuple[int, int, int, float]:
    assert chosen.micro_batch is not None
    assert chosen.learning_rate is not None
    parts = -(-chosen.batch_size // chosen.micro_batch)
    return chosen.batch_size, chosen.micro_batch, parts, chosen.learning_rate


def _drawn(
    possible: Sequence[Candidate], sizes: NDArray[np.float64], critical: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Goodputs ``(draws, batch sizes)``: the critical batch anywhere in its interval.

    Rounds of speed are drawn again, the same for all batch sizes: what slowed all changes nothing.
    """
    random = np.random.default_rng(0)
    value, low, high = (math.log(max(c, 1e-9)) for c in critical)
    spread = max(high - low, 1e-9) / (2 * 1.96)
    criticals = np.exp(random.normal(value, spread, size=(_DRAWS, 1)))
    rounds = np.array([c.rounds for c in possible])  # (batch sizes, rounds)
    number = rounds.shape[1]
    speeds = rounds[:, random.integers(number, size=(_DRAWS, number))].mean(2).T
    drawn: NDArray[np.float64] = speeds / (1 + sizes / criticals)
    return drawn


def _measured(possible: Sequence[Candidate], chosen: int) -> tuple[bool | None, str]:
    """Whether the measured times to the goal agree; None where there are too few."""
    timed = {c.batch_size: c.seconds_to_goal for c in possible if c.seconds_to_goal is not None}
    own = possible[chosen].seconds_to_goal
    if len(timed) < 2 or own is None:
        return None, ""
    best = min(timed, key=lambda batch: timed[batch])
    if own <= 1.1 * timed[best]:
        return (
            True,
            f"The measured time to the goal agrees: {own:.3g} s, the best {timed[best]:.3g} s.",
        )
    return False, (
        f"The measured time to the goal does not quite agree: {own:.3g} s, but "
        f"{timed[best]:.3g} s at batch {best}."
    )


def _changes(
    possible: Sequence[Candidate],
    chosen: int,
    critical: tuple[float, float, float],
    sizes: NDArray[np.float64],
    speeds: NDArray[np.float64],
    tried: Sequence[int],
) -> list[str]:
    """What would lead to another batch, from the same measurements."""
    changes = []
    for end, word in ((critical[1], "smaller"), (critical[2], "larger")):
        goodput = speeds * sample_efficiency(sizes, end)
        close = np.flatnonzero(goodput >= (1 - CLOSE) * goodput.max())
        other = int(close[np.argmin(sizes[close])])
        if other != chosen:
            changes.append(
                f"A {word} critical batch, {end:.0f}: then {possible[other].batch_size}."
            )
    fastest = int(speeds.argmax())
    if fastest != chosen and sizes[fastest] > sizes[chosen]:
        changes.append(
            f"A machine on which large batches are faster: here {possible[fastest].batch_size} "
            f"processes {speeds[fastest] / speeds[chosen]:.2f} times the samples/s."
        )
    changes.append(
        "Longer training: the noise scale grows as the loss falls, and larger batches pay more."
    )
    for end, side in ((tried[0], "smallest"), (tried[-1], "largest")):
        if sizes[chosen] == end:
            changes.append(f"It is the {side} batch that was tried: extend the study beyond it.")
    return changes


def _by_time(
    possible: Sequence[Candidate], knee: int | None, reasons: list[str], basis: str
) -> Recommendation:
    """Without a critical batch: the shortest measured time to the goal, else the knee."""
    timed = [c for c in possible if c.seconds_to_goal is not None]
    if timed:
        chosen = min(timed, key=lambda c: c.seconds_to_goal or 0.0)
        reasons.append(
            "The measurements bound no critical batch, so this is only the shortest measured time "
            f"to the goal, {chosen.seconds_to_goal:.3g} s."
        )
    else:
        near = [c for c in possible if knee is not None and c.batch_size >= knee]
        chosen = min(near or possible, key=lambda c: c.batch_size)
        reasons.append(
            "The data cannot tell: no goal was reached and no critical batch is bounded. This is "
            "only the smallest batch within 5 % of the best speed."
        )
    return Recommendation(
        *_settings(chosen),
        sureness="cannot tell",
        share=None,
        critical=None,
        basis=basis,
        goodput={},
        as_good=(chosen.batch_size,),
        reasons=tuple(reasons),
        changes=("More seeds, more batch sizes or longer trials would bound the critical batch.",),
    )
