"""The loss that is meant where none is named; where an output does not say, the user is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from memfit.errors import AmbiguousOutput, StepError
from memfit.step.losses import Loss, Term
from memfit.step.outputs import logits_of, named_outputs
from memfit.step.tensors import TensorSpec

__all__ = ["Known", "known_loss", "usual_loss"]

#: Weights of auxiliary heads: of their papers; of torchvision's references/segmentation/train.py.
_AUXILIARY = {"InceptionOutputs": 0.4, "GoogLeNetOutputs": 0.3}
_AUXILIARY_MAP = 0.5

_ENTROPY, _TOKENS, _OWN = "cross-entropy", "token-cross-entropy", "none"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a model beside its output.

    Args:
        inputs: what it is given.
        classes: that were asked for, or that the data has.
        is_listed: it is of a library, whose models are known to score classes.
    """

    inputs: tuple[TensorSpec, ...] = ()
    classes: int | None = None
    is_listed: bool = False


def known_loss(output: Any, *, label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy over what the common libraries return, with the heads they are known to have.

    Args:
        output: what the model returned.
        label_smoothing: of the cross-entropies.

    Raises:
        StepError: there are no scores in the output.
    """
    logits = logits_of(output)
    # Hugging Face's language models put the classes last: (N, tokens, vocabulary)
    name = _TOKENS if logits.dim() == 3 and isinstance(output, Mapping) else _ENTROPY
    return Loss((Term(name), *_auxiliary(output)), label_smoothing)


def _auxiliary(output: Any) -> list[Term]:
    if isinstance(output, Mapping):
        has_one = isinstance(output.get("aux"), Tensor) and "out" in output
        return [Term(_ENTROPY, "aux", _AUXILIARY_MAP)] if has_one else []
    weight = _AUXILIARY.get(type(output).__name__)
    if weight is None:
        return []
    heads = enumerate(output)
    return [Term(_ENTROPY, str(n), weight) for n, head in heads if n and isinstance(head, Tensor)]


def usual_loss(output: Any, batch: int, known: Known, *, label_smoothing: float = 0.0) -> Loss:
    """The loss that is meant by what a model returns.

    Args:
        output: what the model returned for some samples.
        batch: how many.
        known: what else is known of the model.
        label_smoothing: of the cross-entropies.

    Raises:
        AmbiguousOutput: the output can be meant in several ways.
        StepError: there is nothing in it to learn from.
    """
    found = named_outputs(output)
    if not found:
        raise StepError("The model returns no tensor.", hint="Pass your own loss or step.")
    numbers = [n for n, t in found.items() if t.dim() == 0 and t.is_floating_point()]
    if numbers:
        return Loss(tuple(_own_losses(numbers, is_alone=len(found) == 1)))
    if _is_of_equals(output, found):
        raise _several(found, batch)
    try:
        logits = logits_of(output)
    except StepError as error:
        raise AmbiguousOutput(error.message, _answers_for_names(found, batch)) from None
    if known.is_listed:
        return known_loss(output, label_smoothing=label_smoothing)
    one = _meant(TensorSpec.seen(logits, batch), known)
    return Loss((Term(one), *_auxiliary(output)), label_smoothing)


def _own_losses(numbers: list[str], *, is_alone: bool) -> list[Term]:
    """Of the numbers that a model returns, those that are trained.

    The one called ``loss``, else the sum of those called ``loss_...`` as torchvision's detectors
    return them, else the first.
    """
    parts = [name for name in numbers if name.startswith("loss_")]
    chosen = ["loss"] if "loss" in numbers else parts or numbers[:1]
    return [Term(_OWN, None if is_alone else name) for name in chosen]


def _meant(scores: TensorSpec, known: Known) -> str:
    """The loss of one tensor.

    Raises:
        AmbiguousOutput: it can be meant in several ways.
    """
    if not scores.dtype.is_floating_point:
        raise StepError(f"The model returns {scores}, from which nothing can be learnt.")
    decided = _decided(scores.shape, known) if scores.batch_dim == 0 else None
    if decided is None:
        raise AmbiguousOutput(
            f"The model returns {scores}; what it is compared with is not known.",
            _answers(scores, known),
        )
    return decided


def _decided(shape: tuple[int, ...], known: Known) -> str | None:
    """What the shape of one sample says; None where it can be meant in several ways."""
    if shape in ((), (1,)):
        return None
    first_are_classes = known.classes == shape[0]
    if len(shape) == 2 and first_are_classes != (known.classes == shape[1]):
        return _ENTROPY if first_are_classes else _TOKENS
    if len(shape) != 2 and first_are_classes:
        return _ENTROPY
    if _is_as_an_input(shape, known):
        return None
    if len(shape) == 1:
        return _ENTROPY
    numbers = [spec for spec in known.inputs if not spec.dtype.is_floating_point]
    are_tokens = len(shape) == 2 and any(spec.shape == shape[:1] for spec in numbers)
    return _TOKENS if are_tokens else None


def _is_as_an_input(shape: tuple[int, ...], known: Known) -> bool:
    return any(prod(spec.shape) == prod(shape) for spec in known.inputs)


def _answers(scores: TensorSpec, known: Known) -> list[tuple[str, str]]:
    """The likeliest losses of one tensor, and what each would mean."""
    shape = scores.shape
    if shape in ((), (1,)):
        return [("mse", "a value"), ("bce", "yes or no"), (_OWN, "it is the loss")]
    if len(shape) == 2 and scores.batch_dim != 0:
        each = f"{shape[1]} classes for each of {shape[0]} places"
        return [(_TOKENS, each), ("ctc", "a shorter text, with --target"), ("mse", "values")]
    if _is_as_an_input(shape, known):
        again = ("mse", "the input again, or another image")
        return [again, ("bce", "the same, from 0 to 1"), (_ENTROPY, f"{shape[0]} classes")]
    if len(shape) == 2:
        return [
            (_TOKENS, f"{shape[1]} classes for each of {shape[0]} places"),
            (_ENTROPY, f"{shape[0]} classes for each of {shape[1]} places"),
            ("mse", "values"),
        ]
    if shape[0] == 1:
        return [("bce", "yes or no for each pixel"), ("mse", "values"), ("dice+bce", "a mask")]
    each = f"{shape[0]} classes for each pixel"
    return [(_ENTROPY, each), ("bce", "yes or no for each value"), ("mse", "values")]


def _is_of_equals(output: Any, found: Mapping[str, Tensor]) -> bool:
    """Several tensors of one shape, none of which is known to be the first."""
    if isinstance(output, (Tensor, Mapping)) or type(output).__name__ in _AUXILIARY:
        return False
    return len(found) > 1 and len({tensor.shape for tensor in found.values()}) == 1


def _several(found: Mapping[str, Tensor], batch: int) -> AmbiguousOutput:
    names, one = list(found), next(iter(found.values()))
    spec = TensorSpec.seen(one, batch)
    answers = [
        (f"{_ENTROPY}@each", "each is compared with the target"),
        (f"{_ENTROPY}@{names[0]}", "only the first is"),
    ]
    if len(spec.shape) == 1:
        last = ("triplet", "anchor, positive, negative") if len(names) == 3 else (
            "contrastive", "two views or modalities")  # fmt: skip
    else:
        last = ("bce@each", "masks")
    return AmbiguousOutput(
        f"The model returns {len(names)} tensors {spec}; which of them are trained is not known.",
        [*answers, last],
    )


def _answers_for_names(found: Mapping[str, Tensor], batch: int) -> list[tuple[str, str]]:
    named = list(found.items())[:3]
    return [(f"{_ENTROPY}@{name}", str(TensorSpec.seen(tensor, batch))) for name, tensor in named]
