"""What an operator asks of whoever computes in the GPU's place; read from its schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import torch
from torch import Tensor

from memfit.memory.recording.values import tensors_in
from memfit.torch_inside import schema_of

__all__ = ["Kind", "Operator", "operator_of"]

_NAMESPACES = ("aten", "torchvision")
#: They cost most and their values matter least. ``_amp_`` looks for infinities in gradients:
#: made-up ones must not skip an optimizer's step.
_HEAVY = re.compile(
    r"conv(olution|_|\d)|(?<!a)mm|mv_?$|^v?dot$|^linear|attention|_rnn|lstm|gru|^_trilinear|^_amp_"
)
#: They name memory or give it out; nothing is computed.
_MEMORY = re.compile(
    r"(new_)?empty|resize_?$|resize_as_?$|set_|record_stream$|is_pinned$|_pin_memory$"
    r"|_unsafe_view$|lift(_fresh)?$"
)
#: They do not read what they write to.
_OVERWRITES = re.compile(
    r"(copy|fill|zero|normal|uniform|random|bernoulli|exponential|log_normal|cauchy|geometric)_$"
)
#: Data-dependent sizes without PyTorch's tag for them.
_SIZED = ("torchvision::nms",)


class Kind(Enum):
    """What is to be done for an operator."""

    MEMORY = "memory"  # nothing: a view, or memory without values
    HEAVY = "heavy"  # its results are zero
    COMPUTES = "computes"
    SIZES = "sizes"  # its results are as large as values say
    READS = "reads"  # a value goes to Python


@dataclass(frozen=True, slots=True)
class Operator:
    """An overload.

    Args:
        name: such as ``"aten.nonzero"``.
        kind: what is to be done.
        writes: place and name of each argument that it writes to.
        is_overwriting: it does not read what it writes to.
        is_random: it takes numbers from a generator.
    """

    name: str
    kind: Kind
    writes: tuple[tuple[int, str], ...] = ()
    is_overwriting: bool = False
    is_random: bool = False

    def written(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Tensor]:
        """The tensors among the arguments of a call that it writes to."""
        for place, name in self.writes:
            yield from tensors_in(args[place] if place < len(args) else kwargs.get(name))


@cache
def operator_of(func: Any) -> Operator:
    """What is known of an overload; of one without a schema, nothing is done for it."""
    if not hasattr(func, "tags"):
        return Operator(str(func), Kind.MEMORY)
    schema = schema_of(func)
    namespace, _, name = schema.name.partition("::")
    writes = tuple(
        (place, argument.name)
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    return Operator(
        f"{namespace}.{name}",
        _kind(func, schema, namespace, name),
        writes,
        _OVERWRITES.match(name) is not None,
        torch.Tag.nondeterministic_seeded in func.tags,
    )


def _kind(func: Any, schema: Any, namespace: str, name: str) -> Kind:
    if "c10d" in namespace or _MEMORY.match(name) or _is_view(schema):
        return Kind.MEMORY
    if namespace not in _NAMESPACES or _HEAVY.search(name):
        return Kind.HEAVY
    if torch.Tag.data_dependent_output in func.tags:
        return Kind.READS
    is_index = name.startswith("index")  # with masks only, which are resolved before
    if schema.name in _SIZED or (torch.Tag.dynamic_output_shape in func.tags and not is_index):
        return Kind.SIZES
    return Kind.COMPUTES


def _is_view(schema: Any) -> bool:
    aliases = [value.alias_info for value in schema.returns if value.alias_info is not None]
    return any(not alias.is_write for alias in aliases)
