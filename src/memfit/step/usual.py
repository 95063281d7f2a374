"""The loss that is meant where none is named; where an output does not say, the user is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from memfit.errors import AmbiguousOutput, StepError
from memfit.step.losses import Loss, Term
from memfit.step.named_losses import check_batch, check_learnable
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
        gets_target: the target is among the inputs.
    """

    inputs: tuple[TensorSpec, ...] = ()
    classes: int | None = None
    is_listed: bool = False
    gets_target: bool = False


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
        raise StepError(
            f"The model returns {'None' if output is None else type(output).__name__}, in which "
            "there is no tensor.",
            hint="Let its forward return one, or pass your own step in Python.",
        )
    numbers = [n for n, t in found.items() if t.dim() == 0 and t.is_floating_point()]
    if own := _own_losses(numbers, is_alone=len(found) == 1, gets_target=known.gets_target):
        return Loss(tuple(own))
    if numbers:
        raise _beside_number(found, batch, numbers[0])
    if _is_of_equals(output, found):
        raise _several(found, batch)
    try:
        logits = logits_of(output)
    except StepError as error:
        raise AmbiguousOutput(error.message, _answers_for_names(found, batch)) from None
    if known.is_listed:
        return known_loss(output, label_smoothing=label_smoothing)
    if not logits.is_floating_point() and (others := _learnable(found)):
        message = f"The model returns {len(found)} tensors; the first is of whole numbers."
        raise AmbiguousOutput(message, _answers_for_names(others, batch))
    one = _meant(TensorSpec.seen(logits, batch), known, len(found))
    return Loss((Term(one), *_auxiliary(output)), label_smoothing)


def _own_losses(numbers: list[str], *, is_alone: bool, gets_target: bool) -> list[Term]:
    """Of the numbers that a model returns, those that are trained.

    The one called ``loss``, else the sum of those called ``loss_...`` as torchvision's detectors
    return them, else the first; but a number beside the outputs of a model that never sees its
    target is only a part of the loss, or none: a temperature, a penalty.
    """
    parts = [name for name in numbers if name.startswith("loss_")]
    first = numbers[:1] if is_alone or gets_target else []
    chosen = ["loss"] if "loss" in numbers else parts or first
    return [Term(_OWN, None if is_alone else name) for name in chosen]


def _meant(scores: TensorSpec, known: Known, outputs: int = 1) -> str:
    """The loss of the first tensor of some outputs.

    Raises:
        AmbiguousOutput: it can be meant in several ways.
        StepError: nothing can be learnt from it.
    """
    check_learnable(scores)
    if scores.shape not in ((), (1,)):
        check_batch(scores)
    decided = _decided(scores.shape, known) if scores.batch_dim == 0 else None
    if decided is not None:
        return decided
    answers, returned = _answers(scores, known), str(scores)
    if outputs > 1:
        returned = f"{outputs} tensors, the first {scores}"
        answers.append((f"{answers[0][0]}@each", "each of them, with a target of its own shape"))
    raise AmbiguousOutput(
        f"The model returns {returned}; what it is compared with is not known.", answers
    )


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
        is_one = scores.batch_dim is None
        return [(_OWN, "it is the loss")] if is_one else [("mse", "a value"), ("bce", "yes or no")]
    if len(shape) == 2 and scores.batch_dim != 0:
        each = f"{shape[1]} classes for each of {shape[0]} places"
        return [(_TOKENS, each), ("ctc", "a shorter text, with --target"), ("mse", "values")]
    if _is_as_an_input(shape, known):
        again = ("mse", "the input again, or another image")
        return [again, ("bce", "the same, from 0 to 1"), (_ENTROPY, f"{shape[0]} classes")]
    return _answers_for_shape(shape)


def _answers_for_shape(shape: tuple[int, ...]) -> list[tuple[str, str]]:
    """The same of several values for each sample, which are not the input's."""
    if len(shape) == 2:
        return [
            (_TOKENS, f"{shape[1]} classes for each of {shape[0]} places"),
            (_ENTROPY, f"{shape[0]} classes for each of {shape[1]} places"),
            ("mse", "values"),
        ]
    if shape[0] == 1:
        return [("bce", "yes or no for each pixel"), ("mse", "values"), ("dice+bce", "a mask")]
    each = f"{shape[0]} classes" + (" for each pixel" if len(shape) > 1 else "")
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
    last = _answer_for_embeddings(found) or ("bce@each", "masks")
    return AmbiguousOutput(
        f"The model returns {len(names)} tensors {spec}; which of them are trained is not known.",
        [*answers, last],
    )


def _answer_for_embeddings(found: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """What several tensors of one width may be; None where they are not."""
    if len({tensor.shape for tensor in found.values()}) > 1:
        return None
    if len(found) < 2 or next(iter(found.values())).dim() != 2:
        return None
    if len(found) == 3:
        return "triplet", "anchor, positive, negative"
    return "contrastive", "two views or modalities"


def _beside_number(found: Mapping[str, Tensor], batch: int, number: str) -> AmbiguousOutput:
    """A number that has no name of a loss, of a model that is not given the target."""
    others = _learnable({name: tensor for name, tensor in found.items() if name != number})
    answers = [*_answers_for_names(others, batch), (f"{_OWN}@{number}", "the number is all of it")]
    if (embeddings := _answer_for_embeddings(others)) is not None:
        answers.insert(0, embeddings)
    return AmbiguousOutput(
        f"The model returns a number, {number!r}, beside {', '.join(map(repr, others))}; whether "
        "it is the loss is not known.",
        answers,
    )


def _learnable(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in found.items() if tensor.is_floating_point()}


def _answers_for_names(found: Mapping[str, Tensor], batch: int) -> list[tuple[str, str]]:
    """The likeliest loss of each of the first outputs."""
    specs = {name: TensorSpec.seen(tensor, batch) for name, tensor in list(found.items())[:3]}
    answers = {name: _answers(spec, Known())[0] for name, spec in specs.items()}
    return [
        (f"{loss}@{name}", f"{specs[name]}: {meaning}") for name, (loss, meaning) in answers.items()
    ]
