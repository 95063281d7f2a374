"""How good a model is on images that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from memfit.data.loading.batch import Batch
from memfit.data.loading.loader import Loader
from memfit.errors import CannotRedo
from memfit.step.ingredients import Ingredients
from memfit.step.outputs import logits_of
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.recovery.out_of_memory import OutOfMemoryKept
from memfit.trainer.recovery.recover import Recovery

__all__ = ["Evaluation", "evaluate", "scores_of"]


@dataclass(frozen=True)
class Evaluation:
    """What a model answered on a split.

    Args:
        loss: mean cross-entropy.
        accuracy: share of right answers.
        confusion: ``[true][answered]``, samples.
        classes: names.
        split: what was asked: ``val``, ``test``, ``train``.
    """

    loss: float
    accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]
    split: str = "test"

    @property
    def samples(self) -> int:
        """How many were asked."""
        return sum(map(sum, self.confusion))

    @property
    def per_class(self) -> dict[str, float | None]:
        """Share of right answers for each class; None where it has no samples."""
        return {
            name: row[number] / sum(row) if sum(row) else None
            for number, (name, row) in enumerate(zip(self.classes, self.confusion, strict=True))
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema_version": 1,
            "split": self.split,
            "samples": self.samples,
            "loss": self.loss,
            "accuracy": self.accuracy,
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
    device, classes = ingredients.device, len(loader.classes)
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    total_loss = torch.zeros((), dtype=torch.float64, device=device)
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
            counts += found
    finally:
        for module, training in modes.items():
            module.training = training
    ranks.sum_tensor(counts)
    ranks.sum_tensor(total_loss)
    table = counts.view(classes, classes).tolist()
    right = sum(table[number][number] for number in range(classes))
    number_of_samples = max(1, int(counts.sum()))
    return Evaluation(
        float(total_loss) / number_of_samples,
        right / number_of_samples,
        tuple(map(tuple, table)),
        loader.classes,
        loader.split.name,
    )


def scores_of(made: Ingredients, inputs: Tensor) -> Tensor:
    """Scores of the classes ``(N, classes)``, float32, by the average where there is one."""
    model = made.model if made.average is None else made.average.module
    # gathered parameters are used again in training, so they must not be inference tensors
    without_gradients = torch.no_grad() if made.is_sharded else torch.inference_mode()
    with without_gradients, made.autocast():
        return logits_of(model(inputs)).float()


def _answers(
    ingredients: Ingredients, loader: Loader, batch: Batch, fitting: Recovery
) -> tuple[Tensor, Tensor]:
    """Summed loss (float64), and samples by ``true * classes + answered``, of a batch."""
    found: tuple[Tensor, Tensor] | None = None
    for attempt in fitting:
        found = None
        with attempt as size:
            for part in batch.split(size):
                loss, counts = _answer(ingredients, loader, part)
                found = (loss, counts) if found is None else (found[0] + loss, found[1] + counts)
    assert found is not None, "a batch has samples"
    return found


def _answer(ingredients: Ingredients, loader: Loader, part: Batch) -> tuple[Tensor, Tensor]:
    inputs, targets = loader.prepare(part, ingredients.device)
    scores = scores_of(ingredients, inputs)
    loss = F.cross_entropy(scores, targets, reduction="sum").double()
    classes = len(loader.classes)
    pairs = targets * classes + scores.argmax(1)
    return loss, torch.bincount(pairs, minlength=classes * classes)


def _answers_together(
    ingredients: Ingredients, loader: Loader, batch: Batch, size: int, ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """As :func:`_answers`, with as many forwards on all ranks; those without samples show blanks.

    Raises:
        CannotRedo: memory ran out.
    """
    device, classes = ingredients.device, len(loader.classes)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    most = int(max(ranks.each(len(batch), device)))
    parts = list(batch.split(size)) if len(batch) else []
    with OutOfMemoryKept():
        for part in parts:
            found = _answer(ingredients, loader, part)
            loss, counts = loss + found[0], counts + found[1]
        for _ in range(-(-most // size) - len(parts)):
            scores_of(ingredients, loader.prepare(loader.blank(1, "cpu"), device)[0])
        return loss, counts
    raise CannotRedo("an evaluation", size)
