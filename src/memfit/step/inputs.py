"""What a forward pass is called with: said, shown by the user's example, or the model's own."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from memfit.errors import StepError, UsageError
from memfit.models import BuiltModel
from memfit.recipe.precision import weights_dtype
from memfit.recipe.recipe import Recipe
from memfit.recipe.words import TensorWord, parse_tensor
from memfit.step.tensors import Arguments, TensorSpec

__all__ = ["example_inputs", "inputs_of", "parameters_of", "said_targets"]


def inputs_of(recipe: Recipe, built: BuiltModel) -> Arguments:
    """What the model is called with.

    Args:
        recipe: its ``input``, ``input_shape`` or ``input_ids``.
        built: the model, its own shape, and its author's example.

    Raises:
        UsageError: it is not known, or the forward has no such parameter.
    """
    floats, forward = weights_dtype(recipe.precision), parameters_of(built.module)
    if recipe.input:
        return _matched([parse_tensor(word) for word in recipe.input], forward, floats)
    is_said = recipe.input_ids is not None or recipe.input_shape is not None
    if not is_said and built.example is not None:
        return example_inputs(built.example)
    shape = recipe.input_shape or built.default_input_shape
    if recipe.input_ids is not None or built.kind == "token":
        return _tokens(recipe.input_ids, shape, forward, has_labels=built.task == "seq2seq-lm")
    if shape is None:
        raise UsageError(
            "The input shape is not known.",
            hint="Give one sample's: --input-shape 3x224x224 (input_shape=(3, 224, 224)), "
            "--input-ids LENGTH for tokens, or --input NAME=SHAPE for each of several.",
        )
    _check_one(forward)
    return Arguments((TensorSpec(tuple(shape), floats),))


def _tokens(
    length: int | None, shape: Sequence[int] | None, forward: _Forward, *, has_labels: bool
) -> Arguments:
    """Token numbers; an encoder-decoder makes its decoder's of the labels, as many."""
    if length is None:
        if shape is None or len(shape) != 1:
            raise UsageError("This model reads tokens.", hint="Pass input_ids=LENGTH.")
        length = shape[0]
    _check_one(forward)
    ids = TensorSpec((length,), torch.int64)
    if has_labels:
        return Arguments((), {"input_ids": ids, "labels": ids})
    if "input_ids" in forward.names or (forward.takes_any_name and not forward.names):
        return Arguments((), {"input_ids": ids})
    return Arguments((ids,))


class _Forward:
    """The parameters of a forward.

    Attributes:
        names: those that can be given by name.
        required: those without a default.
        takes_any_name: it has ``**kwargs``.
        takes_by_order: something can be given without a name.
        is_torchs: of a module of PyTorch's own, such as a Sequential: it takes no dict.
    """

    def __init__(self, signature: inspect.Signature | None, *, is_torchs: bool) -> None:
        self.is_torchs = is_torchs
        known = [] if signature is None else list(signature.parameters.values())
        open_kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        own = [p for p in known if p.kind not in open_kinds]
        self.names = [p.name for p in own if p.kind is not p.POSITIONAL_ONLY]
        self.required = [p.name for p in own if p.default is p.empty]
        by_order = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    inspect.Parameter.POSITIONAL_ONLY)  # fmt: skip
        self.takes_by_order = not known or any(p.kind in by_order for p in known)
        self.takes_any_name = any(p.kind is p.VAR_KEYWORD for p in known)


def parameters_of(module: nn.Module) -> _Forward:
    """What a module's forward can be called with."""
    is_torchs = type(module).__module__.startswith("torch.nn.")
    try:
        return _Forward(inspect.signature(module.forward), is_torchs=is_torchs)
    except (TypeError, ValueError):  # in C
        return _Forward(None, is_torchs=is_torchs)


def _check_one(forward: _Forward) -> None:
    """Refuse a model that takes more than the one tensor that was said, or that by name only."""
    if not forward.takes_by_order:
        name = forward.required[0] if forward.required else "NAME"
        raise UsageError(
            "The model's forward takes its inputs by name only; one input shape was given.",
            hint=f"Say it: --input {name}=SHAPE, such as {name}=3x224x224.",
        )
    if len(forward.required) > 1:
        shapes = " ".join(f"--input {name}=..." for name in forward.required)
        raise UsageError(
            f"The model's forward takes {', '.join(forward.required)}; one input shape was given.",
            hint=f"Say each: {shapes}, such as {forward.required[0]}=3x224x224 or "
            f"{forward.required[-1]}=64:int64. Or put an example_batch(batch_size) beside the "
            "model.",
        )


def _matched(words: Sequence[TensorWord], forward: _Forward, floats: torch.dtype) -> Arguments:
    """Tensors given by name or by order; a name that is repeated is a list."""
    positional = tuple(_spec(word, floats) for word in words if word.name is None)
    grouped: dict[str, list[TensorSpec]] = defaultdict(list)
    for word in words:
        if word.name is not None:
            grouped[word.name].append(_spec(word, floats))
    named = {name: specs[0] if len(specs) == 1 else specs for name, specs in grouped.items()}
    unknown = [name for name in named if name not in forward.names]
    if not unknown or forward.takes_any_name:
        missing = [n for n in forward.required[len(positional) :] if n not in named]
        if missing:
            raise UsageError(
                f"The model's forward also takes {', '.join(missing)}.",
                hint=f"Say it: --input {missing[0]}=SHAPE, such as {missing[0]}=3x224x224.",
            )
        return Arguments(positional, named)
    is_one = len(unknown) == len(named) and not positional and len(forward.required) == 1
    if is_one and not forward.is_torchs:
        return Arguments((named,))  # one dict
    raise UsageError(
        f"The model's forward has no {unknown[0]!r}.",
        hint=f"It takes: {', '.join(forward.names)}."
        if forward.names
        else "It takes its inputs without names: --input 3x224x224.",
    )


def _spec(word: TensorWord, floats: torch.dtype) -> TensorSpec:
    dtype = floats if word.dtype is None else getattr(torch, word.dtype)
    return TensorSpec(word.shape, dtype, word.batch_dim)


def said_targets(recipe: Recipe) -> tuple[TensorSpec, ...]:
    """What the recipe says that the loss compares with."""
    floats = weights_dtype(recipe.precision)
    return tuple(_spec(parse_tensor(word), floats) for word in recipe.target if word != "input")


#: Two numbers of samples that show which size of a tensor is the batch.
_EXAMPLES = (2, 3)


def example_inputs(example: Callable[[int], Any]) -> Arguments:
    """What ``example_batch(batch_size)`` shows: its tensors at two sizes tell where the batch is.

    Args:
        example: returns what the forward gets: a tensor, a tuple of positional arguments, or a
            dict of named ones.

    Raises:
        StepError: its tensors do not follow the batch.
    """
    few, more = (_called_with(example(size)) for size in _EXAMPLES)
    others = iter(list(more.of(Tensor)))
    return few.map(Tensor, lambda tensor: _between(tensor, next(others)))


def _called_with(shown: Any) -> Arguments:
    if isinstance(shown, dict):
        return Arguments((), shown)
    return Arguments(shown if isinstance(shown, tuple) else (shown,))


def _between(few: Tensor, more: Tensor) -> TensorSpec:
    sizes = list(zip(few.shape, more.shape, strict=False))
    grown = [place for place, pair in enumerate(sizes) if pair == _EXAMPLES]
    others = [place for place, (a, b) in enumerate(sizes) if a != b and place not in grown]
    if few.dim() != more.dim() or len(grown) > 1 or others:
        raise StepError(
            f"example_batch makes {tuple(few.shape)} for {_EXAMPLES[0]} samples and "
            f"{tuple(more.shape)} for {_EXAMPLES[1]}: which size is the batch is not seen.",
            hint="One size of each tensor must be batch_size, and the others must not change.",
        )
    if not grown:
        return TensorSpec(tuple(few.shape), few.dtype, None)
    place = grown[0]
    return TensorSpec((*few.shape[:place], *few.shape[place + 1 :]), few.dtype, place)
