"""How far a run is, and how good it was: what a checkpoint keeps beside the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memfit.data.samples.dataset import Dataset
from memfit.trainer.step.evaluation import Evaluation

__all__ = ["Standing", "followed_split"]


@dataclass
class Standing:
    """Where a run stands.

    Args:
        epoch: from 0.
        position: samples of the epoch that were seen, by all ranks together.
        best: the best score so far.
        best_step: the optimizer step after which it was reached.
        without_better: evaluations since then.
        split: whose score it is; None where nothing is validated.
        last: the last evaluation of this process.
    """

    epoch: int = 0
    position: int = 0
    best: float | None = None
    best_step: int | None = None
    without_better: int = 0
    split: str | None = None
    last: Evaluation | None = None

    def note(self, found: Evaluation, step: int) -> bool:
        """Whether an evaluation is the best so far."""
        is_best = self.best is None or found.facts.is_better(found.score, self.best)
        if is_best:
            self.best, self.best_step = found.score, step
        self.without_better = 0 if is_best else self.without_better + 1
        self.last = found
        return is_best

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        names = ("epoch", "position", "best", "best_step", "without_better", "split")
        return {name: getattr(self, name) for name in names}

    def load(self, values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`to_dict` gave."""
        for name, value in values.items():
            setattr(self, name, value)


def followed_split(state: Mapping[str, Any] | None, dataset: Dataset) -> str:
    """The split whose score decides which weights are best: ``val``.

    Args:
        state: of the checkpoint that a run goes on from; one that was begun by the test split, as
            all were before ``val`` was told from it, goes on so.
        dataset: of the run.
    """
    if state is None:
        return "val"
    before = "val" if dataset.answered("test") is None else "test"
    return state["progress"].get("split", before) or "val"
