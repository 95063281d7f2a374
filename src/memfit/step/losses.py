"""The losses that a recipe can name: what each compares an output with, and how.

A loss is a sum of terms, ``[WEIGHT*]NAME[@OUTPUT]``: ``mse``, ``dice+cross-entropy``,
``cross-entropy@logits+0.4*cross-entropy@aux``, ``bce@each``. The target follows from it: terms that
need the same tensor share one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memfit.errors import StepError
from memfit.recipe.words import parse_terms
from memfit.step.named_losses import ELEMENTWISE, LOSSES, check_learnable, target_of_dice
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
    "Loss",
    "Term",
    "checked_loss",
    "parse_loss",
]


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a loss.

    Args:
        name: of :data:`~memfit.step.named_losses.LOSSES`.
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
        if isinstance(target, Tensor) and isinstance(found, Tensor):
            _check_shapes(term, found, target)
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

    def unused(self, output: Any, batch: int) -> tuple[str, ...]:
        """Floating-point outputs of a batch that no term is of, with their shapes."""
        used = {
            id(tensor)
            for _, found in self._uses(output)
            for tensor in (found if isinstance(found, list) else [found])
        }
        return tuple(
            f"{name} {TensorSpec.seen(tensor, batch)}"
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
        check_learnable(spec)
        if term.name != "dice":
            return LOSSES[term.name].target(spec)
        # as the term beside it; alone it has classes or one logit
        beside = [other.name for other, its in uses if its is found and other.name != "dice"]
        return LOSSES[beside[0] if beside else target_of_dice(spec)].target(spec)

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


def _check_shapes(term: Term, output: Tensor, target: Tensor) -> None:
    """Refuse a target of another shape, which torch would broadcast to the output's.

    Raises:
        StepError: it is neither what the loss wants of the output nor, as shares, of its shape.
    """
    shape = tuple(output.shape)
    wanted = {"cross-entropy": (shape[:1] + shape[2:], shape), "token-cross-entropy": (shape[:-1],)}
    wanted["dice"] = wanted["cross-entropy"]
    if term.name in ELEMENTWISE:
        wanted[term.name] = (shape,)
    if tuple(target.shape) not in wanted.get(term.name, (tuple(target.shape),)):
        raise StepError(
            f"--loss {term} compares {shape}, which the model returns, with a target of "
            f"{tuple(target.shape)}.",
            hint=f"Its target is {' or '.join(map(str, wanted[term.name]))}.",
        )


def _size(output: Any) -> int:
    """The first size of what a model returns: the batch, nearly always."""
    return int(next(iter(named_outputs(output).values())).shape[0])


def checked_loss(loss: Any, hint: str | None = None) -> Tensor:
    """What a backward can begin from.

    Args:
        loss: as the user's code or the recipe's loss gave it.
        hint: how to make it one number.

    Raises:
        StepError: it is not one number, or of nothing that trains.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise StepError(f"The loss must be one number; it is {shape}.", hint=hint)
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise StepError(
            "The loss depends on nothing that trains.",
            hint="Look for no_grad, detach(), argmax or .data between parameters and output.",
        )
    return loss


def parse_loss(text: str, *, label_smoothing: float = 0.0) -> Loss:
    """``"cross-entropy@logits+0.4*cross-entropy@aux"`` as a loss.

    Raises:
        UsageError: it is no sum of terms.
        UnknownName: there is no loss of that name.
    """
    terms = (Term(name, output, weight) for weight, name, output in parse_terms(text))
    return Loss(tuple(terms), label_smoothing)
