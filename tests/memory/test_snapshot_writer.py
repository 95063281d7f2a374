"""The exported snapshot is what torch would have recorded, and says the same peaks."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.explain.explained import explain_content
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import replay
from memfit.memory.snapshot.reader import read_snapshot
from memfit.memory.snapshot.writer import snapshot_bytes
from memfit.memory.tape.tape import Allocation, Part, Phase, Tape
from memfit.page.documents.explained import explain_document
from memfit.units import MIB

PARTS = [part for part in Part if part not in (Part.CACHE, Part.CONTEXT)]


@st.composite
def tapes(draw: st.DrawFn) -> Tape:
    size = st.one_of(st.integers(0, 3 * MIB), st.integers(MIB, 60 * MIB))
    made = draw(st.lists(st.tuples(size, st.sampled_from(PARTS)), min_size=1, max_size=40))
    events: list[int] = []
    live: list[int] = []
    for number in range(len(made)):
        events.append(number)
        live.append(number)
        for _ in range(draw(st.integers(0, 2))):
            if live:
                events.append(~live.pop(draw(st.integers(0, len(live) - 1))))
    allocations = [Allocation(n, part, Phase.FORWARD, "aten.mm.default") for n, part in made]
    return Tape(tuple(allocations), tuple(events))


OPTIONS = st.sampled_from(
    [
        "",
        "expandable_segments:True",
        "max_split_size_mb:32",
        "roundup_power2_divisions:4",
        "max_split_size_mb:20,roundup_power2_divisions:[64:8,>:2]",
    ]
)


@settings(max_examples=120)
@given(tape=tapes(), options=OPTIONS, capacity=st.sampled_from([None, 64 * MIB, 200 * MIB]))
def test_a_round_trip_gives_every_byte_back(tape: Tape, options: str, capacity: int | None) -> None:
    conf = AllocatorSettings.parse(options)
    timeline = replay(tape, settings=conf, capacity_bytes=capacity)
    raw = snapshot_bytes(tape, settings=conf, capacity_bytes=capacity)
    content = read_snapshot(io.BytesIO(raw), len(raw))
    if not content.segments and timeline.out_of_memory is None:
        return  # nothing but requests of no bytes
    found = explain_content(content)
    history = found.history
    played = tape.events[: len(timeline.allocated_bytes)]
    with_bytes = [i for i, e in enumerate(played) if tape.sizes_bytes[e if e >= 0 else ~e]]
    assert list(history.allocated_bytes) == [timeline.allocated_bytes[i] for i in with_bytes]
    assert list(history.reserved_bytes) == [timeline.reserved_bytes[i] for i in with_bytes]
    assert history.surprises == 0
    kept = [tape.allocations[e] for e in played if e >= 0 and tape.sizes_bytes[e]]
    columns = explain_document(found)["tape"]
    assert [columns["parts"][n] for n in columns["part"]] == [a.part for a in kept]
    assert columns["constant"] == [a.size_bytes for a in kept]
    assert (len(found.out_of_memory) == 1) == (timeline.out_of_memory is not None)
    if timeline.out_of_memory is not None:
        (failure,) = found.out_of_memory
        assert failure.allocated_bytes == timeline.out_of_memory.allocated_bytes
        assert failure.reserved_bytes == timeline.out_of_memory.reserved_bytes
        assert capacity is not None
        assert failure.device_free_bytes == capacity - failure.reserved_bytes


@settings(max_examples=40)
@given(tape=tapes(), options=OPTIONS)
def test_torchs_own_tools_read_it(tape: Tape, options: str) -> None:
    from torch.cuda import _memory_viz

    conf = AllocatorSettings.parse(options)
    snapshot: Any = pickle.loads(snapshot_bytes(tape, settings=conf))
    assert "total_reserved" in _memory_viz.segsum(snapshot)
    assert _memory_viz.trace(snapshot).startswith("Device 0")
    assert "Active Memory Timeline" in _memory_viz.trace_plot(snapshot)
    assert "Allocator State History" in _memory_viz.segment_plot(snapshot)
    lines: list[str] = []
    _memory_viz.memory(snapshot, format_flamegraph=lines.append)
    _memory_viz.segments(snapshot, format_flamegraph=lines.append)
    counted = sum(int(line.rsplit(" ", 1)[1]) for line in lines[0].splitlines())
    assert counted == sum(segment["total_size"] for segment in snapshot["segments"])


SAMPLE = Tape(
    (
        Allocation(3 * MIB, Part.PARAMETERS, Phase.DATA, "aten._to_copy.default", "conv1"),
        Allocation(700, Part.ACTIVATIONS, Phase.FORWARD, "aten.relu.default", "relu", (7, 25)),
    ),
    (0, 1, ~1),
)


def test_what_an_event_says() -> None:
    snapshot: Any = pickle.loads(snapshot_bytes(SAMPLE))
    trace = snapshot["device_traces"][0]
    assert [entry["action"] for entry in trace] == [
        "segment_alloc", "alloc", "segment_alloc", "alloc", "free_requested", "free_completed",
        "snapshot",
    ]  # fmt: skip
    assert [entry.get("category") for entry in trace] == [
        None, "parameters", None, "activations", None, None, "unknown",
    ]  # fmt: skip
    assert '"shape":[7,25]' in trace[3]["user_metadata"]
    assert trace[1]["frames"][0]["name"] == "aten._to_copy.default"
    assert trace[1]["frames"][1]["filename"] == "conv1"
    assert trace[3]["size"] == 700
    assert b'"shape"' not in snapshot_bytes(SAMPLE, [3 * MIB, 1400])


def test_the_viewer_knows_every_opcode() -> None:
    """Those of ``unpickle`` in torch/utils/viz/MemoryViz.js."""
    known = set("ehJKM}])j(u.aqXNGtrlds") | set("\x95\x8a\x94\x80\x8c\x86\x89\x88\x85\x87")
    raw = snapshot_bytes(SAMPLE)
    assert {opcode.code for opcode, _, _ in pickletools.genops(raw)} <= known
