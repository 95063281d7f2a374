"""What a user should know of a run before its first step."""

from __future__ import annotations

from torch import nn

from memfit.data.loading.loader import Loader
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.recovery.transaction import batch_dependent_layers

__all__ = ["notes_of"]


def notes_of(train: Loader, test: Loader | None, model: nn.Module, ranks: Ranks) -> list[str]:
    """What is not as one might think, in sentences.

    Args:
        train: of the training data.
        test: of what is evaluated; None where there is nothing.
        model: that trains.
        ranks: the processes of the run.
    """
    notes = []
    samples, batch = len(train.split), train.batch_size
    if batch > samples:
        notes.append(
            f"A global batch of {batch:,} is more than the {samples:,} images: "
            "each step takes them all."
        )
    seen = train.survey
    if not seen.is_complete and train.recipe.mean == seen.mean:
        notes.append(
            f"Mean and deviation come from {seen.count:,} of {seen.total:,} images; memfit data "
            "measures all of them."
        )
    if ranks.are_many and batch_dependent_layers(model):
        notes.append(
            "BatchNorm takes its statistics from each rank's share of the batch, and its "
            "running statistics from the first rank's, as DistributedDataParallel does."
        )
    if test is None:
        notes.append("The data has no test split with labels: nothing is evaluated.")
    return notes
