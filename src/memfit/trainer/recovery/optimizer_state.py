"""An optimizer's state, made before the first step instead of during it.

A step that runs out of memory while it makes state cannot be repeated: Adam of PyTorch 2.15 then
finds a state with half of its tensors. Made ahead, state is there when the first micro-batch is
tried, so what fits once fits again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from memfit.errors import DoesNotFit
from memfit.torch_inside import state_maker
from memfit.trainer.recovery.out_of_memory import OutOfMemoryKept

__all__ = ["allocate_state"]


def allocate_state(optimizer: torch.optim.Optimizer) -> bool:
    """Give the optimizer the state that its first step would start from; training is the same.

    PyTorch's own optimizers do it by their ``_init_group`` (``torch/optim/*.py``, 2.11 to 2.15),
    which looks only at parameters with a gradient, so each parameter is lent one of zeros. SGD
    starts its momentum from the first gradient: the same as from zeros, but for ``dampening``.

    Returns:
        Whether there is nothing left for the first step to make, as far as can be known.

    Raises:
        DoesNotFit: the state does not fit; the optimizer has none then, as before.
    """
    if optimizer.state:  # resumed, or made by the constructor as Adagrad does
        return True
    init = state_maker(optimizer)
    if init is None:
        return False
    with OutOfMemoryKept() as kept, ExitStack() as unless_all:
        unless_all.callback(optimizer.state.clear)
        are_ready = [
            _allocate_for(parameter, group, optimizer, init)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.requires_grad
        ]
        unless_all.pop_all()
        return all(are_ready)
    raise DoesNotFit(
        f"The optimizer's state does not fit: {kept.message}",
        hint="Take an optimizer with less state, such as SGD or Adafactor, or train fewer layers.",
    )


def _allocate_for(
    parameter: Tensor,
    group: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    init: Callable[..., Any],
) -> bool:
    lists = len(signature(init).parameters) - 1  # what the step would collect; not wanted here
    gradient = parameter.grad
    if gradient is None:
        parameter.grad = torch.zeros_like(parameter)
    try:
        init({**group, "params": [parameter]}, *([] for _ in range(lists)))
    finally:
        parameter.grad = gradient
    if isinstance(optimizer, torch.optim.SGD) and group["momentum"] != 0:
        if group["dampening"] != 0:
            return False
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return True
