"""The CPU under a virtual budget, against the recorder's tape replayed, and real PyTorch."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from memfit.errors import UsageError
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import fits, replay
from memfit.memory.recording.cpu_budget import CpuBudget
from memfit.memory.recording.recorder import Recorder
from memfit.memory.tape.tape import Part, Phase, Tape

MIB = 1024**2
PLENTY = 1024 * MIB
BATCH = 64


def wide() -> nn.Sequential:
    """Layers of some MiB, so that segments matter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 768), nn.Linear(768, 10))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, 512, generator=generator)
    return images, torch.randint(0, 10, (BATCH,), generator=generator)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 2) -> Tensor:
    loss = torch.zeros(())
    for _ in range(steps):
        images, labels = batch()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    return loss.detach()


def recorded(steps: int = 2) -> Tape:
    model = wide()
    optimizer = torch.optim.AdamW(model.parameters())
    with Recorder("cpu") as recorder:
        recorder.adopt_module(model)
        train(model, optimizer, steps)
        return recorder.tape()


def run(capacity_bytes: int, options: AllocatorSettings | None = None) -> CpuBudget:
    model = wide()
    optimizer = torch.optim.AdamW(model.parameters())
    with CpuBudget(capacity_bytes, options) as budget:
        budget.adopt(model)
        train(model, optimizer)
    return budget


@pytest.mark.parametrize("expandable", [False, True])
def test_counts_what_the_recorders_tape_replays_to(expandable: bool) -> None:
    options = AllocatorSettings(expandable_segments=expandable)
    timeline = replay(recorded(), settings=options, capacity_bytes=PLENTY)
    budget = run(PLENTY, options)
    assert budget.max_allocated_bytes == timeline.peak_allocated_bytes
    assert budget.max_reserved_bytes == timeline.peak_reserved_bytes


@settings(max_examples=15)
@given(capacity=st.integers(4, 70).map(lambda mib: mib * MIB))
def test_runs_out_exactly_where_the_tape_does(capacity: int) -> None:
    tape = recorded()
    if fits(tape, tape.sizes_bytes, capacity):
        assert run(capacity).max_reserved_bytes <= capacity
    else:
        with pytest.raises(torch.OutOfMemoryError, match="virtual budget"):
            run(capacity)


def test_the_property_above_sees_both_sides() -> None:
    tape = recorded()
    assert not fits(tape, tape.sizes_bytes, 4 * MIB)
    assert fits(tape, tape.sizes_bytes, 70 * MIB)


def test_values_are_those_of_plain_pytorch() -> None:
    plain, counted = wide(), wide()
    loss = train(plain, torch.optim.AdamW(plain.parameters()), 3)
    with CpuBudget(PLENTY):
        assert torch.equal(train(counted, torch.optim.AdamW(counted.parameters()), 3), loss)
    for one, other in zip(plain.parameters(), counted.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_parts_are_those_of_the_model() -> None:
    parts = run(PLENTY).peak_parts
    weights = sum(p.numel() * 4 for p in wide().parameters())
    assert parts[Part.PARAMETERS] == parts[Part.GRADIENTS] == weights
    assert parts[Part.OPTIMIZER] == 2 * weights
    assert sum(parts.values()) <= run(PLENTY).max_allocated_bytes


def test_activations_and_batch_at_the_peak_of_a_forward() -> None:
    model, (images, labels) = wide(), batch()
    with CpuBudget(PLENTY) as budget:
        budget.adopt(images)
        budget.adopt(labels, Part.BATCH)
        budget.reset_peak()
        loss = F.cross_entropy(model(images), labels)
        peak = budget.max_allocated_bytes
        assert budget.peak_parts[Part.BATCH] == images.nbytes + labels.nbytes
        loss.backward()
        assert budget.max_allocated_bytes > peak
    assert budget.peak_parts[Part.ACTIVATIONS] > 0
    assert budget.peak_parts[Part.PARAMETERS] == 0, "nobody adopted the model"


def test_what_dies_is_given_back() -> None:
    with CpuBudget(PLENTY) as budget:
        kept = torch.empty(3 * MIB, dtype=torch.uint8)
        gone = torch.empty(5 * MIB, dtype=torch.uint8)
        view = gone[:1]
        assert budget.allocated_bytes == 8 * MIB
        del gone
        assert budget.allocated_bytes == 8 * MIB, "a view keeps the storage"
        del view
        assert budget.allocated_bytes == kept.nbytes
        assert budget.max_allocated_bytes == 8 * MIB
        budget.reset_peak()
        assert budget.max_allocated_bytes == kept.nbytes
        del kept
        assert budget.reserved_bytes > 0 == budget.allocated_bytes
        budget.empty_cache()
        assert budget.reserved_bytes == 0


def test_adopting_is_allocating() -> None:
    model = wide()
    with CpuBudget(PLENTY) as budget:
        budget.adopt(model)
        budget.adopt(model)
        assert budget.allocated_bytes >= sum(p.nbytes for p in model.parameters())
        assert budget.allocated_bytes < 1.2 * sum(p.nbytes for p in model.parameters())
    with CpuBudget(4 * MIB) as budget, pytest.raises(torch.OutOfMemoryError):
        budget.adopt(model)


def test_an_optimizers_state_is_adopted() -> None:
    model = wide()
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer, 1)
    with CpuBudget(PLENTY) as budget:
        budget.adopt(optimizer)
        assert budget.peak_parts[Part.OPTIMIZER] == 2 * sum(p.nbytes for p in model.parameters())
        assert budget.peak_parts[Part.TEMPORARIES] == 0


def test_the_message_says_what_and_where() -> None:
    model = wide()
    with CpuBudget(28 * MIB) as budget:
        budget.adopt(model)
        with pytest.raises(torch.OutOfMemoryError, match=r"aten\.addmm in 0 asked for 1[67]") as e:
            model(torch.randn(4200, 512)[:4200])
    assert "capacity 28.0 MiB" in str(e.value)


@pytest.mark.parametrize("phase", [Phase.DATA, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER])
@pytest.mark.parametrize("after", [1, 2])
def test_fails_once_where_it_is_told(phase: Phase, after: int) -> None:
    model = wide()
    optimizer = torch.optim.AdamW(model.parameters())
    seen: list[Phase] = []
    with CpuBudget(PLENTY) as budget:
        budget.adopt(model)
        images, labels = batch()
        budget.fail(phase, after)
        assert budget.is_failure_pending
        with pytest.raises(torch.OutOfMemoryError, match="asked for"):
            step(model, optimizer, images, labels, seen)
        assert not budget.is_failure_pending
        optimizer.state.clear()  # Adam cannot go on from a half-made state
        order = [Phase.DATA, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER]
        assert seen == order[: order.index(phase)]
        step(model, optimizer, images, labels, seen)


def step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    seen: list[Phase],
) -> None:
    """A step that notes which phases it got through."""
    optimizer.zero_grad()
    inputs = images.clone().clone()
    seen.append(Phase.DATA)
    loss = F.cross_entropy(model(inputs), labels)
    seen.append(Phase.FORWARD)
    loss.backward()
    seen.append(Phase.BACKWARD)
    optimizer.step()
    seen.append(Phase.OPTIMIZER)


def test_a_failed_forward_leaves_nothing_allocated() -> None:
    model, (images, labels) = wide(), batch()
    with CpuBudget(PLENTY) as budget:
        budget.adopt(model)
        before = budget.allocated_bytes
        budget.fail(Phase.FORWARD, after=4)
        with pytest.raises(torch.OutOfMemoryError):
            F.cross_entropy(model(images), labels)
        gc.collect()  # pytest's own record of the exception
        assert budget.allocated_bytes == before
        loss = F.cross_entropy(model(images), labels)
        assert budget.allocated_bytes > before
        del loss


def test_after_a_failure_comes_data() -> None:
    model, (images, labels) = wide(), batch()
    with CpuBudget(PLENTY) as budget:
        budget.adopt(model)
        budget.fail(Phase.FORWARD, after=3)
        with pytest.raises(torch.OutOfMemoryError):
            model(images)
        again = labels.clone()
        budget.reset_peak()
        F.cross_entropy(model(images), again).backward()
        assert budget.peak_parts[Part.BATCH] == again.nbytes


def test_running_statistics_may_have_moved_when_it_is_raised() -> None:
    layer = nn.BatchNorm1d(8)
    with CpuBudget(PLENTY) as budget:
        budget.adopt(layer)
        budget.fail(Phase.FORWARD, after=1)
        with pytest.raises(torch.OutOfMemoryError):
            layer(torch.randn(16, 8))
    assert layer.num_batches_tracked == 1


def test_the_collector_may_run_at_any_moment() -> None:
    left = []
    threshold = gc.get_threshold()
    for eagerness in (threshold[0], 1):
        model = wide()
        optimizer = torch.optim.AdamW(model.parameters())
        with CpuBudget(PLENTY) as budget:
            budget.adopt(model)
            gc.set_threshold(eagerness)
            try:
                for _ in range(3):
                    cycle: list[object] = [torch.empty(MIB, dtype=torch.uint8)]
                    cycle.append(cycle)
                    del cycle
                    train(model, optimizer, 1)
            finally:
                gc.set_threshold(*threshold)
            gc.collect()
            left.append(budget.allocated_bytes)
    assert left[0] == left[1] > 4 * sum(p.nbytes for p in wide().parameters())


def test_keeps_no_tape_of_the_past() -> None:
    model = wide()
    optimizer = torch.optim.AdamW(model.parameters())
    counts = []
    with CpuBudget(PLENTY) as budget:
        budget.adopt(model)
        for _ in range(4):
            train(model, optimizer, 2)
            counts.append(len(budget.recorder.ledger.records) + len(budget.recorder.ledger.events))
    assert counts[1] == counts[2] == counts[3]


def test_the_budget_itself_goes_when_it_is_done() -> None:
    budget = run(PLENTY)
    account = weakref.ref(budget.recorder)
    gc.collect()
    gc.disable()
    try:
        del budget
        assert account() is None
    finally:
        gc.enable()


def test_two_budgets_in_turn_and_copies_of_models() -> None:
    model = wide()
    with CpuBudget(PLENTY) as first:
        other = copy.deepcopy(model)
        copied = first.allocated_bytes
    with CpuBudget(PLENTY) as second:
        second.adopt(other)
        assert second.allocated_bytes == copied


@pytest.mark.parametrize("capacity", [0, -1])
def test_no_budget_is_a_usage_error(capacity: int) -> None:
    with pytest.raises(UsageError, match="is none"):
        CpuBudget(capacity)


def test_the_first_allocation_is_number_one() -> None:
    with pytest.raises(UsageError, match="number 1"):
        CpuBudget(MIB).fail(Phase.FORWARD, after=0)
