"""The page's timeline against the one of the command: every instant of a step."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import js_page
import js_plans
from js_plans import Both

import memfit
from memfit.memory.allocator.timeline import replay
from memfit.page.documents.plan import plan_document

InPage = Callable[..., Any]

in_page = js_page.in_page
both = js_plans.both


def test_every_instant_is_what_the_command_says(both: Both) -> None:
    for batch in {1, both.some_stops[-1]}:
        expected = both.plan.at(batch).timeline
        found = both.ask(
            "(({ allocated, reserved, retries, outOfMemory }) => ({ retries, outOfMemory,"
            " allocated: [...allocated], reserved: [...reserved] }))(plan.at(values[0]).timeline)",
            batch,
        )
        assert found["allocated"] == expected.allocated_bytes
        assert found["reserved"] == expected.reserved_bytes
        assert (found["retries"], found["outOfMemory"]) == (0, None)


def test_parts_add_up_at_every_instant(both: Both) -> None:
    batch = both.some_stops[-1]
    timeline = both.plan.at(batch).timeline
    rows = both.ask(
        "((t) => Object.fromEntries(t.parts.map((part, k) => [part, [...t.partBytes[k]]])))"
        "(plan.at(values[0]).timeline)",
        batch,
    )
    last = len(timeline.allocated_bytes) - 1
    for position in (0, last // 3, timeline.peak.position, last):
        here = {part: row[position] for part, row in rows.items()}
        assert here == timeline.parts_at(position)
        assert sum(here.values()) <= timeline.allocated_bytes[position]
    assert both.ask("plan.at(values[0]).timeline.partsAt(values[1])", batch, last // 3) == (
        timeline.parts_at(last // 3)
    )


def test_what_is_alive(both: Both) -> None:
    timeline = both.plan.at(8).timeline
    last = len(timeline.allocated_bytes) - 1
    positions = [*range(0, last, max(1, last // 40)), timeline.peak.position, last]
    alive = [timeline.live_at(position) for position in positions]
    found = both.ask("values[0].map((p) => plan.at(8).timeline.liveAt(p))", positions)
    assert found == alive


def test_allocations_are_described_at_the_batch(both: Both) -> None:
    traced = both.plan.step.trace(16)
    freed = {~event: position for position, event in enumerate(traced.events) if event < 0}
    made = {event: position for position, event in enumerate(traced.events) if event >= 0}
    found = both.ask(
        "Array.from(plan.tape.constant, (_, number) => plan.at(16).timeline.describe(number))"
    )
    assert [allocation["number"] for allocation in found] == list(range(len(traced.allocations)))
    for number, (ours, theirs) in enumerate(zip(traced.allocations, found, strict=True)):
        assert theirs == {
            "number": number,
            "sizeBytes": ours.size_bytes,
            "part": str(ours.part),
            "phase": str(ours.phase),
            "step": ours.step,
            "operator": ours.operator.removesuffix(".default"),
            "module": ours.module,
            "place": ours.place,
            "shape": list(ours.shape),
            "dtype": ours.dtype,
            "allocatedAt": made[number],
            "freedAt": freed.get(number),
        }


def test_phases_cover_the_step(both: Both) -> None:
    tape = both.plan.tape_at(8)[0]
    bands = both.ask("plan.at(8).timeline.bands")
    assert bands[0]["from"] == 0
    assert bands[-1]["to"] == len(tape.events)
    assert all(a["to"] == b["from"] for a, b in pairwise(bands))
    for band in bands:
        for event in tape.events[band["from"] : band["to"]]:
            if event >= 0:
                made = tape.allocations[event]
                assert (str(made.phase), made.step) == (band["phase"], band["step"])


def test_columns_never_lose_the_peak(both: Both) -> None:
    timeline = both.plan.at(8).timeline
    allocated, reserved = timeline.allocated_bytes, timeline.reserved_bytes
    draw = random.Random(5)
    views = [(0, len(allocated), 60), (0, 1, 10), (3, 3, 10)]
    for _ in range(40):
        start, end = sorted(draw.sample(range(len(allocated) + 1), 2))
        views.append((start, end, draw.choice([1, 7, 100, 4000])))
    code = """values[0].map((view) => {
      const { positions, allocated, reserved, parts } = plan.at(8).timeline.columns(...view);
      const lengths = parts.map((part) => part.length);
      return [[...positions], [...allocated], [...reserved], lengths];
    })"""
    for view, found in zip(views, both.ask(code, views), strict=True):
        start, end, width = view
        positions, columns, reserved_columns, lengths = found
        count = min(width, end - start)
        edges = [start + column * (end - start) // max(1, count) for column in range(count + 1)]
        assert len(positions) == count
        assert set(lengths) == {count}
        for column, (a, b) in enumerate(pairwise(edges)):
            assert columns[column] == max(allocated[a:b])
            assert positions[column] == a + allocated[a:b].index(columns[column])
            assert reserved_columns[column] == max(reserved[a:b])


def test_a_module_spans_its_forward_pass(both: Both) -> None:
    spans = both.ask(
        """(() => {
          const found = [];
          const visit = (node) => {
            found.push({ path: node.path, span: node.span, kept: node.keptBytes,
              numbers: node.numbers, shapes: node.shapes });
            node.children.forEach(visit);
          };
          visit(plan.moduleTree(8));
          return found;
        })()"""
    )
    tape = both.plan.tapes.affine
    assert tape is not None
    allocations, events = tape.tape.allocations, tape.tape.events
    sizes = both.plan.tape_at(8)[1]
    for node in spans:
        assert node["kept"] == sum(sizes[number] for number in node["numbers"])
        assert len(node["shapes"]) == len(node["numbers"])
        if node["span"] is None:
            continue
        for position in node["span"]:
            made = allocations[events[position]]
            assert str(made.phase) == "forward"
            assert f"{made.module}.".startswith(f"{node['path']}." if node["path"] else "")


def test_a_replay_against_a_capacity_stops_where_the_command_stops(
    in_page: InPage,
) -> None:
    plan = memfit.plan("cnn", gpu="rtx-3060", verify=False)
    both = Both("limited", plan, plan_document(plan), in_page)
    tape, sizes = plan.tape_at(256)
    for share in (0.3, 0.7, 0.95):
        capacity = int(plan.at(256).peak_reserved_bytes * share)
        expected = replay(tape, sizes, capacity_bytes=capacity)
        found = in_page(
            """async ({ name, capacity }, use) => {
              const { replay } = await use("memfit/engine/timeline");
              const { tape, settings } = window[name];
              const t = replay(tape, { batch: 256, settings, capacityBytes: capacity });
              const last = t.count - 1;
              return { count: t.count, outOfMemory: t.outOfMemory, retries: t.retries,
                peak: t.peakAllocatedBytes, live: t.liveAt(last + 100).length,
                freed: t.describe(0).freedAt };
            }""",
            {"name": both.name, "capacity": capacity},
        )
        failure = expected.out_of_memory
        assert found["count"] == len(expected.allocated_bytes)
        assert found["retries"] == expected.retries
        assert found["peak"] == expected.peak_allocated_bytes
        assert found["live"] == len(expected.live_at(found["count"] - 1))
        assert (found["outOfMemory"] is None) is (failure is None)
        if failure is not None:
            at = found["outOfMemory"]
            assert tape.allocations[at["number"]] is failure.allocation
            assert (at["position"], at["requestedBytes"]) == (
                failure.position,
                failure.requested_bytes,
            )
            assert at["reservedBytes"] == failure.reserved_bytes
    assert both.ask("plan.stops.length") > 0


def test_what_is_kept_is_read_where_the_last_whole_step_turns_back(in_page: InPage) -> None:
    """Two tensors are kept for the backward pass of a whole step; the next step is cut off."""
    columns = {
        "parts": ["activations", "temporaries"],
        "phases": ["data", "forward", "backward", "optimizer"],
        "strings": ["", "aten.relu", "a.b", "a", "float32"],
        "shapes": [[[0, 1], [3, 0]]],
        **{"part": [0, 0, 1, 0], "phase": [1, 1, 1, 1], "step": [0, 0, 0, 1]},
        **{"operator": [1] * 4, "module": [2, 3, 3, 0], "dtype": [4] * 4, "shape": [0] * 4},
        **{"constant": [0, 8, 4, 0], "slope": [12, 0, 0, 100]},
        "events": [0, 1, 2, ~2, ~0, ~1, 3, ~3],
        "marks": [[0, 0, 1], [4, 0, 2], [6, 0, 3], [6, 1, 1], [7, 1, 2]],
        "ruled": {"batches": [], "entries": []},
    }
    code = """async (columns, use) => {
      const { Tape } = await use("memfit/engine/tape");
      const { replay } = await use("memfit/engine/timeline");
      const { moduleTree } = await use("memfit/engine/modules");
      return moduleTree(replay(new Tape(columns), { batch: 5 }), "net");
    }"""
    leaf = {"keptBytes": 60, "totalBytes": 60, "shapes": [[5, 3]], "numbers": [0], "span": [0, 0]}
    inner = {"keptBytes": 8, "totalBytes": 68, "shapes": [[5, 3]], "numbers": [1], "span": [0, 2]}
    root = {"keptBytes": 0, "totalBytes": 68, "shapes": [], "numbers": [], "span": [0, 2]}
    leaf |= {"name": "b", "path": "a.b", "children": []}
    inner |= {"name": "a", "path": "a", "children": [leaf]}
    assert in_page(code, columns) == root | {"name": "net", "path": "", "children": [inner]}
