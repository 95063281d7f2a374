"""The largest batches: by the rule, by every batch tried, by hand, and as the page finds them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import memfit
from memfit.cards.catalogue import GPU
from memfit.cards.catalogue import gpu as find_gpu
from memfit.memory.allocator.settings import AllocatorSettings
from memfit.memory.allocator.timeline import replay, runs_on
from memfit.memory.recording.virtual_gpu import VirtualGPU
from memfit.memory.tape.tape import Allocation, Part, Phase, Tape, max_live_bytes
from memfit.planner.largest import BatchLimits, find_limits, stops_up_to
from memfit.planner.limits import Limits
from memfit.planner.result import BatchPlan
from memfit.planner.tapes import Tapes
from memfit.units import MIB

VECTORS = json.loads((Path(__file__).parent.parent / "engine" / "limits.json").read_text())
ANY_CARD = find_gpu("1GiB")


def card_of(capacity_bytes: int, total_bytes: int | None = None) -> GPU:
    """A card without a CUDA context, which leaves so much to the allocator."""
    total = total_bytes or capacity_bytes
    return replace(ANY_CARD, usable_bytes=capacity_bytes, total_bytes=total, context_bytes=0)


# -- the rule --------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["rules"], ids=lambda vector: vector["name"])
def test_the_rule_gives_the_shared_answers(vector: dict[str, Any]) -> None:
    def within(rows: list[list[int]], batch: int) -> bool:
        return any(first <= batch <= last for first, last in rows)

    found = find_limits(
        lambda batch: within(vector["runs"], batch),
        lambda batch: within(vector["runs_safely"], batch),
        vector["last"],
        vector["stops"],
        vector.get("useful"),
    )
    assert found == BatchLimits(**vector["expected"])


holes = st.frozensets(st.integers(1, 300), max_size=12)


@given(st.integers(0, 300), holes, st.integers(0, 300), holes)
def test_up_to_512_the_promise_is_every_multiple_of_8(
    end: int, holes: frozenset[int], safe_end: int, safe_holes: frozenset[int]
) -> None:
    def runs(batch: int) -> bool:
        return batch <= end and batch not in holes

    def runs_safely(batch: int) -> bool:
        return batch <= safe_end and batch not in safe_holes

    found = find_limits(runs, runs_safely, 512)
    most = found.max_batch_size
    promised = (
        batch
        for batch in range(513)
        if all(runs(stop) for stop in range(8, batch + 1, 8) if 2 * stop >= batch - batch % 8)
        and all(runs(larger) for larger in range(max(1, batch - batch % 8), batch + 1))
    )
    assert most == max(promised)
    within = range(most, most + max(8, most // 8) + 1)
    assert found.largest_that_runs in within
    assert found.largest_that_runs == most or runs(found.largest_that_runs)
    if most < 128:
        assert not any(runs(batch) for batch in within if batch > found.largest_that_runs)
    recommended = found.recommended_batch_size
    assert recommended == 0 or runs_safely(recommended)
    assert recommended <= most
    assert recommended < 16 or recommended % 8 == 0
    assert not any(runs_safely(stop) for stop in range(8, most + 1, 8) if stop > recommended)


@given(st.integers(1, 1 << 24), st.integers(1, 1 << 24))
def test_where_fitting_ends_once_the_rule_finds_the_end(end: int, safe_end: int) -> None:
    asked: list[int] = []

    def runs(batch: int) -> bool:
        asked.append(batch)
        return batch <= end

    found = find_limits(runs, lambda batch: batch <= safe_end, 1 << 24)
    assert found.max_batch_size == found.largest_that_runs == end
    safe = min(end, safe_end)
    assert found.recommended_batch_size == (safe if safe < 16 else safe - safe % 8)
    upper_half = [batch for batch in asked if end <= 2 * batch <= 2 * end]
    assert len(upper_half) < 32 + 8 * 8


def test_stops_are_multiples_of_8_and_at_most_33_in_an_upper_half() -> None:
    stops = stops_up_to(1 << 24)
    assert all(stop % 8 == 0 for stop in stops)
    for most in stops:
        assert sum(2 * stop >= most for stop in stops if stop <= most) <= 33


# -- tapes and cards -------------------------------------------------------------------------------


class FakeTapes:
    """The tapes of a shared vector: sizes on lines, and jumps between two batches."""

    affine = True
    last_batch = 1 << 24

    def __init__(self, vector: dict[str, Any]) -> None:
        self._lines = list(zip(vector["constant"], vector["slope"], strict=True))
        self._jumps = vector["jumps"]
        allocation = Allocation(0, Part.ACTIVATIONS, Phase.FORWARD, "aten.relu.default")
        self.tape = Tape((allocation,) * len(self._lines), tuple(vector["events"]))

    def at(self, batch: int) -> tuple[Tape, list[int]]:
        sizes = [constant + slope * batch for constant, slope in self._lines]
        for jump in self._jumps:
            if jump["from"] <= batch <= jump["to"]:
                sizes[jump["allocation"]] += jump["bytes"]
        return self.tape, sizes

    def least_bytes(self, batch: int) -> int:
        sizes = [constant + slope * batch for constant, slope in self._lines]
        return max_live_bytes(sizes, self.tape.events)


@pytest.mark.parametrize("vector", VECTORS["tapes"], ids=lambda vector: vector["name"])
def test_the_tapes_give_the_shared_answers(vector: dict[str, Any]) -> None:
    card = replace(ANY_CARD, **vector["card"])
    options = AllocatorSettings.parse(vector["allocator"])
    tapes = FakeTapes(vector)
    found = Limits(cast(Tapes, tapes), options, vector["safety"]).on(card)
    assert found == BatchLimits(**vector["expected"])
    for batch in range(1, found.max_batch_size + 1):  # few enough to try every one
        assert runs_on(*tapes.at(batch), card, options)


allocator_options = st.builds(
    AllocatorSettings,
    expandable_segments=st.booleans(),
    max_split_size_bytes=st.sampled_from([None, 32 * MIB, 64 * MIB]),
    roundup_power2_divisions=st.sampled_from([0, 4, 8]),
    garbage_collection_threshold=st.sampled_from([0.0, 0.5, 0.8]),
    large_segment_size_bytes=st.sampled_from([20 * MIB, 32 * MIB]),
    per_process_memory_fraction=st.sampled_from([1.0, 0.5, 0.3]),
)


@pytest.fixture(scope="module")
def recorded() -> VirtualGPU:
    with VirtualGPU(ANY_CARD) as virtual:
        model = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10))
        model.to(virtual.device)
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(2):
            inputs = torch.empty(3000, 2048, device=virtual.device)
            optimizer.zero_grad()
            model(inputs).sum().backward()
            optimizer.step()
    return virtual


@settings(max_examples=200, deadline=None)
@given(allocator_options, st.integers(100, 400), st.integers(100, 800))
def test_everyone_who_asks_whether_it_runs_gets_one_answer(
    recorded: VirtualGPU, options: AllocatorSettings, free_mib: int, total_mib: int
) -> None:
    card = card_of(free_mib * MIB, total_mib * MIB)
    recorded.gpu, recorded.settings = card, options
    tape = recorded.tape
    tapes = type("Recorded", (), {"affine": True, "last_batch": 1})()
    tapes.at = lambda _: (tape, tape.sizes_bytes)
    tapes.least_bytes = lambda _: tape.peak_requested_bytes
    timeline = replay(tape, settings=options)
    at = BatchPlan.of(1, timeline, card, card, options)
    assert recorded.fits is at.fits() is Limits(tapes, options, 0.8).runs_on(card, 1)


# -- by hand ---------------------------------------------------------------------------------------


class Scale(nn.Module):
    """One weight times the input: 1 MiB of input a sample makes 1 MiB of output."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def test_the_largest_batch_by_hand() -> None:
    """Three tensors of b MiB live together: input, output, and the product in backward.

    (In the second step the new input meets the last input and output; its output takes the place
    of the last input, and the product that of the last output: never more than three blocks.)
    b is 10 MiB or more, so each has a segment of its own, rounded up to 2 MiB: 2 ceil(b / 2) MiB.
    For an odd b 1 MiB of it is left, which is not more than kSmallSize: the block is not split.
    The weight, its gradient, the sum and the rest take 512 B each, in one segment of 2 MiB.

        6 ceil(b / 2) MiB + 2 MiB <= 183.5 MiB       b = 60: 182 MiB; b = 61: 188 MiB
        6 ceil(b / 2) MiB + 2 MiB <= 80 % = 146.8    b = 48: 146 MiB; b = 49: 152 MiB
    """
    card = card_of(183 * MIB + MIB // 2)
    plan = memfit.plan(
        Scale(), input_shape=(MIB // 4,), gpu=card, loss=lambda output, _: output.sum()
    )
    assert plan.at(60).peak_reserved_bytes == plan.at(59).peak_reserved_bytes == 182 * MIB
    assert plan.at(61).peak_reserved_bytes == 188 * MIB
    assert (plan.max_batch_size, plan.recommended_batch_size) == (60, 48)
    assert plan.largest_that_runs == 60


# -- every batch tried -----------------------------------------------------------------------------

SMALL: dict[str, tuple[Any, dict[str, Any]]] = {
    "grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(8, 16, 3, groups=4, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
        ),
        {"input_shape": (8, 64, 64), "gpu": "400MiB", "optimizer": "adamw"},
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(8, 16, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
        ),
        {"input_shape": (8, 33, 33), "gpu": "400MiB", "optimizer": "adamw"},
    ),
    "resnet18": ("torchvision:resnet18", {"input_shape": (3, 96, 96), "gpu": "1GiB"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_every_batch_that_is_promised_runs(name: str) -> None:
    model, options = SMALL[name]
    plan = memfit.plan(model if isinstance(model, str) else model(), verify=False, **options)
    found = plan.batch_limits
    assert found is not None
    assert found.max_batch_size >= 8
    window = max(8, found.max_batch_size // 8)
    last = found.max_batch_size + window
    runs = {batch for batch in range(1, last + 1) if plan.at(batch).fits()}
    assert [b for b in range(8, found.max_batch_size, 8) if b not in runs] == []
    assert found.max_batch_size in runs
    assert found.max_batch_size + 1 not in runs
    assert found.largest_that_runs in runs
    assert found.largest_that_runs > max(runs) - max(1, -(-window // 16))
