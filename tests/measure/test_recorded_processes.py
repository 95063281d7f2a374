"""Plans against what PyTorch's own CUDA build allocated; see ``recorded_processes.py``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recorded_processes import ANSWERS, RECIPES

from memfit.cards.catalogue import gpu
from memfit.measure.compare import Comparison, compare
from memfit.measure.history import workspaces_of
from memfit.measure.records import Measurement
from memfit.measure.sequence import unpack_tape
from memfit.memory.allocator.timeline import replay
from memfit.memory.tape.tape import Part
from memfit.planner.planning import plan

VERSION = ".".join(torch.__version__.split(".")[:2])
EVERY = [(name, version) for name, versions in ANSWERS.items() for version in versions]


@pytest.mark.parametrize(("name", "version"), EVERY)
def test_the_history_replays_to_what_torch_counted(name: str, version: str) -> None:
    """``recorded_allocated_bytes`` was held against ``max_memory_allocated`` when recorded."""
    answer = ANSWERS[name][version]
    tape = unpack_tape(answer["sequence"])
    timeline = replay(tape)
    assert timeline.peak_allocated_bytes == answer["recorded_allocated_bytes"]
    assert timeline.peak_allocated_bytes == answer["peak_allocated_bytes"]
    assert timeline.peak_reserved_bytes == answer["peak_reserved_bytes"]
    parts = {str(part): size for part, size in timeline.peak.parts.items()}
    assert {p: s for p, s in parts.items() if s} == {p: s for p, s in answer["parts"].items() if s}


@pytest.mark.parametrize("version", ["2.11", "2.15"])
def test_backward_runs_in_a_thread_of_its_own_and_is_recorded(version: str) -> None:
    """Autograd's device thread takes the dispatch modes along, and a cuBLAS handle of its own."""
    tape = unpack_tape(ANSWERS["adam"][version]["sequence"])
    gradients = {a.module for a in tape.allocations if a.part is Part.GRADIENTS}
    assert len(gradients) == 2  # both linear layers, by their paths
    assert all(gradients)
    held = [w.count for w in workspaces_of(tape) if w.is_held and w.size_bytes == 8_519_680]
    assert sum(held) == (2 if version == "2.11" else 0)


def compared(name: str, answer: dict[str, Any]) -> Comparison:
    recipe, batch_size = RECIPES[name]
    made = plan(recipe, gpu=gpu("rtx-3060"), verify=False)
    measurement = Measurement.of(batch_size, {"status": "ok", **answer})
    return compare(made, measurement, unpack_tape(answer["sequence"]))


@pytest.mark.skipif(VERSION not in ("2.11", "2.15"), reason="recorded with torch 2.11 and 2.15")
@pytest.mark.parametrize("name", ["adam", "accumulation"])
def test_a_plan_is_right_to_the_byte(name: str) -> None:
    found = compared(name, ANSWERS[name][VERSION])
    assert [f.error for f in (*found.figures, *found.parts)] == [0.0] * 9
    assert found.at_peak == ()


@pytest.mark.skipif(VERSION not in ("2.11", "2.15"), reason="recorded with torch 2.11 and 2.15")
def test_a_scaler_is_off_by_its_scalars_alone() -> None:
    found = compared("fused-amp", ANSWERS["fused-amp"][VERSION])
    allocated = found.figures[0]
    assert 0 <= allocated.predicted_bytes - allocated.measured_bytes <= 2 * 512
