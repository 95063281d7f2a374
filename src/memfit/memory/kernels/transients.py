"""What kernels allocate beside their outputs, as the recorder meets them.

The rules are tables on plain facts (:mod:`memfit.memory.kernels.temporaries`); here they are
joined to the operators of a running step. A block's size is kept as a :class:`KernelSize`, which
can be asked again for another batch: cuDNN chooses its plan by the batch, so its workspace is no
straight line through two traces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.rules import tensors_in
from memfit.memory.kernels.scope import Held, Scope, block_sizes
from memfit.memory.kernels.sizes import KernelSize, KernelSizes
from memfit.memory.kernels.temporaries import RULES, temporaries
from memfit.memory.tape.tape import Part, Phase

__all__ = [
    "KernelMemory", "Transients", "installed_torch_version", "tensor_facts",
]  # fmt: skip

_BLAS = ("addmm", "mm", "bmm", "baddbmm", "addmv", "mv", "addbmm", "dot", "vdot", "addr")
_LIBRARY_OPERATORS = ("convolution", "convolution_backward", *_BLAS)

#: Their lists of lengths are as long as the batch; no size follows from what is in them.
_WITH_LENGTHS = ("aten._ctc_loss",)


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
        if op.startswith(_WITH_LENGTHS):
            arguments = tuple(tensors_in(arguments))
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
