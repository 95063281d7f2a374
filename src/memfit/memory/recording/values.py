"""Values on a GPU that computes nothing: what is known of small tensors, and what is made up.

What the host copies over and what factories write is known, and so is what small operators make of
it: they run on the CPU as well. A loss, whose inputs nobody computed, is not. Who asks for it is
given a made-up value, and the place is noted: numbers fall as losses do, questions of yes or no and
whole numbers are answered as if every unknown single number were 1 and all others 0.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from memfit.places import place_of
from memfit.torch_inside import schema_of, storage_key, tree_map

__all__ = ["MadeUp", "Values", "tensors_in"]

_aten = torch.ops.aten

#: Elements up to which an operator runs on the CPU as well: masks, labels, lengths, counters.
_MOST_ELEMENTS = 1 << 16
#: Operators after which a tensor's old values are gone.
_OVERWRITE = {_aten.copy_.default, _aten.zero_.default, _aten.fill_.Scalar, _aten.fill_.Tensor}
#: A gradient scaler asks whether any gradient is infinite: they are taken to be finite.
_FINITE = _aten._amp_foreach_non_finite_check_and_unscale_.default


@dataclass(frozen=True, slots=True)
class MadeUp:
    """A value that only a real run knows, and what was taken for it.

    Args:
        place: the user's file and line, such as ``"train.py:31"``; empty where none is known.
        value: the first that was given there; the shape where it was more than a number.
        times: how often it was asked for there.
    """

    place: str
    value: str
    times: int = 1


@dataclass(slots=True)
class _Known:
    """The values of one storage."""

    content: Tensor  # its bytes
    is_made_up: bool
    storage: weakref.ref[Any]


class Values:
    """What is known of the values of tensors on the virtual GPU.

    Args:
        makes_up: answer what is not known with made-up values; refuse to otherwise.
    """

    def __init__(self, *, makes_up: bool = True) -> None:
        self.makes_up = makes_up
        self._known: dict[int, _Known] = {}
        self._made_up: dict[str, MadeUp] = {}
        self._numbers = 0

    @property
    def made_up(self) -> tuple[MadeUp, ...]:
        """Every place at which a value was made up, in the order of the first time."""
        return tuple(self._made_up.values())

    # -- what operators do ---------------------------------------------------------------------

    def follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """An operator ran: learn what it wrote where that is known, forget it otherwise."""
        effect = _effect(func)
        if effect.is_view:
            return
        written = [tensor for index in effect.writes for tensor in _on_gpu(args[index])]
        made = written or list(_on_gpu(result))
        if not made or func is _FINITE:
            return
        if effect.is_computable and self._is_computed(func, args, kwargs, made):
            try:
                self._compute(func, args, kwargs, made if not written else [])
            except Exception:  # no kernel on the CPU, or not for this dtype
                pass
            else:
                return
        for tensor in written:
            self._known.pop(storage_key(tensor), None)

    def _is_computed(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[Tensor]
    ) -> bool:
        if any(tensor.numel() > _MOST_ELEMENTS for tensor in made):
            return False
        inputs = [*_on_gpu(args), *_on_gpu(tuple(kwargs.values()))]
        if any(tensor.numel() > _MOST_ELEMENTS for tensor in inputs):
            return False
        if self.makes_up and not (made[0].is_floating_point() or made[0].is_complex()):
            return True  # labels and counters are sizes and indices: no garbage may be in them
        needed = inputs[1:] if func in _OVERWRITE else inputs
        return all(storage_key(tensor) in self._known for tensor in needed)

    def _compute(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[Tensor]
    ) -> None:
        """Run it on the CPU and keep what it made, or wrote in place when it made nothing."""
        values, is_made_up = self.on_host((args, kwargs))
        result = torch.tensor(False) if _is_end_of(func, args) else func(*values[0], **values[1])
        if made:
            for tensor, value in zip(made, tensors_in(result), strict=True):
                self._learn(tensor, value, is_made_up)
            return
        for index in _effect(func).writes:
            written = zip(_on_gpu(args[index]), tensors_in(values[0][index]), strict=True)
            for tensor, value in written:
                known = self._known.get(storage_key(tensor))
                if known is None:
                    self._learn(tensor, value, is_made_up and func not in _OVERWRITE)
                else:
                    known.is_made_up |= is_made_up

    def _learn(self, tensor: Tensor, value: Tensor, is_made_up: bool) -> None:
        storage, key = tensor.untyped_storage(), storage_key(tensor)
        if storage.nbytes() > _MOST_ELEMENTS * 16:
            return
        content = torch.zeros(storage.nbytes(), dtype=torch.uint8)
        known = self._known

        def forget(_: Any, key: int = key) -> None:
            known.pop(key, None)

        is_part = tensor.numel() * tensor.element_size() < storage.nbytes()
        known[key] = _Known(content, is_made_up or is_part, weakref.ref(storage, forget))
        _view(content, tensor).copy_(value)

    def forget(self, tensors: Any) -> None:
        """They were written, and nobody knows what."""
        for tensor in _on_gpu(tensors):
            self._known.pop(storage_key(tensor), None)

    # -- what is asked for ---------------------------------------------------------------------

    def on_host(self, arguments: Any) -> tuple[Any, bool]:
        """The same with tensors on the CPU, and whether any of their values is made up."""
        made_up: list[bool] = []

        def value(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and leaf.is_meta:
                found, is_made_up = self._of(leaf)
                made_up.append(is_made_up)
                return found
            is_device = isinstance(leaf, torch.device) and leaf.type == "meta"
            return torch.device("cpu") if is_device else leaf

        return tree_map(value, arguments), any(made_up)

    def _of(self, tensor: Tensor) -> tuple[Tensor, bool]:
        known = self._known.get(storage_key(tensor))
        if known is not None:
            return _view(known.content, tensor), known.is_made_up
        if tensor.numel() == 1 and tensor.is_floating_point():
            return torch.ones(tensor.shape, dtype=tensor.dtype), True
        return torch.zeros(tensor.shape, dtype=tensor.dtype), True

    def number(self, tensor: Tensor, *, is_library: bool) -> float | bool | None:
        """The value of a tensor with one element; None where it is not known.

        Args:
            tensor: on the virtual GPU.
            is_library: an optimizer asks, during its step: no memory depends on what it is told.
        """
        value, is_made_up = self._of(tensor)
        if not is_made_up:
            return value.item()
        # transformers asks whether masks are full and positions ascend, to skip the mask: batches
        # are taken to have no padding and no packed sequences.
        is_question = tensor.dtype == torch.bool
        if is_question and _asker("memfit.", "torch.").startswith("transformers."):
            return True
        if not (self.makes_up or is_library):
            return None
        number = value.item()
        if tensor.is_floating_point() and storage_key(tensor) not in self._known:
            self._numbers += 1
            number = 1.0 / self._numbers
        self.note(str(number))
        return number

    def copied(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor | None:
        """What a copy to the host gives; None where it is not known and nothing is made up."""
        value, is_made_up = self._of(tensor)
        if is_made_up and not self.makes_up:
            return None
        if is_made_up:
            self.note(f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}")
        return value.to(dtype or tensor.dtype, copy=True)

    def decided(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What an operator returns whose shape or answer depends on values.

        Returns:
            The result, on meta; None where the values are not known and none are made up, or they
            are too many.
        """
        tensors = [*_on_gpu(args), *_on_gpu(tuple(kwargs.values()))]
        if any(tensor.numel() > _MOST_ELEMENTS for tensor in tensors):
            return None
        (args, kwargs), is_made_up = self.on_host((args, kwargs))
        if is_made_up and not self.makes_up:
            return None
        result = func(*args, **kwargs)
        if is_made_up:
            shapes = [list(tensor.shape) for tensor in tensors_in(result)]
            self.note(f"shape {shapes[0]}" if shapes else str(result))
        made = tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, result)
        for tensor, value in zip(tensors_in(made), tensors_in(result), strict=True):
            self._learn(tensor, value, is_made_up)
        return made

    def note(self, value: str) -> None:
        """A value was made up for whoever asks now."""
        place = place_of(sys._getframe(1))
        before = self._made_up.get(place)
        self._made_up[place] = (
            MadeUp(place, value) if before is None else replace(before, times=before.times + 1)
        )


@dataclass(frozen=True, slots=True)
class _Effect:
    """What an operator does to values.

    Args:
        is_view: its result shares the argument's.
        is_computable: the CPU would find the same: no random numbers, nothing left as it was.
        writes: numbers of the arguments that it writes to.
    """

    is_view: bool
    is_computable: bool
    writes: tuple[int, ...]


@cache
def _effect(func: Any) -> _Effect:
    schema = schema_of(func)
    writes = tuple(
        index
        for index, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
        and not argument.kwarg_only
    )  # fmt: skip
    is_view = not writes and any(result.alias_info is not None for result in schema.returns)
    name = schema.name.partition("::")[2]
    is_left = name.startswith(("empty", "new_empty", "resize", "set_", "_foreach", "_fused"))
    is_random = torch.Tag.nondeterministic_seeded in func.tags
    return _Effect(is_view, not (is_left or is_random), writes)


def _view(content: Tensor, tensor: Tensor) -> Tensor:
    """The part of a storage's bytes that a tensor shows."""
    empty = torch.empty(0, dtype=tensor.dtype)
    storage = content.untyped_storage()
    return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def tensors_in(value: Any) -> Iterator[Tensor]:
    """A tensor, or those in lists and tuples of them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def _on_gpu(value: Any) -> Iterator[Tensor]:
    return (tensor for tensor in tensors_in(value) if tensor.is_meta)


def _is_end_of(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether LBFGS asks if its direction descends no more (``torch/optim/lbfgs.py``, 2.15).

    It does descend until a run is at its end; one that stops there keeps no history.
    """
    is_negative = func is _aten.gt.Scalar and args[1] < 0
    return is_negative and _asker("memfit.") == "torch.optim.lbfgs"


def _asker(*between: str) -> str:
    """The first module up the stack whose name does not begin as one of those between."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith(between):
            return name
        frame = frame.f_back
    return ""
