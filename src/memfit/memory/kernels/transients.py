"""What kernels allocate beside their outputs, as the recorder meets them.

The rules are tables on plain facts (:mod:`memfit.memory.kernels.temporaries`); here they are
joined to the operators of a running step. A size is kept as a :class:`KernelSize`, which can be
asked again for another batch: cuDNN chooses its plan by the batch, so its workspace is no straight
line through two traces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.temporaries import RULES, held_workspaces, temporaries
from memfit.memory.tape.tape import Part, Phase

__all__ = ["KernelSize", "Transient", "Transients", "installed_torch_version", "tensor_facts"]

_BLAS = ("addmm", "mm", "bmm", "baddbmm", "addmv", "mv", "addbmm", "dot", "vdot", "addr")
_LIBRARY_OPERATORS = ("convolution", "convolution_backward", *_BLAS)


class Transient(NamedTuple):
    """Memory that a kernel takes while it runs, or keeps for its library."""

    size_bytes: int
    part: Part
    stays: bool
    rule: KernelSize | None


class KernelSize:
    """How much an operator's kernel allocates inside, for the arguments of any batch.

    Args:
        op: overload name, such as ``"aten.convolution.default"``.
        arguments: positional arguments with tensors as facts.
        outputs: facts of what it returned.
        device: the GPU.
    """

    __slots__ = ("_arguments", "_device", "_outputs", "numbers", "op")

    def __init__(
        self,
        op: str,
        arguments: tuple[object, ...],
        outputs: tuple[TensorFacts, ...],
        device: DeviceFacts,
    ) -> None:
        self.op = op
        self._arguments = arguments
        self._outputs = outputs
        self._device = device
        self.numbers = tuple(_numbers((arguments, outputs)))

    def size_bytes(self, numbers: Sequence[int]) -> int:
        """Bytes with every shape, stride and integer argument replaced, in order."""
        arguments, outputs = _with_numbers((self._arguments, self._outputs), iter(numbers))
        return sum(temporaries(self.op, arguments, outputs, self._device) or ())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KernelSize) and (
            (self.op, self._arguments, self._outputs)
            == (other.op, other._arguments, other._outputs)
        )

    def __hash__(self) -> int:
        return hash((self.op, self.numbers))


class Transients:
    """What the recorder asks after every operator.

    Args:
        device: the GPU that is played.
    """

    def __init__(self, device: DeviceFacts) -> None:
        self.unknown: set[str] = set()
        self._device = device
        self._held: set[tuple[str, bool]] = set()

    def __call__(
        self, func: Any, args: tuple[Any, ...], result: Any, phase: Phase
    ) -> Iterator[Transient]:
        """The transients of one call.

        Args:
            func: the operator.
            args: its positional arguments.
            result: what it returned.
            phase: of the training loop; backward runs on a thread of its own.
        """
        op = str(func)
        if op not in RULES:
            if func.namespace != "profiler" and temporaries(op, (), (), self._device) is None:
                self.unknown.add(op)
            return
        if not _is_on_device(args):
            return
        arguments, outputs = _facts(args), tuple(_output_facts(result))
        for library, size_bytes in held_workspaces(op, arguments, self._device):
            key = (library, phase is Phase.BACKWARD)
            if key not in self._held:
                self._held.add(key)
                yield Transient(size_bytes, Part.WORKSPACES, True, None)
        rule = KernelSize(op, arguments, outputs, self._device)
        size_bytes = sum(temporaries(op, arguments, outputs, self._device) or ())
        is_library = op.split(".")[1] in _LIBRARY_OPERATORS
        part = Part.WORKSPACES if is_library else Part.TEMPORARIES
        yield Transient(size_bytes, part, False, rule)


def installed_torch_version() -> tuple[int, int]:
    """(major, minor) of the torch that is running.

    >>> installed_torch_version() >= (2, 11)
    True
    """
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def _is_on_device(args: tuple[Any, ...]) -> bool:
    for arg in args:
        for value in arg if isinstance(arg, (list, tuple)) else (arg,):
            if isinstance(value, Tensor):
                return value.device.type != "cpu"
    return False


def tensor_facts(tensor: Tensor) -> TensorFacts:
    """What a rule may look at of a tensor."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorFacts(tuple(tensor.shape), tensor.stride(), tensor.element_size(), dtype)


def _facts(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tensor_facts(value)
    if isinstance(value, (list, tuple)):
        return tuple(_facts(item) for item in value)
    return value


def _output_facts(result: Any) -> Iterator[TensorFacts]:
    for value in result if isinstance(result, (list, tuple)) else (result,):
        if isinstance(value, Tensor):
            yield tensor_facts(value)


def _numbers(value: object) -> Iterator[int]:
    if isinstance(value, TensorFacts):
        yield from value.shape
        yield from value.strides
    elif isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def _with_numbers(value: Any, numbers: Iterator[int]) -> Any:
    if isinstance(value, TensorFacts):
        shape = tuple(next(numbers) for _ in value.shape)
        strides = tuple(next(numbers) for _ in value.strides)
        return TensorFacts(shape, strides, value.dtype_bytes, value.dtype)
    if isinstance(value, tuple):
        return tuple(_with_numbers(item, numbers) for item in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return next(numbers)
    return value
