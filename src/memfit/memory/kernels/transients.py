"""What kernels allocate beside their outputs, as the recorder meets them.

The rules are tables on plain facts (:mod:`memfit.memory.kernels.temporaries`); here they are
joined to the operators of a running step. A block's size is kept as a :class:`KernelSize`, which
can be asked again for another batch: cuDNN chooses its plan by the batch, so its workspace is no
straight line through two traces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from types import NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.scope import Held, Scope, block_sizes
from memfit.memory.kernels.temporaries import RULES, temporaries
from memfit.memory.tape.tape import Part, Phase

__all__ = [
    "KernelMemory", "KernelSize", "KernelSizes", "Transients", "installed_torch_version",
    "tensor_facts",
]  # fmt: skip

_BLAS = ("addmm", "mm", "bmm", "baddbmm", "addmv", "mv", "addbmm", "dot", "vdot", "addr")
_LIBRARY_OPERATORS = ("convolution", "convolution_backward", *_BLAS)


class KernelMemory(NamedTuple):
    """What one call allocates beside and between its results.

    Args:
        scope: blocks and results, in order; workspaces that are held already are left out.
        part: what the blocks are for.
        sizes: by which each block's size can be asked again.
    """

    scope: Scope
    part: Part
    sizes: KernelSizes

    def rules(self) -> Iterator[KernelSize]:
        """For each block of the scope, in order."""
        return (KernelSize(self.sizes, n) for n, _ in enumerate(block_sizes(self.scope)))


class KernelSize(NamedTuple):
    """How large one block inside an operator's kernel is; a ``SizeRule`` of the tape."""

    kernel: KernelSizes
    block: int

    @property
    def numbers(self) -> tuple[int, ...]:
        """All shapes, strides and integer arguments of the operator."""
        return self.kernel.numbers

    def size_bytes(self, numbers: Sequence[int]) -> int:
        """Bytes with every shape, stride and integer argument replaced, in order."""
        return self.kernel.sizes_bytes(numbers)[self.block]


class KernelSizes:
    """The blocks that an operator's kernel allocates inside, for the arguments of any batch.

    Args:
        op: overload name, such as ``"aten.convolution.default"``.
        arguments: positional arguments with tensors as facts.
        outputs: facts of what it returned.
        device: the GPU.
    """

    __slots__ = ("_arguments", "_asked", "_device", "_hash", "_outputs", "numbers", "op")

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
        self._hash = hash((op, self.numbers))
        self._asked: tuple[Sequence[int], tuple[int, ...]] = ((), ())

    def sizes_bytes(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Bytes of every block with every shape, stride and integer argument replaced."""
        asked, sizes = self._asked
        if asked != numbers:  # each block asks, one after the other
            arguments, outputs = _with_numbers((self._arguments, self._outputs), iter(numbers))
            scope = temporaries(self.op, arguments, outputs, self._device) or ()
            sizes = tuple(block_sizes(scope))
            self._asked = numbers, sizes
        return sizes

    def to_dict(self) -> dict[str, Any]:
        """Plain values; :meth:`of` makes it again."""
        return {
            "op": self.op,
            "arguments": _plain(self._arguments),
            "outputs": _plain(self._outputs),
            "device": asdict(self._device),
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> KernelSizes:
        """What :meth:`to_dict` wrote, through JSON."""
        device: dict[str, Any] = {name: _read(value) for name, value in values["device"].items()}
        arguments, outputs = _read(values["arguments"]), _read(values["outputs"])
        return cls(values["op"], arguments, outputs, DeviceFacts(**device))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KernelSizes) and (
            (self.op, self._arguments, self._outputs)
            == (other.op, other._arguments, other._outputs)
        )

    def __hash__(self) -> int:
        return self._hash


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
    ) -> KernelMemory | None:
        """What one call allocates; None where that is its results alone.

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
            return None
        if not _is_on_device(args):
            return None
        arguments, outputs = _facts(args), tuple(_output_facts(result))
        scope = temporaries(op, arguments, outputs, self._device) or ()
        new = tuple(item for item in scope if not self._is_held(item, phase))
        is_library = op.split(".")[1] in _LIBRARY_OPERATORS
        part = Part.WORKSPACES if is_library else Part.TEMPORARIES
        return KernelMemory(new, part, KernelSizes(op, arguments, outputs, self._device))

    def _is_held(self, item: object, phase: Phase) -> bool:
        """Whether it is a workspace that this thread's library has already."""
        if not isinstance(item, Held):
            return False
        key = (item.library, phase is Phase.BACKWARD)
        is_held = key in self._held
        self._held.add(key)
        return is_held


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


def _plain(value: Any) -> Any:
    """For JSON: what is no tensor, number or list of them decides no size but by its name."""
    if isinstance(value, TensorFacts):
        return {"tensor": [value.shape, value.strides, value.dtype_bytes, value.dtype]}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, NoneType)) else str(value)


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        shape, strides, dtype_bytes, dtype = value["tensor"]
        return TensorFacts(tuple(shape), tuple(strides), dtype_bytes, dtype)
    return tuple(map(_read, value)) if isinstance(value, list) else value
