"""Sizes of blocks inside kernels that can be asked again for another batch; knows nothing of torch.

cuDNN chooses its plan by the batch, so its workspace is no straight line through two traces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from types import NoneType
from typing import Any, NamedTuple

from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.scope import block_sizes
from memfit.memory.kernels.temporaries import temporaries

__all__ = ["KernelSize", "KernelSizes"]


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
