"""What is counted while a model answers, by task; and the figures that come of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from memfit.data.loading.targets import TargetKind
from memfit.data.samples.masks import IGNORED

__all__ = ["Counts", "average_precision", "counted", "nothing_counted", "overlaps", "together"]

#: Of some samples: the summed loss (float64), and what adds up (or follows on, of labels).
Counts = tuple[Tensor, Tensor]


def counted(scores: Tensor, targets: Tensor, kind: TargetKind, classes: int) -> Counts:
    """What a model's answers to some samples come to.

    Args:
        scores: ``(N, classes)``, of masks ``(N, classes, H, W)``; float32.
        targets: as the loader delivers them.
        kind: of the targets.
        classes: how many classes, values or labels.

    Returns:
        The loss summed over samples; and pairs by ``true * classes + answered`` of classes and
        masks, absolute errors of each of the values, ``(N, 2 * classes)`` scores and targets of
        labels.
    """
    if kind.task == "values":
        targets = targets.float()
        loss = F.mse_loss(scores, targets) * len(scores)
        return loss.double(), (scores - targets).abs().sum(0, dtype=torch.float64)
    if kind.task == "labels":
        loss = F.binary_cross_entropy_with_logits(scores, targets.float()) * len(scores)
        return loss.double(), torch.cat([scores, targets.float()], 1)
    if not kind.is_mask:
        loss = F.cross_entropy(scores, targets, reduction="sum").double()
        return loss, _pairs(scores.argmax(1), targets, classes)
    counts = targets != IGNORED
    total = F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum").double()
    loss = total / counts.sum().clamp(min=1) * len(scores)
    return loss, _pairs(scores.argmax(1)[counts], targets[counts], classes)


def _pairs(answers: Tensor, targets: Tensor, classes: int) -> Tensor:
    return torch.bincount(targets * classes + answers, minlength=classes * classes)


def nothing_counted(kind: TargetKind, classes: int, device: torch.device) -> Counts:
    """Of no samples, what :func:`counted` gives."""
    shapes = {"values": (classes,), "labels": (0, 2 * classes)}
    dtypes = {"values": torch.float64, "labels": torch.float32}
    shape, dtype = shapes.get(kind.task, (classes**2,)), dtypes.get(kind.task, torch.int64)
    none = torch.zeros(shape, dtype=dtype, device=device)
    return torch.zeros((), dtype=torch.float64, device=device), none


def together(kind: TargetKind, parts: Sequence[Tensor]) -> Tensor:
    """The second of :func:`counted` of several parts as that of all of them."""
    return torch.cat(list(parts)) if kind.task == "labels" else torch.stack(list(parts)).sum(0)


def overlaps(confusion: Sequence[Sequence[int]]) -> tuple[float | None, ...]:
    """Intersection over union of each class (Jaccard's index); None where it never occurs.

    Args:
        confusion: ``[true][answered]``, pixels.

    >>> overlaps([[2, 1], [0, 1]])
    (0.6666666666666666, 0.5)
    """
    answered = [sum(column) for column in zip(*confusion, strict=True)]
    unions = [sum(row) + answered[n] - row[n] for n, row in enumerate(confusion)]
    return tuple(confusion[n][n] / union if union else None for n, union in enumerate(unions))


def average_precision(scores: Tensor, targets: Tensor) -> float | None:
    """The mean of precision over recall: at each score, weighted by the recall that it adds.

    As ``average_precision_score`` of scikit-learn 1.5 (``metrics/_ranking.py``): samples with the
    same score come together.

    Args:
        scores: ``(N,)``.
        targets: ``(N,)``, 0 or 1.

    Returns:
        None where no target is 1.

    >>> average_precision(torch.tensor([0.9, 0.8, 0.1]), torch.tensor([1.0, 0.0, 1.0]))
    0.8333333333333333
    """
    positives = int(targets.sum())
    if not positives:
        return None
    order = scores.argsort(descending=True, stable=True)
    ranked, right = scores[order], targets[order].double().cumsum(0)
    is_last = torch.ones(len(ranked), dtype=torch.bool)
    is_last[:-1] = ranked[1:] != ranked[:-1]  # of those with the same score
    places = torch.nonzero(is_last)[:, 0]
    found = right[places]
    precision = found / (places + 1)
    added = torch.diff(found, prepend=torch.zeros(1, dtype=torch.float64))
    return float((precision * added).sum() / positives)
