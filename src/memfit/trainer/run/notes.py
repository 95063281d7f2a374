"""What a user should know of a run before its first step."""

from __future__ import annotations

from torch import nn

from memfit.data.loading.holding_out import PartSplit
from memfit.data.loading.loader import Loader
from memfit.step.job import Job
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.recovery.transaction import batch_dependent_layers

__all__ = ["notes_of"]


def notes_of(
    job: Job, train: Loader, val: Loader | None, model: nn.Module, ranks: Ranks
) -> list[str]:
    """What is not as one might think, in sentences.

    Args:
        job: of the run.
        train: of the training data.
        val: of what decides which weights are best; None where there is nothing.
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
    return notes + _of_splits(job, val)


def _of_splits(job: Job, val: Loader | None) -> list[str]:
    """Where the best weights come from, and what is done with test images."""
    data = job.data.dataset
    notes = []
    if val is None:
        notes.append(
            "Nothing is validated: the data has no val split, and nothing is held out "
            "(--val-share). The last weights are kept."
        )
    elif val.split.name == "test":
        notes.append(
            "The best weights are chosen by the test images, as this run began: they look a little "
            "better on them than on new ones."
        )
    elif isinstance(val.split, PartSplit):
        held, whole = len(val.split), len(val.split.whole)
        notes.append(
            f"{held:,} of {whole:,} training images are held out for validation, the same in every "
            f"run (--val-share {job.recipe.val_share:g})."
        )
    if "test" in data.splits and data.answered("test") is None and data["test"] is not data.train:
        notes.append("The test images have no answers: they are for memfit predict.")
    return notes
