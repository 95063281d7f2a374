"""Targets that the forward itself is given, to return its loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from memfit.step.inputs import parameters_of
from memfit.step.outputs import tensors_of
from memfit.step.tensors import Arguments, TensorSpec

__all__ = ["gets_target", "target_parameter", "token_targets"]

#: How a forward calls what its loss compares with.
_TARGETS = ("targets", "target", "labels", "label", "y")


def target_parameter(module: nn.Module, output: Any) -> str | None:
    """The optional parameter that a forward wants the targets as, to return its loss beside them.

    Such a forward returns a tuple with None in the loss's place when it is given none.
    """
    forward = parameters_of(module)
    optional = [n for n in _TARGETS if n in forward.names and n not in forward.required]
    has_a_gap = isinstance(output, tuple) and any(value is None for value in output)
    return optional[0] if optional and has_a_gap else None


def token_targets(inputs: Arguments, output: Any) -> tuple[TensorSpec, ...]:
    """The next token of each token, for a model of tokens that scores some; else none.

    Without targets, such a model may score the last token only (nanoGPT's ``model.py``).
    """
    given = list(inputs.of(TensorSpec))
    is_of_tokens = len(given) == 1 and given[0].dtype == torch.int64 and len(given[0].shape) == 1
    scores = next(iter(tensors_of(output)), None)
    return tuple(given) if is_of_tokens and scores is not None and scores.dim() == 3 else ()


def gets_target(module: nn.Module, inputs: Arguments) -> bool:
    """Whether what a forward is called with has the targets in it, by the parameters' names."""
    names = parameters_of(module).names[: len(inputs.positional)]
    return any(name in _TARGETS for name in (*names, *inputs.named))
