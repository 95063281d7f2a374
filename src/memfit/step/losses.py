"""The losses that a recipe can name: what each compares an output with, and how.

A loss is a sum of terms, ``[WEIGHT*]NAME[@OUTPUT]``: ``mse``, ``dice+cross-entropy``,
``cross-entropy@logits+0.4*cross-entropy@aux``, ``bce@each``. The target follows from it: terms that
need the same tensor share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from memfit.errors import StepError
from memfit.recipe.words import parse_terms
from memfit.step.outputs import (
    embeddings_of,
    logits_of,
    loss_in,
    named_output,
    named_outputs,
    tensors_of,
)
from memfit.step.tensors import TensorSpec

__all__ = [
    "LOSSES",
    "Loss",
    "Term",
    "checked_loss",
    "parse_loss",
]


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


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a loss.

    Args:
        name: of :data:`LOSSES`.
        output: the name or the number of what the model returns; ``each`` for all of them; the
            scores where None.
        weight: of the term.
    """

    name: str
    output: str | None = None
    weight: float = 1.0

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"{self.weight:g}*"
        return f"{weight}{self.name}" + (f"@{self.output}" if self.output else "")


@dataclass(frozen=True, slots=True)
class Loss:
    """A sum of terms, which knows what it compares the outputs with.

    Args:
        terms: one or more.
        label_smoothing: of every cross-entropy.

    >>> loss = parse_loss("cross-entropy")
    >>> loss.targets_of(torch.empty(2, 10), 2, torch.float32)
    (TensorSpec(shape=(), dtype=torch.int64, batch_dim=0),)
    """

    terms: tuple[Term, ...]
    label_smoothing: float = 0.0

    def __str__(self) -> str:
        return "+".join(map(str, self.terms))

    @property
    def is_models_own(self) -> bool:
        """Whether the model returns it, so that nothing is compared here."""
        return all(term.name == "none" for term in self.terms)

    def __call__(self, output: Any, target: Any) -> Tensor:
        """The loss.

        Args:
            output: what the model returned.
            target: one tensor, or one for each of :meth:`targets_of`; class numbers may be shares.

        Raises:
            StepError: the model returns no such output.
        """
        targets = target if isinstance(target, (tuple, list)) else (target,)
        places = self._grouped(output, _size(output))[1] if len(targets) > 1 else {}
        loss: Tensor | None = None
        for number, (term, found) in enumerate(self._uses(output)):
            own = targets[places.get(number, 0)]
            if loss is None:
                loss = self._value(term, found, own)
            else:
                loss = loss + self._value(term, found, own)
        assert loss is not None, "a loss has terms"
        return loss

    def _value(self, term: Term, found: Any, target: Any) -> Tensor:
        smoothed = {"label_smoothing": self.label_smoothing}
        more = smoothed if term.name.endswith("cross-entropy") else {}
        value: Tensor = LOSSES[term.name].value(found, target, **more)
        return value if term.weight == 1 else term.weight * value

    def targets_of(self, output: Any, batch: int, floats: torch.dtype) -> tuple[TensorSpec, ...]:
        """What the outputs are compared with, each once.

        Args:
            output: what the model returned for some samples.
            batch: how many.
            floats: of targets that are no class numbers.

        Raises:
            StepError: the model returns no such output, or the loss is of another shape.
        """
        targets, _ = self._grouped(output, batch)
        return tuple(
            spec if spec.dtype == torch.int64 else TensorSpec(spec.shape, floats, spec.batch_dim)
            for spec in targets
        )

    def unused(self, output: Any) -> tuple[str, ...]:
        """Floating-point outputs that no term is of, with their shapes."""
        used = {
            id(tensor)
            for _, found in self._uses(output)
            for tensor in (found if isinstance(found, list) else [found])
        }
        return tuple(
            f"{name} {tuple(tensor.shape[1:])}"
            for name, tensor in named_outputs(output).items()
            if tensor.is_floating_point() and id(tensor) not in used
        )

    def _grouped(self, output: Any, batch: int) -> tuple[list[TensorSpec], dict[int, int]]:
        """The targets, and which of them each use of an output takes, by number.

        Uses that want the same tensor share it: two heads of as many classes, a head and the
        triplets of its embedding; heads of 3 and of 7 classes have labels of their own.
        """
        targets: list[TensorSpec] = []
        kinds: list[tuple[int, ...] | None] = []
        places: dict[int, int] = {}
        uses = list(self._uses(output))
        for number, (term, found) in enumerate(uses):
            spec = self._target(term, found, uses, batch)
            if spec is None:
                continue
            kind = None if isinstance(found, list) else tuple(found.shape)
            alike = (
                place for place, (other, its) in enumerate(zip(targets, kinds, strict=True))
                if other == spec and (kind == its or None in (kind, its))
            )  # fmt: skip
            places[number] = next(alike, len(targets))
            if places[number] == len(targets):
                targets.append(spec)
                kinds.append(kind)
        return targets, places

    def _target(
        self, term: Term, found: Any, uses: list[tuple[Term, Any]], batch: int
    ) -> TensorSpec | None:
        """What one use of an output is compared with."""
        if isinstance(found, list) and len(found) > 1:
            return None
        spec = TensorSpec.seen(found[0] if isinstance(found, list) else found, batch)
        if term.name != "dice":
            return LOSSES[term.name].target(spec)
        # as the term beside it; alone it has classes or one logit
        beside = [other.name for other, its in uses if its is found and other.name != "dice"]
        return LOSSES[beside[0] if beside else _dice_alone(spec)].target(spec)

    def _uses(self, output: Any) -> Iterator[tuple[Term, Any]]:
        """Every term with the output that it is of; a list where it is of several."""
        for term in self.terms:
            kind = LOSSES[term.name]
            if term.output not in (None, "each"):
                one = named_output(term.output, output)
                yield term, [one] if kind.takes_several else one
            elif kind.takes_several:
                yield term, embeddings_of(output)
            elif term.name == "none":
                yield term, loss_in(output)
            elif term.output == "each":
                yield from ((term, found) for found in tensors_of(output))
            else:
                yield term, logits_of(output)


def _size(output: Any) -> int:
    """The first size of what a model returns: the batch, nearly always."""
    return int(next(iter(named_outputs(output).values())).shape[0])


def checked_loss(loss: Any, hint: str | None = None) -> Tensor:
    """What a backward can begin from.

    Args:
        loss: as the user's code or the recipe's loss gave it.
        hint: how to make it one number.

    Raises:
        StepError: it is not one number.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise StepError(f"The loss must be one number; it is {shape}.", hint=hint)
    return loss


# -- the losses ----------------------------------------------------------------------------------


def _class_map(output: TensorSpec) -> TensorSpec:
    """Class numbers: the output's shape without its classes, which come first."""
    if not output.shape:
        raise StepError(
            "The model returns one number for each sample, which is no score of classes.",
            hint="Say the loss: --loss mse (a value), --loss bce (yes or no).",
        )
    return TensorSpec(output.shape[1:], torch.int64, output.batch_dim)


def _class_of_token(output: TensorSpec) -> TensorSpec:
    return TensorSpec(output.shape[:-1], torch.int64, output.batch_dim)


def _alike(output: TensorSpec) -> TensorSpec:
    return TensorSpec(output.shape, torch.float32, output.batch_dim)


def _a_class(output: TensorSpec) -> TensorSpec:
    return TensorSpec((), torch.int64, output.batch_dim)


def _nothing(_output: TensorSpec) -> None:
    return None


def _token_cross_entropy(output: Tensor, target: Tensor, *, label_smoothing: float) -> Tensor:
    return F.cross_entropy(output.flatten(0, -2), target.flatten(), label_smoothing=label_smoothing)


def _cross_entropy(output: Tensor, target: Tensor, *, label_smoothing: float) -> Tensor:
    return F.cross_entropy(output, target, label_smoothing=label_smoothing)


def _dice_alone(output: TensorSpec) -> str:
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


def _ctc(output: Tensor, target: Tensor) -> Tensor:
    """Of ``(T, N, classes)`` scores, blank first, with sequences of full length."""
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


def parse_loss(text: str, *, label_smoothing: float = 0.0) -> Loss:
    """``"cross-entropy@logits+0.4*cross-entropy@aux"`` as a loss.

    Raises:
        UsageError: it is no sum of terms.
        UnknownName: there is no loss of that name.
    """
    terms = (Term(name, output, weight) for weight, name, output in parse_terms(text))
    return Loss(tuple(terms), label_smoothing)
