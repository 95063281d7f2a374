"""The losses that can be named: what each compares an output with, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from memfit.errors import StepError
from memfit.step.tensors import TensorSpec

__all__ = ["ELEMENTWISE", "LOSSES", "check_batch", "check_learnable", "target_of_dice"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A loss by name.

    Args:
        target: what an output is compared with: of one sample; None where nothing is.
        value: of output and target; of a list of outputs where it takes several.
        takes_several: it is of several outputs at once, or of one.
    """

    target: Callable[[TensorSpec], TensorSpec | None]
    value: Callable[..., Tensor]
    takes_several: bool = False


def check_learnable(output: TensorSpec) -> None:
    """Refuse an output that no loss can be of.

    Raises:
        StepError: it is of whole numbers, yes and no, or complex; or the batch is not in it.
    """
    if not output.dtype.is_floating_point:
        raise StepError(
            f"The model returns {output}, from which nothing can be learnt.",
            hint="A loss needs the real numbers before an argmax or a comparison, and of complex "
            "ones their abs() or torch.view_as_real.",
        )


def _class_map(output: TensorSpec) -> TensorSpec:
    """Class numbers: the output's shape without its classes, which come first."""
    check_batch(output)
    if not output.shape:
        raise StepError(
            "The model returns one number for each sample, which is no score of classes.",
            hint="Say the loss: --loss mse (a value), --loss bce (yes or no).",
        )
    return TensorSpec(output.shape[1:], torch.int64, output.batch_dim)


def check_batch(output: TensorSpec) -> None:
    """Refuse an output in which the batch is no size of its own, or several.

    Raises:
        StepError: it is.
    """
    if output.batch_dim is None:
        raise StepError(
            f"The model returns {output}, in which the batch is no size of its own.",
            hint="Let it return (N, ...) without flattening the batch into other sizes, or pass "
            "your own step in Python.",
        )


def _class_of_token(output: TensorSpec) -> TensorSpec:
    check_batch(output)
    return TensorSpec(output.shape[:-1], torch.int64, output.batch_dim)


def _alike(output: TensorSpec) -> TensorSpec:
    check_batch(output)
    return TensorSpec(output.shape, torch.float32, output.batch_dim)


def _a_class(output: TensorSpec) -> TensorSpec:
    return TensorSpec((), torch.int64, output.batch_dim)


def _nothing(_output: TensorSpec) -> None:
    return None


def _token_cross_entropy(output: Tensor, target: Tensor, *, label_smoothing: float) -> Tensor:
    return F.cross_entropy(output.flatten(0, -2), target.flatten(), label_smoothing=label_smoothing)


def _cross_entropy(output: Tensor, target: Tensor, *, label_smoothing: float) -> Tensor:
    return F.cross_entropy(output, target, label_smoothing=label_smoothing)


def target_of_dice(output: TensorSpec) -> str:
    """The loss whose target a lone dice takes: of classes, or of one logit."""
    return "cross-entropy" if output.shape and output.shape[0] > 1 else "bce"


def _dice(output: Tensor, target: Tensor) -> Tensor:
    """One minus twice the overlap over the sum, a mean over classes (Milletari et al., 2016)."""
    if target.is_floating_point():
        shares = output.sigmoid()
    else:
        shares = output.softmax(1)
        target = F.one_hot(target, output.shape[1]).movedim(-1, 1).to(shares.dtype)
    dims = (0, *range(2, output.dim()))
    overlap = (shares * target).sum(dims)
    total = shares.sum(dims) + target.sum(dims)
    return 1 - ((2 * overlap + 1) / (total + 1)).mean()


def _ctc(output: Tensor, target: Tensor | None) -> Tensor:
    """Of ``(T, N, classes)`` scores, blank first, with sequences of full length."""
    if target is None:
        raise StepError(
            "How long the texts are that --loss ctc compares with is not known.",
            hint="Say it: --target LENGTH:int64, such as --target 20:int64.",
        )
    if output.dim() != 3 or output.shape[1] != len(target):
        raise StepError(
            f"--loss ctc is of (T, N, classes); the model returns {tuple(output.shape)} for "
            f"{len(target)} samples.",
            hint="Of (N, T, classes) let it return .permute(1, 0, 2).",
        )
    time, batch = output.shape[:2]
    lengths: Any = ((time,) * batch, (target.shape[1],) * batch)
    return F.ctc_loss(output.log_softmax(-1), target, *lengths)


def _triplet(outputs: list[Tensor], target: Tensor | None) -> Tensor:
    """Of anchors, positives, negatives; of one ``(N, width)`` the hardest of each (1703.07737)."""
    if len(outputs) == 3:
        anchor, positive, negative = outputs
        return F.triplet_margin_loss(anchor, positive, negative)
    if len(outputs) != 1 or target is None:
        raise StepError(
            f"--loss triplet is of three embeddings (N, width), or of one; there are "
            f"{len(outputs)}."
        )
    distances = torch.cdist(outputs[0], outputs[0])
    alike = target[:, None] == target[None, :]
    furthest = (distances * alike).amax(1)
    nearest = (distances + alike * distances.detach().amax()).amin(1)
    return (furthest - nearest + 1).relu().mean()


def _contrastive(outputs: list[Tensor], _target: Tensor | None) -> Tensor:
    """InfoNCE, both ways, of two embeddings ``(N, width)``; of one, its halves are the views."""
    if len(outputs) > 2:
        raise StepError(
            f"--loss contrastive is of two embeddings (N, width), or of one; there are "
            f"{len(outputs)}."
        )
    first, second = (F.normalize(output, dim=-1) for output in (outputs[0], outputs[-1]))
    scores = first @ second.T / 0.07
    own = torch.arange(len(scores), device=scores.device)
    if len(outputs) == 1:  # a view is not its own partner (SimCLR, 2002.05709)
        alone = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(alone, -torch.inf)
        return F.cross_entropy(scores, own.roll(len(scores) // 2))
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def _as_it_is(output: Tensor, _target: Any) -> Tensor:
    return output


#: Those of a target of the output's shape.
ELEMENTWISE = ("bce", "mse", "l1", "smooth-l1")

#: The losses that can be named.
LOSSES: Mapping[str, _Kind] = {
    "cross-entropy": _Kind(_class_map, _cross_entropy),
    "token-cross-entropy": _Kind(_class_of_token, _token_cross_entropy),
    "bce": _Kind(_alike, F.binary_cross_entropy_with_logits),
    "mse": _Kind(_alike, F.mse_loss),
    "l1": _Kind(_alike, F.l1_loss),
    "smooth-l1": _Kind(_alike, F.smooth_l1_loss),
    "dice": _Kind(_class_map, _dice),
    "ctc": _Kind(_nothing, _ctc),
    "triplet": _Kind(_a_class, _triplet, takes_several=True),
    "contrastive": _Kind(_nothing, _contrastive, takes_several=True),
    "none": _Kind(_nothing, _as_it_is),
}
