"""Which rule the best learning rates follow as the batch grows: linear, square root or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["RULES", "RateRule", "TunedRate", "fit_rate_rule"]

#: Exponent of the batch: linear for SGD (Goyal et al. 2017, arXiv 1706.02677), square root for
#: Adam (Malladi et al. 2022, arXiv 2205.10287), none: the rate does not depend on the batch.
RULES = {"linear": 1.0, "square root": 0.5, "none": 0.0}
_DRAWS = 4000  # for the interval


@dataclass(frozen=True, slots=True)
class TunedRate:
    """The best learning rate of a batch size.

    Args:
        batch_size: samples for one optimizer step.
        value: the best one tried.
        low: rates from here...
        high: ...to here cannot be told from it.
    """

    batch_size: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RateRule:
    """How the best learning rate grows with the batch: as its power.

    Args:
        exponent: of the batch.
        low: end of its 95 % interval.
        high: end of its 95 % interval.
        constant: the rate at batch 1 on the fitted line.
        supported: names in :data:`RULES` whose exponent lies in the interval.
    """

    exponent: float
    low: float
    high: float
    constant: float
    supported: tuple[str, ...]

    def rate(self, batch_size: float) -> float:
        """On the fitted line."""
        return float(self.constant * batch_size**self.exponent)

    @property
    def verdict(self) -> str:
        """In a sentence."""
        found = f"best rate ~ batch^{self.exponent:.2f} (95 %: {self.low:.2f} to {self.high:.2f})"
        if len(self.supported) == 1:
            name = self.supported[0]
            rule = "no rule, the same rate," if name == "none" else f"the {name} rule"
            return f"{found}: the measurements support {rule} and none of the others."
        if not self.supported:
            return f"{found}: neither linear, square root nor none fits these measurements."
        return f"{found}: they cannot tell between {_listed(self.supported)}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def fit_rate_rule(rates: Sequence[TunedRate]) -> RateRule | None:
    """Fit a power of the batch; its interval from what each rate cannot be told from.

    Each draw takes for every batch size a rate evenly (in logarithm) from its range, and the
    scatter of the best rates around the line widens the interval.

    Args:
        rates: of at least three batch sizes.

    Returns:
        None with fewer than three batch sizes.
    """
    if len(rates) < 3:
        return None
    x = np.log([rate.batch_size for rate in rates])
    y = np.log([rate.value for rate in rates])
    low, high = (np.log([getattr(rate, end) for rate in rates]) for end in ("low", "high"))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    exponent = float(weights @ y)
    random = np.random.default_rng(0)
    drawn = random.uniform(low, high, size=(_DRAWS, len(rates))) @ weights
    residuals = y - y.mean() - exponent * (x - x.mean())
    freedom = len(rates) - 2
    scatter = math.sqrt(float((residuals**2).sum()) / freedom * float((weights**2).sum()))
    drawn = drawn + scatter * random.standard_t(freedom, size=_DRAWS)
    ends = np.quantile(drawn, [0.025, 0.975])
    least, most = min(float(ends[0]), exponent), max(float(ends[1]), exponent)
    supported = tuple(name for name, power in RULES.items() if least <= power <= most)
    constant = float(np.exp(y.mean() - exponent * x.mean()))
    return RateRule(exponent, least, most, constant, supported)
