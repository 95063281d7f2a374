"""Gradient checkpointing: keep a block's input, and run the block again in the backward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from memfit.models.optional import optional_package

__all__ = ["enable_gradient_checkpointing", "repeated_blocks"]

_CONTAINERS = (nn.Sequential, nn.ModuleList)


def enable_gradient_checkpointing(module: nn.Module, *, reentrant: bool = False) -> int:
    """Checkpoint the repeated blocks of ``module``, in place.

    transformers and timm models use their own switches (``gradient_checkpointing_enable``,
    ``set_grad_checkpointing``); elsewhere the ``forward`` of each repeated block is wrapped in
    ``torch.utils.checkpoint.checkpoint``. Blocks are checkpointed in training mode only. Batch norm
    inside a block updates its running statistics twice per step, as it always does under
    checkpointing.

    Args:
        module: on any device; changed in place.
        reentrant: ``use_reentrant`` of ``torch.utils.checkpoint``. timm keeps this as one setting
            for the whole process.

    Returns:
        How many blocks are checkpointed; 0 when no repeated blocks were found.
    """
    own_switch = _transformers_switch(module) or _timm_switch(module)
    if own_switch is not None:
        try:
            return own_switch(reentrant)
        except (AssertionError, NotImplementedError, ValueError):
            pass  # the library says that this architecture has no such switch
    blocks = list(repeated_blocks(module))
    for block in blocks:
        if getattr(block.forward, "func", None) is not _checkpointed:  # not a second time
            block.forward = partial(_checkpointed, block.forward, block, reentrant)
    return len(blocks)


def repeated_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that occur at least twice side by side: Bottlenecks, encoder blocks.

    Side by side means: children of one module, or of the stages below it. A ``Sequential`` counts
    as a block itself when it holds layers only (convolution, norm, ReLU) and another with the same
    layers stands beside it.
    """
    alike: dict[object, list[nn.Module]] = defaultdict(list)
    for child in _composite_children(module):
        alike[_kind(child)].append(child)
    for group in alike.values():
        if len(group) > 1:
            yield from group
        else:
            yield from repeated_blocks(group[0])


def _composite_children(module: nn.Module) -> Iterator[nn.Module]:
    """Children made of several layers; stages of such children are looked through."""
    for child in module.children():
        if not _is_composite(child):
            continue
        inner = list(_composite_children(child)) if _is_stage(child) else []
        yield from inner or [child]


def _is_composite(module: nn.Module) -> bool:
    return any(module.children()) and any(True for _ in module.parameters())


def _is_stage(module: nn.Module) -> bool:
    """A plain container, or a module of nothing but alike blocks and the way down to them."""
    if type(module) in _CONTAINERS:
        return True
    parts = [
        part
        for name, child in module.named_children()
        for part in (child.children() if type(child) in _CONTAINERS else [child])
        if not name.startswith("downsampl") and any(True for _ in part.parameters())
    ]
    return (
        len(parts) > (0 if isinstance(module, _CONTAINERS) else 1)
        # one convolution or linear layer with its norm is a layer, two make a block
        and all(_is_composite(p) and sum(w.dim() > 1 for w in p.parameters()) > 1 for p in parts)
        and len({_kind(part) for part in parts}) == 1
    )


def _kind(module: nn.Module) -> object:
    """The class; for a plain ``Sequential`` the classes of its layers."""
    if type(module) is nn.Sequential:
        return tuple(type(child) for child in module)
    return type(module)


def _checkpointed(
    forward: Callable[..., Any], block: nn.Module, reentrant: bool, *args: Any, **kwargs: Any
) -> Any:
    # The reentrant variant sees only tensors passed by position: where none of them needs a
    # gradient (the first block, a list of features) it would give the block's parameters none.
    needs_gradient = not reentrant or any(
        isinstance(value, torch.Tensor) and value.requires_grad for value in args
    )
    if not (block.training and torch.is_grad_enabled() and needs_gradient):
        return forward(*args, **kwargs)
    # A list of features may grow after this call (DenseNet); the second run must see today's.
    args = tuple(list(value) if isinstance(value, list) else value for value in args)
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=reentrant)


def _transformers_switch(module: nn.Module) -> Callable[[bool], int] | None:
    # transformers 5 renamed the method; the old name warns there.
    enable = getattr(module, "activation_checkpointing_enable", None) or getattr(
        module, "gradient_checkpointing_enable", None
    )
    if enable is None:
        return None

    def switch(reentrant: bool) -> int:
        enable({"use_reentrant": reentrant})
        flagged = [part for part in module.modules() if getattr(part, "gradient_checkpointing", 0)]
        layers = [part for part in flagged if any(
            base.__name__ == "GradientCheckpointingLayer" for base in type(part).__mro__
        )]  # fmt: skip
        return len(layers) or len(flagged)

    return switch


def _timm_switch(module: nn.Module) -> Callable[[bool], int] | None:
    if not hasattr(module, "set_grad_checkpointing"):
        return None

    def switch(reentrant: bool) -> int:
        module.set_grad_checkpointing(True)  # type: ignore[operator]
        optional_package("timm").layers.set_reentrant_ckpt(reentrant)
        return len(list(repeated_blocks(module))) or 1

    return switch
