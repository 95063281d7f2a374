"""Records: whole, readable again, and found by what decides memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfit.cards.catalogue import gpu
from memfit.errors import NoGPU, RunError, UsageError
from memfit.measure.compare import differences
from memfit.measure.process import recipe_facts
from memfit.measure.records import (
    Limit,
    Measurement,
    Record,
    load_record,
    measured_points,
    save_record,
)
from memfit.measure.sequence import pack_tape, unpack_tape
from memfit.measure.target import Target, choose_target
from memfit.memory.tape.tape import Allocation, Part, Phase, Tape
from memfit.recipe.recipe import Recipe

CARD = gpu("rtx-3060")
RECIPE = Recipe(model="torchvision:resnet18", optimizer={"name": "sgd", "momentum": 0.9})


def record(**changes: object) -> Record:
    made = Record(
        "resnet18",
        "resnet",
        Target("cuda", CARD).facts(),
        {"torch": "2.15.0"},
        recipe_facts(RECIPE),
        "2026-11-21T00:00:00+00:00",
        (
            Measurement(8, "ok", "", 100, 200, 90, 200, gpu_used_bytes=300, others=()),
            Measurement(32, "out_of_memory", "no"),
            Measurement(16, "ok", "", 150, 250, others=("game (pid 9)",)),
        ),
        Limit(30, ((32, "out_of_memory"), (30, "ok"))),
        {"8": "text"},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_record_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "rtx-3060" / "resnet18.json"
    save_record(path, record())
    assert load_record(path) == record()
    assert json.loads(path.read_text())["schema_version"] == 1
    assert [p.name for p in path.parent.iterdir()] == ["resnet18.json"]
    assert load_record(path).target_key == "rtx-3060"


@pytest.mark.parametrize(
    ("others", "retries", "counts"),
    [((), 3, True), (("game (pid 9)",), 0, True), (("game (pid 9)",), 3, False)],
)
def test_others_spoil_what_ran_short_of_memory(
    others: tuple[str, ...], retries: int, counts: bool
) -> None:
    assert Measurement(8, "ok", others=others, retries=retries).counts is counts


def test_what_is_no_record_is_said(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    for text in ("{", '{"schema_version": 1}', '{"schema_version": 1, "measurements": [{}]}'):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"broken\.json"):
            load_record(path)
    with pytest.raises(UsageError, match="Cannot read"):
        load_record(tmp_path / "none.json")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        save_record(tmp_path / "file" / "record.json", record())


def test_points_of_the_same_training(tmp_path: Path) -> None:
    save_record(tmp_path / "rtx-3060" / "resnet18.json", record())
    same = RECIPE.but(lr=0.5, epochs=9, batch_size=8, seed=3)
    (point,) = measured_points(same, "rtx-3060", tmp_path)  # alone on the GPU, and went well
    assert point["batch_size"] == 8
    assert (point["peak_allocated_bytes"], point["peak_reserved_bytes"]) == (100, 200)
    assert point["total_bytes"] == 300
    assert "RTX 3060" in point["source"]
    assert measured_points(same.but(precision="amp-fp16"), "rtx-3060", tmp_path) == []
    assert measured_points(same.but(optimizer="adam"), "rtx-3060", tmp_path) == []
    assert measured_points(same, "rtx-3090", tmp_path) == []


def test_the_cpu_is_no_gpu(tmp_path: Path) -> None:
    target = choose_target("cpu:2GiB")
    save_record(tmp_path / target.key / "resnet18.json", record(target=target.facts()))
    assert measured_points(RECIPE, target.key, tmp_path) == []


def test_targets_never_share_a_folder() -> None:
    keys = [Target("cuda", CARD).key, Target("cuda", CARD, 0.5).key, choose_target("cpu:2GiB").key]
    assert keys == ["rtx-3060", "rtx-3060-at-0.5", "cpu-2gib"]
    unknown = replace(CARD, key="local", name="NVIDIA H999 80GB")
    assert Target("cuda", unknown).key == "nvidia-h999-80gb"
    assert Target.of(Target("cuda", CARD, 0.5).facts()) == Target("cuda", CARD, 0.5)


@pytest.mark.parametrize("on", ["cpu", "gpu:2GiB", "cpu:much"])
def test_what_is_no_target(on: str) -> None:
    with pytest.raises(UsageError):
        choose_target(on)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, float("nan")])
def test_what_is_no_share(fraction: float) -> None:
    with pytest.raises(UsageError, match="share"):
        choose_target(None, fraction)


def test_without_a_gpu_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("memfit.measure.target.local_gpu", lambda: None)
    with pytest.raises(NoGPU, match="NVIDIA GPU") as caught:
        choose_target()
    assert "--on cpu:2GiB" in str(caught.value.hint)
    monkeypatch.setattr("memfit.measure.target.local_gpu", lambda: (CARD, 1))
    with pytest.raises(NoGPU, match="cannot use it"):
        choose_target()


def test_a_share_of_a_gpu_is_what_the_allocator_may_reserve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("memfit.measure.target.local_gpu", lambda: (CARD, CARD.usable_bytes))
    card = choose_target(None, 0.5).card
    assert card.usable_bytes - card.context_bytes == CARD.total_bytes // 2
    assert choose_target(None, 1.0).card.usable_bytes == CARD.usable_bytes


def test_a_card_that_nvml_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = '["NVIDIA H999 MIG 1g", 9, 0, 16, 9000000000, 10000000000]'
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("memfit.measure.target.local_gpu", lambda: None)
    monkeypatch.setattr("memfit.measure.target._ASK_CUDA", f"print({answer!r})")
    target = choose_target()
    assert (target.key, target.card.usable_bytes) == ("nvidia-h999-mig-1g", 9_000_000_000)
    assert target.card.compute_capability == (9, 0)
    monkeypatch.setattr("memfit.measure.target._ASK_CUDA", "raise SystemExit('no device')")
    with pytest.raises(NoGPU, match="no device"):
        choose_target()


allocations = st.lists(
    st.tuples(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.just("forward")),
        st.integers(1, 4),
    )
)


@given(allocations, allocations)
def test_differences_sum_to_the_difference(ours: list, theirs: list) -> None:  # type: ignore[type-arg]
    found = differences(ours, theirs)
    predicted, measured = (sum(size for _, size in side) for side in (ours, theirs))
    assert sum(d.predicted_bytes - d.measured_bytes for d in found) == predicted - measured
    sizes = [d.size_bytes for d in found]
    assert sizes == sorted(sizes, reverse=True)
    assert differences(ours, list(reversed(ours))) == ()


@given(st.lists(st.tuples(st.integers(0, 2**40), st.booleans()), max_size=30))
def test_a_packed_sequence_comes_back(rows: list[tuple[int, bool]]) -> None:
    made = [
        Allocation(size, Part.ACTIVATIONS, Phase.FORWARD, f"aten.op{size % 3}", f"layer{n % 2}")
        for n, (size, _) in enumerate(rows)
    ]
    events = [e for n, (_, freed) in enumerate(rows) for e in ([n, ~n] if freed else [n])]
    tape = Tape(tuple(made), tuple(events))
    assert unpack_tape(pack_tape(tape)) == tape


def test_a_damaged_sequence_is_refused() -> None:
    allocation = Allocation(8, Part.BATCH, Phase.DATA, "op")
    for events in ((0, ~0, ~0), (0, 0), (~0, 0), ()):
        with pytest.raises(UsageError, match="sequence"):
            unpack_tape(pack_tape(Tape((allocation,), events)))
    for text in ("", "!!", pack_tape(Tape((allocation,), (0,)))[:-8]):
        with pytest.raises(UsageError, match="sequence"):
            unpack_tape(text)
