"""Small operators run for real on the virtual GPU's own bytes; what Python reads is listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from memfit.memory.recording.values import tensors_in
from memfit.scripts.told.answer import Decided
from memfit.scripts.values.memory import (
    Marks,
    clear,
    elements,
    give_back_zeros,
    on_host,
    to_host,
    write,
)
from memfit.scripts.values.operators import Kind, Operator, operator_of
from memfit.torch_inside import DispatchMode

__all__ = ["Values"]

_aten: Any = torch.ops.aten

#: More than these elements cost more time than their values are worth.
_MOST_ELEMENTS = 4_000_000
#: Larger parameters are of heavy operators: their values would take memory and say nothing.
_MOST_OF_A_PARAMETER = 1 << 16
_INDEXED = ("aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_")


class Values(DispatchMode):
    """Gives what runs on the virtual GPU values where they cost little.

    An operator runs twice: behind the stubs, where it allocates as on a real GPU and computes
    nothing, and on the host over the same bytes. What is heavy, large or has no kernel there yields
    zeros: these are made up, and so is all that is computed from them.

    Args:
        place: says which of the user's lines is running.

    Attributes:
        decided: values that went to Python or became sizes, by what they became and where.
    """

    def __init__(self, place: Callable[[], str]) -> None:
        super().__init__()
        self.decided: dict[tuple[str, str], Decided] = {}
        self._place = place
        self._marks = Marks()
        self._without_kernel: set[tuple[Any, ...]] = set()
        self._random_state = torch.Generator().manual_seed(0).get_state()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and give its results values."""
        kwargs = kwargs or {}
        inputs = list(tensors_in((*args, *kwargs.values())))
        if not all(map(_is_plain, inputs)):
            return func(*args, **kwargs)
        parts = self.in_parts(func, args, kwargs)
        if parts is not NotImplemented:
            return parts
        if any(tensor.is_cuda for tensor in inputs) or _is_cuda(kwargs.get("device")):
            return self._on_card(func, args, kwargs, inputs)
        result = func(*args, **kwargs)
        if self._marks:
            self._follow_on_host(func, args, kwargs, inputs, result)
        return result

    def _follow_on_host(
        self,
        func: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        result: Any,
    ) -> None:
        """What the host computes from values of the GPU comes from them."""
        is_made_up = self._marks.of(inputs)
        if is_made_up is None:
            return
        operator = operator_of(func)
        if operator.kind in (Kind.READS, Kind.SIZES):
            self._decide(operator, result, is_made_up)
        for tensor in (*tensors_in(result), *operator.written(args, kwargs)):
            self._marks.set(tensor, is_made_up)

    # -- operators of the GPU ------------------------------------------------------------------

    def _on_card(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], inputs: list[Tensor]
    ) -> Any:
        operator = operator_of(func)
        if operator.kind is Kind.MEMORY:
            return func(*args, **kwargs)
        if operator.name == "aten.masked_select":
            source, mask = torch.broadcast_tensors(*inputs)
            return self.__torch_dispatch__(_aten.index.Tensor, (), (source, [mask]))
        if operator.name in _INDEXED:
            args = (args[0], list(self._without_masks(args[1])), *args[2:])
        read = inputs[1:] if operator.is_overwriting else inputs
        is_made_up = bool(self._marks.of(read))
        if operator.kind in (Kind.READS, Kind.SIZES):
            return self._by_values(func, operator, args, kwargs, is_made_up)
        result = func(*args, **kwargs)
        outputs = list(tensors_in(result))
        if not all(map(_is_plain, outputs)):
            return result
        known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        fresh = [t for t in outputs if t.untyped_storage().data_ptr() not in known]
        changed = [*fresh, *operator.written(args, kwargs)]
        if not self._is_computed(func, operator, args, kwargs, inputs, outputs, fresh):
            is_made_up = True
            for tensor in changed if operator.is_overwriting else fresh:
                clear(tensor)
        for tensor in changed:
            self._settle(operator, tensor, is_made_up)
        return result

    def _without_masks(self, indices: Sequence[Tensor | None]) -> Iterator[Tensor | None]:
        """Masks as the positions that they mean, as ``expandTensors`` makes them.

        Source: ``aten/src/ATen/native/IndexingUtils.h`` of torch 2.15.
        """
        for index in indices:
            if index is not None and index.is_cuda and index.dtype in (torch.bool, torch.uint8):
                positions = self.__torch_dispatch__(_aten.nonzero.default, (), (index,))
                yield from positions.unbind(1)
            else:
                yield index

    def _by_values(
        self,
        func: Any,
        operator: Operator,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        is_made_up: bool,
    ) -> Any:
        """Run an operator that answers by values: on the host alone, its results on the GPU."""
        result = self._run_on_host(func, operator, args, kwargs)
        self._decide(operator, result, is_made_up)
        device = next(tensor.device for tensor in tensors_in(args) if tensor.is_cuda)

        def to_card(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return type(value)(map(to_card, value))
            if not isinstance(value, Tensor):
                return value
            card = torch.empty_strided(
                value.shape, value.stride(), dtype=value.dtype, device=device
            )
            on_host(card).copy_(value)
            if is_made_up:
                self._marks.set(card, True)
            return card

        return to_card(result)

    def _is_computed(
        self,
        func: Any,
        operator: Operator,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        outputs: list[Tensor],
        fresh: list[Tensor],
    ) -> bool:
        """Compute what an operator gives and writes; False where that is too much or impossible."""
        if operator.kind is Kind.HEAVY:
            return False
        if max(elements(inputs), elements(outputs)) > _MOST_ELEMENTS or any(
            map(_is_weight, inputs)
        ):
            return False
        case = (func, *(tensor.dtype for tensor in inputs[:1]))
        if case in self._without_kernel:
            return False
        try:
            values = list(tensors_in(self._run_on_host(func, operator, args, kwargs)))
        except Exception:  # whatever a kernel of the host does not take
            self._without_kernel.add(case)
            return False
        if [value.shape for value in values] != [output.shape for output in outputs]:
            return False
        own = {id(tensor) for tensor in fresh}
        for output, value in zip(outputs, values, strict=True):
            if id(output) in own:
                write(output, value)
        for tensor in operator.written(args, kwargs):
            give_back_zeros(tensor)
        return True

    def _run_on_host(
        self, func: Any, operator: Operator, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        with self._own_randomness(operator):
            return func(
                *map(to_host, args), **{name: to_host(value) for name, value in kwargs.items()}
            )

    @contextmanager
    def _own_randomness(self, operator: Operator) -> Iterator[None]:
        """The GPU's generator is another than the host's, which the script may count on."""
        if not operator.is_random:
            yield
            return
        generator = torch.default_generator
        before = generator.get_state()
        generator.set_state(self._random_state)
        try:
            yield
        finally:
            self._random_state = generator.get_state()
            generator.set_state(before)

    # -- what is known of values ---------------------------------------------------------------

    def _settle(self, operator: Operator, tensor: Tensor, is_made_up: bool) -> None:
        """Note what a tensor's values are, now that an operator has written them."""
        if not tensor.is_cuda:
            if tensor.dtype is not torch.uint8:  # else a storage, as checkpoints copy them
                self._decide(operator, tensor, is_made_up)
            self._marks.set(tensor, is_made_up)
        elif is_made_up:
            self._marks.set(tensor, True)
        elif operator.is_overwriting and tensor.nbytes == tensor.untyped_storage().nbytes():
            self._marks.drop(tensor)

    def _decide(self, operator: Operator, result: Any, is_made_up: bool) -> None:
        what = {Kind.READS: "number", Kind.SIZES: "size"}.get(operator.kind, "copy")
        key = what, self._place()
        known = self.decided.get(key)
        if known is None:
            self.decided[key] = Decided(*key, operator.name, _words(result), is_made_up)
        else:
            is_any = known.is_made_up or is_made_up
            self.decided[key] = replace(known, is_made_up=is_any, count=known.count + 1)


def _is_plain(tensor: Tensor) -> bool:
    """Whether its values are the bytes of its storage: not sparse, sharded or fake."""
    has_own_operators = type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__
    return tensor.layout is torch.strided and not has_own_operators


def _is_weight(tensor: Tensor) -> bool:
    """Whether it is a parameter of a layer whose output is zeros anyway."""
    return isinstance(tensor, nn.Parameter) and tensor.numel() > _MOST_OF_A_PARAMETER


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _words(result: Any) -> str:
    """A number as it is, tensors by their shapes."""
    if isinstance(result, Tensor):
        return " x ".join(map(str, result.shape)) or "1"
    if isinstance(result, (tuple, list)):
        return ", ".join(map(_words, tensors_in(result)))
    return f"{result:.6g}" if isinstance(result, float) else str(result)
