"""More than memory limits a batch: the samples that there are, and how many of them still help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MOST_USEFUL_BATCH", "UsefulBatch", "useful_batch"]

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
