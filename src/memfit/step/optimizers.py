"""Optimizers by name: PyTorch's own, Lion, and those that keep their state in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from memfit.errors import MemfitError, UnknownName, UsageError

__all__ = [
    "EightBit",
    "Lion",
    "build_optimizer",
    "is_adaptive",
    "optimizer_name",
    "optimizer_names",
]

OptimizerSpec = str | Mapping[str, Any] | Callable[..., Any]


class Lion(Optimizer):
    """One state per parameter, updated by sign (Chen et al. 2023, arXiv 2302.06675, program 1)."""

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)
        return None if closure is None else closure()

    def _update(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["exp_avg"] = torch.zeros_like(p)
        beta1, beta2 = group["betas"]
        p.mul_(1 - group["lr"] * group["weight_decay"])
        update = state["exp_avg"].mul(beta1).add_(p.grad, alpha=1 - beta1).sign_()
        p.add_(update, alpha=-group["lr"])
        state["exp_avg"].mul_(beta2).add_(p.grad, alpha=1 - beta2)


class EightBit(Optimizer):
    """The memory of an optimizer that keeps its state in 8 bits, block by block.

    State tensors of at least 4,096 elements take one byte an element and one float32 for each
    block of 256; smaller ones stay float32. The update is one kernel without temporaries.
    Source: ``Optimizer2State.init_state`` in bitsandbytes 0.43 to 0.48 (``optim/optimizer.py``).
    Only the memory is modelled: ``step`` changes no weights.

    Args:
        params: the parameters.
        states: state tensors per parameter (Adam 2, Lion and SGD with momentum 1).
        lr: not used.
    """

    def __init__(self, params: Any, states: int = 2, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})
        self._states = states
        self._code_books: list[Tensor] = []

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make the state of every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and not self.state[p]:
                    self._make_state(p)
        return None if closure is None else closure()

    def _make_state(self, p: Tensor) -> None:
        if not self._code_books:
            self._code_books = [torch.empty(256, device=p.device) for _ in range(self._states)]
        for number in range(self._states):
            state = self.state[p]
            if p.numel() < 4096:
                state[f"state{number}"] = torch.zeros_like(p, dtype=torch.float32)
                continue
            state[f"state{number}"] = torch.zeros_like(p, dtype=torch.uint8)
            state[f"absmax{number}"] = torch.zeros(-(-p.numel() // 256), device=p.device)
            state[f"code{number}"] = self._code_books[number]


_OURS: dict[str, tuple[Callable[..., Optimizer], dict[str, Any]]] = {
    "lion": (Lion, {}),
    "adam8bit": (EightBit, {"states": 2}),
    "adamw8bit": (EightBit, {"states": 2}),
    "lion8bit": (EightBit, {"states": 1}),
    "sgd8bit": (EightBit, {"states": 1}),
}


def _known() -> dict[str, tuple[Callable[..., Optimizer], dict[str, Any]]]:
    """Every first-order optimizer of the installed torch and ours, with what is set for it."""
    left_out = {"Optimizer", "LBFGS", "SparseAdam"}  # a base class, a closure, sparse gradients
    return {
        name.lower(): (value, {})
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, Optimizer) and name not in left_out
    } | _OURS


def optimizer_names() -> list[str]:
    """The names that :func:`build_optimizer` knows."""
    return sorted(_known())


def optimizer_name(spec: OptimizerSpec) -> str:
    """How to call an optimizer in a result.

    >>> optimizer_name({"name": "SGD", "momentum": 0.9})
    'sgd'
    """
    if isinstance(spec, str):
        return spec.rpartition("<locals>.")[2].lower()  # of a factory of the user's
    if isinstance(spec, Mapping):
        return str(spec.get("name", "")).lower()
    return getattr(spec, "__name__", type(spec).__name__).lower()


def is_adaptive(spec: OptimizerSpec) -> bool:
    """Whether the square-root rule for the learning rate applies (Adam-like)."""
    return not any(optimizer_name(spec).startswith(n) for n in ("sgd", "asgd"))


def build_optimizer(spec: OptimizerSpec, parameters: Iterable[Tensor]) -> Optimizer:
    """An optimizer over ``parameters``.

    Raises:
        UnknownName: no optimizer of that name.
        UsageError: it does not take the given options.
    """
    if callable(spec) and not isinstance(spec, (str, Mapping)):
        optimizer = spec(parameters)
        if not isinstance(optimizer, Optimizer):
            raise UsageError(f"The optimizer factory returned {type(optimizer).__name__}.")
        return optimizer
    name = optimizer_name(spec)
    if not name:
        raise UsageError(
            "The optimizer has no name.", hint='Such as {name = "sgd", momentum = 0.9}.'
        )
    options = {k: v for k, v in spec.items() if k != "name"} if isinstance(spec, Mapping) else {}
    known = _known()
    if name not in known:
        raise UnknownName("optimizer", name, sorted(known))
    make, presets = known[name]
    try:
        return make(parameters, **presets, **options)
    except MemfitError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"Optimizer {name!r} does not accept {options}: {error}.") from None
