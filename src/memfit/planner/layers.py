"""The layers of a model: shapes, parameters, multiply-adds, and bytes kept for backward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from memfit.memory.tape import Part, Phase
from memfit.planner.batch import call_model
from memfit.planner.plan import Plan

__all__ = ["Layer", "LayerTable", "summarise_layers"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One row: a module, with what its hidden descendants hold.

    Args:
        path: as in ``named_modules``; empty for the root.
        kind: the class name.
        depth: 0 for the root.
        output_shape: of the module's output, with the batch; empty when it is not run.
        parameters: of the module itself and of descendants that have no row.
        trainable: of those, how many train.
        kept_bytes: what the same modules keep for backward.
        multiply_adds: of their forward pass.
    """

    path: str
    kind: str
    depth: int
    output_shape: tuple[int, ...]
    parameters: int
    trainable: int
    kept_bytes: int
    multiply_adds: int


@dataclass(frozen=True, slots=True)
class LayerTable:
    """Every row, and totals that equal the sums of the columns.

    Args:
        batch_size: the micro-batch.
        layers: in the order of the model.
        parameters: in all.
        trainable: of those, how many train.
        kept_bytes: kept for backward in all.
        multiply_adds: of one forward pass.
        peak_allocated_bytes: of the training step.
    """

    batch_size: int
    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    kept_bytes: int
    multiply_adds: int
    peak_allocated_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the names of the attributes."""
        return {"schema_version": 1, **asdict(self)}


def summarise_layers(plan: Plan, *, depth: int = 3, batch_size: int | None = None) -> LayerTable:
    """The layers of a planned model.

    Every parameter and byte is counted once: at the deepest row that holds its module. Parameters
    that several modules share count at the first.

    Args:
        plan: of the model.
        depth: rows down to this level; deeper modules are added to their ancestor's row.
        batch_size: the micro-batch; the plan's own when omitted.
    """
    at = plan.at(batch_size)
    model = plan.step.model
    shapes, flops = _run_forward(plan, at.batch_size)
    kept = _kept_bytes(plan, at.batch_size)
    rows = {path: module for path, module in model.named_modules() if _level(path) <= depth}
    columns: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for path, parameter in model.named_parameters():
        column = columns[_row_of(path.rpartition(".")[0], rows)]
        column[0] += parameter.numel()
        column[1] += parameter.numel() if parameter.requires_grad else 0
    for path, size in kept.items():
        columns[_row_of(path, rows)][2] += size
    for path, count in flops.items():
        columns[_row_of(path, rows)][3] += count
    layers = tuple(
        Layer(path, type(module).__name__, _level(path), shapes.get(path, ()), *columns[path])
        for path, module in rows.items()
    )
    parameters, trainable, kept_bytes, multiply_adds = map(sum, zip(*columns.values(), strict=True))
    return LayerTable(
        at.batch_size,
        layers,
        parameters,
        trainable,
        kept_bytes,
        multiply_adds,
        at.peak_allocated_bytes,
    )


def _level(path: str) -> int:
    return path.count(".") + 1 if path else 0


def _row_of(path: str, rows: dict[str, nn.Module]) -> str:
    """The deepest row that holds a module."""
    while path not in rows:
        path = path.rpartition(".")[0]
    return path


def _kept_bytes(plan: Plan, batch_size: int) -> dict[str, int]:
    """Bytes alive when the last step's backward begins, by the module that made them."""
    tape, sizes = plan.tape_at(batch_size)
    last = max(allocation.step for allocation in tape.allocations)
    kept: defaultdict[str, int] = defaultdict(int)
    for number, allocation in enumerate(tape.allocations):
        is_activation = allocation.part is Part.ACTIVATIONS and allocation.phase is Phase.FORWARD
        if is_activation and allocation.step == last:
            kept[allocation.module] += sizes[number]
    return kept


def _run_forward(plan: Plan, batch_size: int) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Output shapes and multiply-adds of every module, from one forward pass on meta."""
    step, model = plan.step, plan.step.model
    shapes: dict[str, tuple[int, ...]] = {}
    handles = [
        module.register_forward_hook(_note_shape(path, shapes))
        for path, module in model.named_modules()
    ]
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad():
            inputs, _ = step.batch.make(batch_size, torch.device("meta"))
            call_model(model, inputs, is_tokens=step.batch.is_tokens)
    finally:
        for handle in handles:
            handle.remove()
    return shapes, dict(_own_multiply_adds(model, counter))


def _note_shape(path: str, shapes: dict[str, tuple[int, ...]]) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        for value in output.values() if isinstance(output, dict) else (output,):
            first = value[0] if isinstance(value, (tuple, list)) and value else value
            if isinstance(first, Tensor):
                shapes.setdefault(path, tuple(first.shape))
                return

    return hook


def _own_multiply_adds(model: nn.Module, counter: FlopCounterMode) -> Iterator[tuple[str, int]]:
    """A module's own share: its total less that of its children; one multiply-add is two flops."""
    root = type(model).__name__
    totals = {
        "" if name == root else name.removeprefix(f"{root}."): sum(by_operator.values())
        for name, by_operator in counter.get_flop_counts().items()
        if name != "Global"
    }
    children: defaultdict[str, int] = defaultdict(int)
    for path, total in totals.items():
        if path:
            children[path.rpartition(".")[0]] += total
    for path, total in totals.items():
        yield path, (total - children[path]) // 2
