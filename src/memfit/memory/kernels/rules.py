"""How a rule about a kernel reads its arguments, and the copies that many kernels make."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.scope import Copy, Scope

__all__ = [
    "Arguments",
    "Outputs",
    "Rule",
    "argument",
    "copies_contiguous",
    "copies_in_format_of",
    "each",
    "integer_argument",
    "integers_in",
    "tensor_argument",
    "tensors_in",
]

Arguments = tuple[object, ...]
Outputs = tuple[TensorFacts, ...]
Rule = Callable[[Arguments, Outputs, DeviceFacts], Scope]


def tensors_in(values: Sequence[object]) -> list[TensorFacts]:
    """The tensors among the values, in order."""
    return [value for value in values if isinstance(value, TensorFacts)]


def tensor_argument(arguments: Arguments, index: int) -> TensorFacts:
    """An argument that must be a tensor."""
    value = arguments[index]
    assert isinstance(value, TensorFacts), f"argument {index} is no tensor"
    return value


def argument(arguments: Arguments, index: int, default: object) -> object:
    """An argument, or the default where the call left it out."""
    return arguments[index] if index < len(arguments) else default


def integer_argument(arguments: Arguments, index: int) -> int:
    """An argument that must be an integer."""
    return int(str(arguments[index]))


def copies_contiguous(*indices: int) -> Rule:
    """The kernel calls ``contiguous()`` on these arguments."""

    def rule(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
        given = tensors_in([argument(arguments, index, None) for index in indices])
        return tuple(Copy(tensor.copy_bytes()) for tensor in given)

    return rule


def copies_in_format_of(reference: int, *indices: int) -> Rule:
    """The kernel calls ``contiguous(reference.suggest_memory_format())`` on these arguments."""

    def rule(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
        last = tensor_argument(arguments, reference).channels_last
        given = tensors_in([arguments[index] for index in indices])
        return tuple(Copy(tensor.copy_bytes(channels_last=last)) for tensor in given)

    return rule


def each(names: str, rule: Rule) -> dict[str, Rule]:
    """The rule for every operator named, such as ``"sum.default mean.default"``."""
    return {f"aten.{name}": rule for name in names.split()}


def integers_in(value: object) -> list[int]:
    """The integers (or truth values) of a list argument; none for anything else."""
    return [int(item) for item in value] if isinstance(value, Sequence) else []
