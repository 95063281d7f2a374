"""What ``memfit explain`` finds in snapshots whose truth is known."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import memfit
from memfit.errors import DataError, UsageError
from memfit.explain.attribution import FOUND_PARTS
from memfit.explain.explained import Explained, explain_content, explain_snapshot
from memfit.explain.out_of_memory import Cause
from memfit.explain.part_rules import Sure
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import replay
from memfit.memory.snapshot.reader import read_snapshot
from memfit.memory.snapshot.writer import snapshot_bytes
from memfit.memory.tape.tape import Allocation, Part, Phase, Tape
from memfit.page.documents.explained import explain_document
from memfit.planner.snapshot import plan_snapshot
from memfit.units import MIB
from recorded_training import ZERO_GRAD, frames, recorded, stack_of, training_tape


def explained_of(value: dict[str, Any], device: int | None = None) -> Explained:
    raw = pickle.dumps(value, protocol=4)
    return explain_content(read_snapshot(io.BytesIO(raw), len(raw)), device)


def four_parts(parts: dict[str, int]) -> dict[str, int]:
    names = ("parameters", "gradients", "optimizer", "batch", "activations")
    return {name: parts[name] for name in names}


# -- our own export ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "expandable_segments:True", "max_split_size_mb:64"])
def test_a_round_trip_says_the_same(options: str) -> None:
    tape, settings = training_tape(), AllocatorSettings.parse(options)
    timeline = replay(tape, settings=settings)
    raw = snapshot_bytes(tape, settings=settings)
    found = explain_content(read_snapshot(io.BytesIO(raw), len(raw)))
    assert found.is_own
    assert found.peak_allocated_bytes == timeline.peak_allocated_bytes
    assert found.peak_reserved_bytes == timeline.peak_reserved_bytes
    assert {Part(k): v for k, v in found.parts.items() if k not in ("unknown", "cache")} == (
        timeline.peak.parts
    )
    assert found.parts["unknown"] == 0
    assert sum(found.parts.values()) == found.reserved_at_peak_bytes
    document = explain_document(found)
    parts = document["tape"]["parts"]
    kept = [a for a in tape.allocations if a.size_bytes]
    assert [parts[number] for number in document["tape"]["part"]] == [a.part for a in kept]
    assert set(document["tape"]["sure"]) == {0}
    strings = document["tape"]["strings"]
    assert [strings[n] for n in document["tape"]["module"]] == [a.module for a in kept]


@pytest.mark.parametrize("batch", [1, 8, 13])
def test_a_plan_exported_at_any_batch_says_what_the_plan_says(batch: int) -> None:
    plan = memfit.plan("cnn", optimizer="adam", precision="amp-fp16")
    raw = plan_snapshot(plan, batch)
    found = explain_content(read_snapshot(io.BytesIO(raw), len(raw)))
    at = plan.at(batch)
    assert found.peak_allocated_bytes == at.peak_allocated_bytes
    assert found.peak_reserved_bytes == at.peak_reserved_bytes
    assert found.peak_operator == at.peak.operator.removesuffix(".default")
    for part in ("parameters", "gradients", "optimizer", "batch", "activations", "temporaries"):
        assert found.parts[part] == at.parts[part]
    tape = explain_document(found)["tape"]
    pairs = zip(tape["part"], tape["shape"], strict=True)
    kinds = {tape["parts"][part]: shape for part, shape in pairs}
    assert batch in [size for size, _ in tape["shapes"][kinds["batch"]]]


def test_the_document_is_plain_and_complete() -> None:
    document = explain_document(explained_of(recorded()))
    tape = json.loads(json.dumps(document))["tape"]
    count, events = len(tape["constant"]), len(tape["events"])
    columns = ("part", "phase", "step", "operator", "module", "dtype", "shape", "slope", "sure")
    assert {len(tape[name]) for name in columns} == {count}
    assert {len(tape[name]) for name in ("times_us", "reserved", "allocated")} == {events}
    assert document["kind"] == "explain"
    assert set(tape["slope"]) == {0}


# -- anyone's snapshot -------------------------------------------------------------------------


def test_full_stacks_name_the_four_parts() -> None:
    tape = training_tape()
    found = explained_of(recorded())
    truth = {str(k): v for k, v in replay(tape).peak.parts.items()}
    assert four_parts(found.parts) == four_parts(truth)
    assert found.parts["workspaces"] == truth["workspaces"]
    assert found.parts["unknown"] == 0
    assert found.sure["parameters"]["certain"] == truth["parameters"]
    assert found.facts["steps"] == 2
    assert "model.py:12 forward" in {item.where for item in found.biggest}


def test_python_stacks_alone_are_less_sure_and_still_right() -> None:
    truth = {str(k): v for k, v in replay(training_tape()).peak.parts.items()}
    found = explained_of(recorded(python_only=True))
    for name in ("parameters", "gradients", "optimizer"):
        assert found.parts[name] == truth[name]
    wrong = sum(abs(found.parts[name] - truth[name]) for name in truth)
    assert wrong <= 0.05 * sum(truth.values())
    certain = zip(found.attribution.parts, found.attribution.sure, strict=True)
    assert (FOUND_PARTS.index("gradients"), Sure.CERTAIN) in set(certain)  # zero_grad freed them


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_trace_that_lost_its_beginning(share: float) -> None:
    whole = recorded()
    full = explained_of(whole)
    count = len(whole["device_traces"][0])
    found = explained_of(recorded(drop=int(share * count)))
    assert found.facts["before_trace"] > 0
    assert found.history.reserved_bytes[-1] == full.history.reserved_bytes[-1]
    assert found.history.allocated_bytes[-1] == full.history.allocated_bytes[-1]
    assert found.facts["unexplained_entries"] == 0
    assert found.parts["parameters"] == full.parts["parameters"]
    assert found.parts["optimizer"] == full.parts["optimizer"]


def test_what_nobody_recorded_is_told_by_the_sizes_of_gradients() -> None:
    snapshot = recorded(drop=0)
    trace = snapshot["device_traces"][0]
    steps = [i for i, e in enumerate(trace) if any("_init_group" in f["name"] for f in e["frames"])]
    del trace[: steps[-1] + 1]
    for segment in snapshot["segments"]:
        for block in segment["blocks"]:
            block["frames"] = []
    truth = replay(training_tape()).peak.parts
    found = explained_of(snapshot)
    assert found.parts["parameters"] == pytest.approx(truth[Part.PARAMETERS], rel=0.02)
    assert found.parts["optimizer"] == pytest.approx(truth[Part.OPTIMIZER], rel=0.02)
    assert found.sure["optimizer"]["certain"] == 0


def test_files_of_older_torch_have_fewer_keys() -> None:
    full = explained_of(recorded())
    snapshot = recorded()
    del snapshot["external_annotations"], snapshot["allocator_settings"]
    for entry in snapshot["device_traces"][0]:
        for name in ("time_us", "user_metadata"):
            entry.pop(name, None)
        if not entry["frames"]:
            del entry["frames"]
    for segment in snapshot["segments"]:
        for name in ("segment_pool_id", "is_expandable", "requested_size", "frames"):
            del segment[name]
        for block in segment["blocks"]:
            stack = block.pop("frames")
            requested = block.pop("requested_size")
            if requested:  # torch 2.0
                block["history"] = [{"addr": block["address"], "real_size": requested,
                                     "frames": stack}]  # fmt: skip
    found = explained_of(snapshot)
    assert found.parts == full.parts
    assert found.peak_reserved_bytes == full.peak_reserved_bytes


def test_a_snapshot_without_history_still_has_its_blocks() -> None:
    snapshot = recorded()
    snapshot["device_traces"] = [[]]
    found = explained_of(snapshot)
    live = sum(
        b["requested_size"] for s in snapshot["segments"] for b in s["blocks"]
        if b["state"] == "active_allocated"
    )  # fmt: skip
    assert sum(v for k, v in found.parts.items() if k != "cache") == live
    assert found.parts["parameters"] > 0


# -- out of memory -----------------------------------------------------------------------------


def steps_tape(sizes: list[tuple[int, Part, Phase]], events: list[int]) -> Tape:
    made = [Allocation(size, part, phase, "aten.addmm.default") for size, part, phase in sizes]
    return Tape(tuple(made), tuple(events))


def test_a_full_card_says_too_much_of_what() -> None:
    activations = [(30 * MIB, Part.ACTIVATIONS, Phase.FORWARD)] * 6
    tape = steps_tape([(20 * MIB, Part.PARAMETERS, Phase.DATA), *activations], list(range(7)))
    timeline = replay(tape, capacity_bytes=150 * MIB)
    assert timeline.out_of_memory is not None
    found = explained_of(recorded(tape, capacity_bytes=150 * MIB))
    (failure,) = found.out_of_memory
    assert failure.cause is Cause.FULL
    assert failure.requested_bytes == 30 * MIB
    assert failure.device_free_bytes == 10 * MIB
    assert failure.missing_bytes == 20 * MIB
    assert failure.fits_bytes == 10 * MIB
    assert failure.largest_part == "activations"
    assert failure.phase == "forward"
    assert failure.where == "model.py:12 forward"
    assert failure.batch_share == pytest.approx(0.95 * 130 / 150)
    assert any("checkpointing" in advice for advice in failure.advice)
    assert not any("expandable" in advice for advice in failure.advice)


def test_pieces_that_are_too_small_are_called_so() -> None:
    sizes = [(6 * MIB, Part.ACTIVATIONS, Phase.FORWARD)] * 18
    sizes.append((60 * MIB, Part.ACTIVATIONS, Phase.FORWARD))
    events = [*range(18), *(~n for n in range(18) if n % 3), 18]
    found = explained_of(recorded(steps_tape(sizes, events), capacity_bytes=130 * MIB))
    (failure,) = found.out_of_memory
    assert failure.cause is Cause.FRAGMENTED
    assert failure.cached_free_bytes + failure.device_free_bytes >= failure.requested_bytes
    assert failure.fits_bytes < failure.requested_bytes
    assert "expandable_segments" in failure.advice[0]
    assert failure.batch_share is None


@pytest.mark.parametrize(("freed", "cause"), [(6, Cause.FRAGMENTED), (5, Cause.FULL)])
def test_exactly_as_much_as_was_asked_is_enough_in_pieces(freed: int, cause: Cause) -> None:
    """Six segments of 20 MiB hold three blocks each; 6 * 2, 4 outside and what is freed is free."""
    sizes = [(6 * MIB, Part.ACTIVATIONS, Phase.FORWARD)] * 18
    sizes.append((52 * MIB, Part.ACTIVATIONS, Phase.FORWARD))
    events = [*range(18), *(~n for n in range(0, 3 * freed, 3)), 18]
    tape = steps_tape(sizes, events)
    (failure,) = explained_of(recorded(tape, capacity_bytes=124 * MIB)).out_of_memory
    assert failure.cause is cause
    assert failure.missing_bytes == (6 * MIB if cause is Cause.FULL else 0)


def test_a_request_of_what_fits_would_have_found_room() -> None:
    sizes = [(6 * MIB, Part.ACTIVATIONS, Phase.FORWARD)] * 18
    events = [*range(18), *(~n for n in range(18) if n % 3), 18]
    last = (60 * MIB, Part.ACTIVATIONS, Phase.FORWARD)
    (failure,) = explained_of(
        recorded(steps_tape([*sizes, last], events), capacity_bytes=130 * MIB)
    ).out_of_memory
    for size, is_refused in ((failure.fits_bytes, False), (failure.fits_bytes + MIB * 2, True)):
        tape = steps_tape([*sizes, (size, last[1], last[2])], events)
        assert (replay(tape, capacity_bytes=130 * MIB).out_of_memory is not None) == is_refused


@pytest.mark.parametrize("options", ["", "expandable_segments:True"])
@pytest.mark.parametrize("spare", [0, 1, 3, 9, 11, 15, 21])
def test_nothing_larger_than_what_fits_would_have_found_room(options: str, spare: int) -> None:
    settings, capacity_bytes = AllocatorSettings.parse(options), (120 + spare) * MIB
    sizes = [(6 * MIB, Part.ACTIVATIONS, Phase.FORWARD)] * 18
    events = [*range(18), *(~n for n in range(18) if n % 3), 18]

    def is_refused(size_bytes: int) -> bool:
        tape = steps_tape([*sizes, (size_bytes, Part.ACTIVATIONS, Phase.FORWARD)], events)
        return replay(
            tape, settings=settings, capacity_bytes=capacity_bytes
        ).out_of_memory is not None  # fmt: skip

    tape = steps_tape([*sizes, (90 * MIB, Part.ACTIVATIONS, Phase.FORWARD)], events)
    given = recorded(tape, capacity_bytes=capacity_bytes, settings=settings)
    (failure,) = explained_of(given).out_of_memory
    assert not is_refused(failure.fits_bytes)
    if not options:  # free pages at the end of an expandable segment count beside it
        assert all(is_refused(n * MIB) for n in range(failure.fits_bytes // MIB + 1, 90))


def test_a_piece_of_a_small_segment_serves_small_requests_only() -> None:
    tape = steps_tape(
        [(512, Part.BATCH, Phase.DATA), (3 * MIB // 2, Part.ACTIVATIONS, Phase.FORWARD)], [0, 1]
    )
    (failure,) = explained_of(recorded(tape, capacity_bytes=9 * MIB)).out_of_memory
    assert failure.largest_free_bytes > failure.requested_bytes
    assert failure.fits_bytes == MIB
    assert failure.segment_bytes == 20 * MIB
    assert failure.device_free_bytes >= failure.requested_bytes


# -- devices, errors, text ---------------------------------------------------------------------


def test_the_device_with_most_is_taken_and_another_can_be_asked() -> None:
    one, two = recorded(), recorded(steps_tape([(MIB, Part.BATCH, Phase.DATA)], [0]))
    for segment in one["segments"]:
        segment["device"] = 1
    both = {"segments": two["segments"] + one["segments"],
            "device_traces": [two["device_traces"][0], one["device_traces"][0]]}  # fmt: skip
    found = explained_of(both)
    assert (found.device, found.devices) == (1, [0, 1])
    assert found.parts == explained_of(recorded()).parts
    assert explained_of(both, 0).peak_allocated_bytes == MIB
    with pytest.raises(UsageError, match=r"device 2; it has 0, 1"):
        explained_of(both, 2)


def test_an_empty_snapshot_is_no_answer() -> None:
    with pytest.raises(DataError, match="empty"):
        explained_of({"segments": [], "device_traces": [[], []]})


def test_a_user_stack_with_a_closure_is_forward() -> None:
    from memfit.explain.places import facts_of
    from memfit.memory.snapshot.snapshot import Frame

    made = Allocation(1, Part.ACTIVATIONS, Phase.FORWARD, "aten.relu.default")
    stack = stack_of(made)[:-2] + frames(
        "/home/me/train.py:5:closure", "/x/torch/optim/lbfgs.py:320:step", *ZERO_GRAD[1:]
    )
    facts = facts_of([tuple(Frame(f["filename"], f["line"], f["name"]) for f in stack)])[0]
    assert facts.phase is Phase.FORWARD
    assert facts.operator == "aten.relu"


def test_the_command_prints_text_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from memfit.commands.explain import explain

    path = tmp_path / "oom.pickle"
    path.write_bytes(snapshot_bytes(training_tape(), capacity_bytes=4 * MIB))
    assert explain(path) == 0
    text = capsys.readouterr().out
    assert "Out of memory in" in text
    assert "would have found room" in text
    assert explain(path, as_json=True) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["out_of_memory"][0]["cause"] in ("full", "fragmented")
    assert value["parts"] == explain_snapshot(path).parts


@pytest.mark.parametrize("width", [40, 59, 60, 100])
def test_the_text_moves_no_cursor_and_stays_narrow(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    value = recorded(capacity_bytes=12 * MIB)
    for entry in value["device_traces"][0]:
        entry["frames"] = frames("/home/me/\x1b[2Jtrain.py:1:step\x1b]0;mine\x07\u202e")
    path = tmp_path / "bad\x1b[31m.pickle"
    path.write_bytes(pickle.dumps(value))
    monkeypatch.setenv("COLUMNS", str(width))
    from memfit.commands.explain import explain

    assert explain(path) == 0
    text = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "4.0 MiB  100.0 %" in text  # no number is cut


@pytest.mark.parametrize(
    "label",
    [{"step": -1}, {"step": 2**70}, {"step": float("inf")}, {"shape": [1e300]}, {"shape": 5}],
)
def test_a_label_that_memfit_would_not_write_is_none(label: dict[str, Any]) -> None:
    value = pickle.loads(snapshot_bytes(training_tape()))
    first = next(e for e in value["device_traces"][0] if e["action"] == "alloc")
    first["user_metadata"] = json.dumps(json.loads(first["user_metadata"]) | label)
    found = explained_of(value)
    assert len(found.attribution.labels) > 1
    assert found.to_dict()["facts"]["steps"] == 2
