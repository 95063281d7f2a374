"""The table of ``memfit model``: each parameter and byte once, and columns that add up."""

from __future__ import annotations

import io
import re

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import memfit
from memfit.planner.layers import LayerTable, summarise_layers
from memfit.report.console.terminal import as_text
from memfit.report.plan.layers import render_layers


class Tied(nn.Module):
    """A layer used twice, a weight shared by two layers, one frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU())
        self.twin = nn.Linear(8, 8, bias=False)
        self.twin.weight = self.block[0].weight
        self.frozen = nn.Linear(8, 4)
        self.unused = nn.Linear(2, 2)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.twin(self.block(self.block(x))))


def table(depth: int | None = None, batch_size: int = 3) -> LayerTable:
    plan = memfit.plan(Tied, input_shape=(8,), gpu="11GiB", batch_size=batch_size)
    return summarise_layers(plan, depth=depth)


def test_a_shared_parameter_counts_once_and_is_marked() -> None:
    layers = {layer.path: layer for layer in table().layers}
    assert layers["block.0"].parameters == 64
    assert layers["twin"].parameters == 0
    assert layers["twin"].shares_with == "block.0"
    assert (layers["frozen"].parameters, layers["frozen"].trainable) == (36, 0)
    assert table().parameters == sum(p.numel() for p in Tied().parameters())


def test_multiply_adds_of_every_call_are_counted() -> None:
    layers = {layer.path: layer for layer in table().layers}
    assert layers["block.0"].calls == 2
    assert layers["block.0"].multiply_adds == 2 * 3 * 8 * 8
    assert layers["frozen"].multiply_adds == 3 * 8 * 4
    assert layers["unused"].calls == 0
    assert layers["unused"].output_shape is None
    assert layers["frozen"].output_shape == (3, 4)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_depth_moves_counts_and_loses_none(depth: int) -> None:
    full, shown = table(), table(depth)
    assert max(layer.depth for layer in shown.layers) == depth
    for name in ("parameters", "trainable", "kept_bytes", "multiply_adds"):
        assert getattr(shown, name) == getattr(full, name) > 0


def test_kept_bytes_are_what_autograd_keeps() -> None:
    """Each distinct tensor that autograd packs (no input, no parameter), and the last output."""
    torch.manual_seed(0)
    model, inputs = (
        nn.Sequential(nn.Linear(8, 16), nn.Sigmoid(), nn.Linear(16, 4)),
        torch.rand(3, 8),
    )
    packed: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        packed[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(inputs)
    for tensor in (inputs, *model.parameters()):
        packed.pop(tensor.data_ptr(), None)
    packed[output.data_ptr()] = output.untyped_storage().nbytes()
    plan = memfit.plan(model, input_shape=(8,), gpu="11GiB", batch_size=3)
    layers = {layer.path: layer for layer in summarise_layers(plan).layers}
    assert sum(layers[path].kept_bytes for path in ("0", "1", "2")) == sum(packed.values())


def test_kept_bytes_grow_with_the_batch_and_parameters_do_not() -> None:
    small, large = table(batch_size=2), table(batch_size=64)
    assert large.kept_bytes > 8 * small.kept_bytes
    assert large.parameters == small.parameters


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_it_reads_well_at_every_width(width: int, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, highlight=False, markup=False)
    text = as_text(console, render_layers(table(), console))
    text.encode(encoding)
    assert all(len(line) <= width for line in text.splitlines())
    assert "?" not in text
    assert "frozen" in text


def test_the_printed_columns_add_up() -> None:
    console = Console(file=io.StringIO(), width=120, highlight=False, markup=False)
    summary = table()
    text = as_text(console, render_layers(summary, console))
    total = next(line for line in text.splitlines() if line.startswith("total"))
    assert re.findall(r"[\d,]+", total)[:2] == [f"{summary.parameters}", f"{summary.trainable}"]
    assert sum(layer.kept_bytes for layer in summary.layers) == summary.kept_bytes
