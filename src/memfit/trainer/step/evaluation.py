"""How good a model is on images that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Any

import torch
from torch import Tensor

from memfit.data.loading.batch import Batch
from memfit.data.loading.loader import Loader
from memfit.errors import CannotRedo
from memfit.recipe.fields import Task
from memfit.recipe.tasks import TASKS, TaskFacts
from memfit.step.ingredients import Ingredients
from memfit.step.outputs import logits_of
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.recovery.out_of_memory import OutOfMemoryKept
from memfit.trainer.recovery.recover import Recovery
from memfit.trainer.step.tally import (
    Counts,
    average_precision,
    counted,
    nothing_counted,
    overlaps,
    together,
)

__all__ = ["Evaluation", "evaluate", "scores_of"]


@dataclass(frozen=True)
class Evaluation:
    """What a model answered on a split.

    Args:
        loss: a mean over samples: cross-entropy, mean squared error or binary cross-entropy.
        accuracy: share of right answers, of samples or of pixels; None where answers are numbers.
        confusion: ``[true][answered]``, samples or pixels; empty where answers are numbers.
        classes: names of the classes, the values or the labels.
        split: what was asked: ``val``, ``test``, ``train``.
        task: what it was asked for.
        asked: how many samples; as many as are in the confusion when omitted.
        parts: the task's figure of each of ``classes``, where it is not in the confusion.
    """

    loss: float
    accuracy: float | None
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]
    split: str = "test"
    task: Task = "classes"
    asked: int | None = None
    parts: tuple[float | None, ...] = ()

    @property
    def samples(self) -> int:
        """How many were asked."""
        return sum(map(sum, self.confusion)) if self.asked is None else self.asked

    @property
    def facts(self) -> TaskFacts:
        """What decides between two evaluations, and how it is told."""
        return TASKS[self.task]

    @property
    def score(self) -> float:
        """What decides which weights are best: see :data:`memfit.recipe.tasks.TASKS`."""
        if self.task == "classes":
            assert self.accuracy is not None, "classes are right or wrong"
            return self.accuracy
        known = [part for part in self.per_class.values() if part is not None]
        return sum(known) / len(known) if known else math.nan

    @property
    def per_class(self) -> dict[str, float | None]:
        """The task's figure of each class, value or label; None where it has no samples."""
        parts: Sequence[float | None] = self.parts
        if self.task == "masks":
            parts = overlaps(self.confusion)
        elif self.task == "classes":
            parts = [
                row[n] / sum(row) if sum(row) else None for n, row in enumerate(self.confusion)
            ]
        return dict(zip(self.classes, parts, strict=True))

    @property
    def record(self) -> dict[str, Any]:
        """What a line of metrics says."""
        facts = self.facts
        found = {"split": self.split, "loss": self.loss, facts.metric: self.score}
        if self.task == "classes":
            return found
        pixels = {} if self.accuracy is None else {"pixel_accuracy": self.accuracy}
        return found | pixels | {"metric": facts.metric}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema_version": 1,
            "task": self.task,
            "samples": self.samples,
            **self.record,
            "per_class": self.per_class,
            "classes": list(self.classes),
            "confusion": [list(row) for row in self.confusion],
        }


def evaluate(
    ingredients: Ingredients, loader: Loader, fitting: Recovery, ranks: Ranks | None = None
) -> Evaluation:
    """Ask a model for every sample of a split; survives out-of-memory with smaller batches.

    Args:
        ingredients: the model, or its average.
        loader: of the split; it has no augmentation.
        fitting: the sizes that evaluation tries, its own.
        ranks: each asks for its share.
    """
    ranks = ranks or Ranks()
    device, classes, kind = ingredients.device, len(loader.classes), loader.target
    total_loss, counts = nothing_counted(kind, classes, device)
    found_counts, asked = [counts], 0
    modes = {module: module.training for module in ingredients.model.modules()}
    ingredients.model.eval()
    if ingredients.average is not None:
        ingredients.average.eval()
    try:
        for batch in loader.batches(0):
            if ingredients.is_sharded:
                loss, found = _answers_together(ingredients, loader, batch, fitting.size, ranks)
            elif len(batch):
                loss, found = _answers(ingredients, loader, batch, fitting)
            else:
                continue  # another rank has the last samples
            total_loss += loss
            found_counts.append(found)
            asked += len(batch)
    finally:
        for module, training in modes.items():
            module.training = training
    counts = together(kind, found_counts)
    if kind.task == "labels":
        counts = torch.cat(list(ranks.gather(counts.cpu())))
    else:
        ranks.sum_tensor(counts)
    ranks.sum_tensor(total_loss)
    asked = sum(ranks.gather(asked))
    return _evaluation(loader, float(total_loss) / max(1, asked), counts, asked)


def _evaluation(loader: Loader, loss: float, counts: Tensor, asked: int) -> Evaluation:
    kind, classes = loader.target, len(loader.classes)
    told = partial(
        Evaluation, loss=loss, classes=loader.classes, split=loader.split.name, task=kind.task,
        asked=asked,
    )  # fmt: skip
    if kind.task == "values":
        parts = tuple((counts / max(1, asked)).tolist())
        return told(accuracy=None, confusion=(), parts=parts)
    if kind.task == "labels":
        scores, targets = counts[:, :classes].T, counts[:, classes:].T
        pairs = zip(scores, targets, strict=True)
        return told(accuracy=None, confusion=(), parts=tuple(starmap(average_precision, pairs)))
    table = counts.view(classes, classes).tolist()
    right = sum(table[number][number] for number in range(classes))
    accuracy = right / max(1, int(counts.sum()))
    return told(accuracy=accuracy, confusion=tuple(map(tuple, table)))


def scores_of(made: Ingredients, inputs: Tensor) -> Tensor:
    """Scores of the classes ``(N, classes)``, float32, by the average where there is one."""
    model = made.model if made.average is None else made.average.module
    # gathered parameters are used again in training, so they must not be inference tensors
    without_gradients = torch.no_grad() if made.is_sharded else torch.inference_mode()
    with without_gradients, made.autocast():
        return logits_of(model(inputs)).float()


def _answers(ingredients: Ingredients, loader: Loader, batch: Batch, fitting: Recovery) -> Counts:
    """What the answers to a batch come to, see :func:`~memfit.trainer.step.tally.counted`."""
    found: list[Counts] = []
    for attempt in fitting:
        found = []
        with attempt as size:
            found = [_answer(ingredients, loader, part) for part in batch.split(size)]
    return _added(loader, found)


def _answer(ingredients: Ingredients, loader: Loader, part: Batch) -> Counts:
    inputs, targets = loader.prepare(part, ingredients.device)
    scores = scores_of(ingredients, inputs)
    return counted(scores, targets, loader.target, len(loader.classes))


def _added(loader: Loader, found: Sequence[Counts]) -> Counts:
    losses, counts = zip(*found, strict=True)
    return torch.stack(losses).sum(), together(loader.target, counts)


def _answers_together(
    ingredients: Ingredients, loader: Loader, batch: Batch, size: int, ranks: Ranks
) -> Counts:
    """As :func:`_answers`, with as many forwards on all ranks; those without samples show blanks.

    Raises:
        CannotRedo: memory ran out.
    """
    device = ingredients.device
    found = [nothing_counted(loader.target, len(loader.classes), device)]
    most = int(max(ranks.each(len(batch), device)))
    parts = list(batch.split(size)) if len(batch) else []
    with OutOfMemoryKept():
        found += [_answer(ingredients, loader, part) for part in parts]
        for _ in range(-(-most // size) - len(parts)):
            scores_of(ingredients, loader.prepare(loader.blank(1, "cpu"), device)[0])
        return _added(loader, found)
    raise CannotRedo("an evaluation", size)
