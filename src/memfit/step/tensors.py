"""Tensors of a batch as facts: the shape of one sample, the type, and where the batch goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from memfit.torch_inside import tree_iter, tree_map_only

__all__ = ["Arguments", "TensorSpec", "call_model", "tensors_in"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a batch, without its batch dimension.

    Args:
        shape: of one sample.
        dtype: as torch has it.
        batch_dim: where the batch stands among the sizes; None where the tensor is of all samples.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    batch_dim: int | None = 0

    def whole(self, micro_batch: int) -> tuple[int, ...]:
        """The shape with the batch in it."""
        if self.batch_dim is None:
            return self.shape
        return (*self.shape[: self.batch_dim], micro_batch, *self.shape[self.batch_dim :])

    def make(self, micro_batch: int, device: torch.device) -> Tensor:
        """A tensor for a micro-batch; its values mean nothing."""
        return torch.empty(self.whole(micro_batch), dtype=self.dtype, device=device)

    def size_bytes(self, micro_batch: int) -> int:
        """Bytes of the tensor for a micro-batch."""
        return torch.Size(self.whole(micro_batch)).numel() * self.dtype.itemsize

    @classmethod
    def seen(cls, tensor: Tensor, micro_batch: int) -> TensorSpec:
        """What a tensor of a micro-batch is; the batch is the first size that equals it."""
        shape = tuple(tensor.shape)
        if micro_batch not in shape:
            return cls(shape, tensor.dtype, None)
        place = shape.index(micro_batch)
        return cls((*shape[:place], *shape[place + 1 :]), tensor.dtype, place)

    def __str__(self) -> str:
        """Such as ``(N, 3, 224, 224) float32``."""
        sizes: list[Any] = list(self.shape)
        if self.batch_dim is not None:
            sizes.insert(self.batch_dim, "N")
        inner = f"{sizes[0]}," if len(sizes) == 1 else ", ".join(map(str, sizes))
        return f"({inner}) {str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class Arguments:
    """What a forward pass is called with: tensors, or what a batch has of them.

    Args:
        positional: tensors, lists and dicts of them, in order.
        named: the same by the forward's names.
    """

    positional: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)

    def map(self, kind: Any, change: Callable[[Any], Any]) -> Arguments:
        """The same with every leaf of a kind changed."""
        positional, named = tree_map_only(kind, change, (self.positional, self.named))
        return Arguments(positional, named)

    def of(self, kind: Any) -> Iterator[Any]:
        """Every leaf of a kind, in order."""
        leaves = tree_iter((self.positional, self.named))
        return (leaf for leaf in leaves if isinstance(leaf, kind))

    def words(self) -> list[str]:
        """Each tensor with its name where it has one: ``image (N, 3, 64, 64) float32``."""
        return [f"{name} {spec}".strip() for name, spec in _named(self.positional, self.named)]

    @property
    def alone(self) -> Any:
        """As a loop has them: the one tensor, else a tuple, else a dict."""
        if not self.named:
            return self.positional[0] if len(self.positional) == 1 else self.positional
        if self.positional:
            return (*self.positional, self.named)
        values = list(self.named.values())
        return values[0] if len(values) == 1 else self.named


def _named(*values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of dicts and lists with the names that lead to it; numbers are left out."""
    for value in values:
        if isinstance(value, dict):
            for key, entry in value.items():
                yield from _named(entry, name=f"{name}.{key}" if name else str(key))
        elif isinstance(value, (list, tuple)):
            yield from _named(*value, name=name)
        else:
            yield name, value


def call_model(model: nn.Module, inputs: Tensor | Arguments) -> Any:
    """Run the forward pass as a training loop would."""
    if isinstance(inputs, Arguments):
        return model(*inputs.positional, **inputs.named)
    return model(inputs)


def tensors_in(batch: Any) -> Iterator[Tensor]:
    """Every tensor in what a batch consists of, once."""
    seen: set[int] = set()
    for leaf in tree_iter(batch):
        for tensor in leaf.of(Tensor) if isinstance(leaf, Arguments) else (leaf,):
            if isinstance(tensor, Tensor) and id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor
