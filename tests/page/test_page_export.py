"""What the page saves: each file is read back and held against the command's own figures."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import js_page
import pytest

import memfit
from memfit.memory.allocator.timeline import Timeline
from memfit.page.documents.plan import plan_document
from memfit.planner.plan import Plan
from memfit.planner.result import BatchPlan

BATCH = 48
SVG = "{http://www.w3.org/2000/svg}"
InPage = Callable[..., Any]

in_page = js_page.in_page

OPEN_PLAN = """
async (document, use) => {
  const { openPlan } = await use("memfit/engine/plan");
  window.files = await use("memfit/export/plan");
  window.plan = openPlan(document);
}
"""


@pytest.fixture(scope="module")
def plan() -> Plan:
    return memfit.plan("cnn", gpu="rtx-3060", batch_size=BATCH, optimizer="adamw", base_lr=0.1)


@pytest.fixture(scope="module")
def at(plan: Plan) -> BatchPlan:
    return plan.at(BATCH)


@pytest.fixture(scope="module")
def document(plan: Plan) -> dict[str, Any]:
    return plan_document(plan)


@pytest.fixture(scope="module")
def saved(in_page: InPage, document: dict[str, Any]) -> Callable[..., Any]:
    """What an expression of ``plan``, ``timeline``, ``files`` and ``values`` is in the page."""
    in_page(OPEN_PLAN, document)
    names = f"const {{ timeline }} = plan.at({BATCH});"
    return lambda code, *values: in_page(f"async (values) => {{ {names} return {code}; }}", values)


def with_names(document: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The document with other strings in its tape, as a model of a stranger may have them."""
    changed: dict[str, Any] = json.loads(json.dumps(document))
    strings = changed["tape"]["strings"]
    changed["tape"]["strings"] = [names.get(string, string) for string in strings]
    return changed


# -- JSON ------------------------------------------------------------------------------------------


def test_json_has_the_keys_and_figures_of_the_command(
    plan: Plan, document: dict[str, Any], saved: Callable[..., Any]
) -> None:
    found = json.loads(saved("files.planJson(plan, values[0], plan.document.gpu)", BATCH))
    expected = json.loads(json.dumps(plan.to_dict()))
    assert expected.keys() <= found.keys()
    assert found["at"].pop("is_exact") is True
    expected["at"]["peak"]["operator"] = expected["at"]["peak"]["operator"].removesuffix(".default")
    assert {key: found[key] for key in expected} == expected
    assert found["torch_version"] == document["torch_version"]


def test_json_of_another_batch_and_no_card(plan: Plan, saved: Callable[..., Any]) -> None:
    found = json.loads(saved("files.planJson(plan, 8, null)"))
    assert found["at"]["total_bytes"] == plan.at(8).total_bytes
    assert [found[key] for key in ("gpu", "fits", "max_batch_size", "learning_rate")] == [None] * 4


# -- CSV -------------------------------------------------------------------------------------------


def rows_of(text: str) -> list[dict[str, str]]:
    assert text.endswith("\r\n")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_every_event_is_a_row(at: BatchPlan, saved: Callable[..., Any]) -> None:
    rows = rows_of(saved("files.timelineCsv(timeline)"))
    timeline = at.timeline
    tape = timeline.tape
    assert [int(row["position"]) for row in rows] == list(range(len(tape.events)))
    assert [int(row["allocated_bytes"]) for row in rows] == timeline.allocated_bytes
    assert [int(row["reserved_bytes"]) for row in rows] == timeline.reserved_bytes
    for row, event in zip(rows, tape.events, strict=True):
        number = event if event >= 0 else ~event
        made = tape.allocations[number]
        assert (row["event"], int(row["number"])) == ("allocate" if event >= 0 else "free", number)
        assert int(row["size_bytes"]) == timeline.sizes_bytes[number]
        assert (row["part"], row["module"], row["dtype"]) == (made.part, made.module, made.dtype)
        if event >= 0:
            assert (row["phase"], int(row["step"])) == (made.phase, made.step)


def test_what_is_alive_is_a_table(at: BatchPlan, saved: Callable[..., Any]) -> None:
    timeline = at.timeline
    position = timeline.peak.position
    rows = rows_of(saved("files.liveCsv(timeline, timeline.peakPosition)"))
    assert [int(row["number"]) for row in rows] == timeline.live_at(position)
    assert sum(int(row["size_bytes"]) for row in rows) == sum(timeline.peak.parts.values())
    traced = [tuple(row["shape"].split("x")) for row in rows if row["part"] == "batch"]
    assert (str(BATCH), "1", "28", "28") in traced


HOSTILE = ['=HYPERLINK("http://x.test")', "+1", "-1", "@a", "\t=1", 'say "a, b"', "two\r\nlines"]


def test_cells_are_text_and_no_formulas(
    in_page: InPage,
    document: dict[str, Any],
) -> None:
    """A module can be called anything; a spreadsheet may run a cell that begins with these."""
    paths = sorted({a for a in document["tape"]["strings"] if a and a[0].isdigit()})
    assert len(paths) >= len(HOSTILE)
    names = dict(zip(paths, HOSTILE, strict=False))
    code = """async (document, use) => {
      const { openPlan } = await use("memfit/engine/plan");
      const { timelineCsv } = await use("memfit/export/plan");
      return timelineCsv(openPlan(document).at(8).timeline);
    }"""
    rows = rows_of(in_page(code, with_names(document, names)))
    modules = {row["module"] for row in rows}
    for name in HOSTILE:
        assert (name if name[0] not in "=+-@\t" else f"'{name}") in modules
    assert not [cell for row in rows for cell in row.values() if cell[:1] in {*"=+-@\t\r"} and cell]


# -- Perfetto --------------------------------------------------------------------------------------


def test_perfetto_counts_what_the_plan_counts(at: BatchPlan, saved: Callable[..., Any]) -> None:
    trace = json.loads(saved("files.perfettoJson(timeline, plan)"))
    assert trace["displayTimeUnit"] == "ns"
    events = trace["traceEvents"]
    counters = [event for event in events if event["ph"] == "C"]
    most = {
        name: max(event["args"]["bytes"] for event in counters if event["name"] == name)
        for name in ("allocated", "reserved")
    }
    assert most == {"allocated": at.peak_allocated_bytes, "reserved": at.peak_reserved_bytes}
    (peak,) = (event for event in events if event["name"] == "peak")
    position = at.timeline.peak.position
    assert (peak["ph"], peak["s"], peak["ts"]) == ("i", "g", position)
    (parts,) = (e["args"] for e in counters if (e["name"], e["ts"]) == ("requested", position))
    assert parts == at.timeline.peak.parts
    assert sum(event["name"] == "requested" for event in counters) == len(at.timeline.tape.events)


def test_perfetto_takes_every_event(at: BatchPlan, saved: Callable[..., Any]) -> None:
    """The fields that each phase must have, and slices of a thread that nest."""
    events = json.loads(saved("files.perfettoJson(timeline, plan)"))["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "C", "i"}
    for event in events:
        assert isinstance(event["pid"], int)
        assert isinstance(event["ts"], int)
        assert event["ts"] >= 0
        if event["ph"] == "C":
            assert all(type(value) is int for value in event["args"].values())
    slices = [event for event in events if event["ph"] == "X"]
    for thread in (1, 2):
        open_until: list[int] = []
        ordered = [s for s in slices if s["tid"] == thread]
        assert ordered == sorted(ordered, key=lambda s: s["ts"])
        for one in ordered:
            while open_until and open_until[-1] <= one["ts"]:
                open_until.pop()
            assert one["dur"] > 0
            assert not open_until or one["ts"] + one["dur"] <= open_until[-1]
            open_until.append(one["ts"] + one["dur"])
    marks = at.timeline.tape.marks
    phases = [(s["ts"], s["name"], s["args"]["step"]) for s in slices if s["tid"] == 1]
    ends = [mark.position for mark in marks[1:]] + [len(at.timeline.tape.events)]
    assert phases == [
        (mark.position, mark.phase, mark.step)
        for mark, end in zip(marks, ends, strict=True)
        if mark.position < end
    ]
    modules = {s["args"]["module"] for s in slices if s["tid"] == 2}
    assert {a.module for a in at.timeline.tape.allocations if a.module} <= modules


def test_perfetto_takes_the_times_of_a_recorded_tape(
    in_page: InPage,
    document: dict[str, Any],
) -> None:
    timed = json.loads(json.dumps(document["tape"]))
    timed["times_us"] = [10 * k + 5 for k in range(len(timed["events"]))]
    code = """async (columns, use) => {
      const { Tape } = await use("memfit/engine/tape");
      const { replay } = await use("memfit/engine/timeline");
      const { perfettoJson } = await use("memfit/export/plan");
      return perfettoJson(replay(new Tape(columns), { batch: 8 }));
    }"""
    events = json.loads(in_page(code, timed))["traceEvents"]
    counted = [event["ts"] for event in events if event["name"] == "requested"]
    assert counted == timed["times_us"]
    ends = [event["ts"] + event["dur"] for event in events if event["ph"] == "X"]
    assert max(ends) == counted[-1] + 1


# -- pictures --------------------------------------------------------------------------------------

LIMIT = {"bytes": 2**30, "label": "A <card> & more"}


def picture(saved: Callable[..., Any], **options: Any) -> ElementTree.Element:
    return ElementTree.fromstring(saved("files.timelineSvg(timeline, values[0])", options))


def heights(path: ElementTree.Element) -> list[float]:
    steps = path.attrib["d"].split("V")[1:]
    return [float(step.split("H")[0]) for step in steps]


def test_the_picture_stands_alone(at: BatchPlan, saved: Callable[..., Any]) -> None:
    title = "cnn \x00\ud800 <script>alert('1')</script>"
    root = picture(saved, title=title, limit=LIMIT)
    assert root.tag == f"{SVG}svg"
    assert {child.tag.removeprefix(SVG) for child in root.iter()} == {
        *("svg", "title", "rect", "text", "line", "path")
    }
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "cnn \ufffd <script>alert('1')</script>" in texts
    assert LIMIT["label"] in texts
    for word in ("forward", "backward", "activations", "allocated", "reserved", "1.00 GiB"):
        assert word in texts
    layers = [path for path in root.iter(f"{SVG}path") if path.get("class") == "part"]
    assert len(layers) == len(at.timeline.peak.parts)
    assert len({layer.attrib["fill"] for layer in layers}) == len(layers)


def test_the_lines_of_the_picture_are_to_scale(at: BatchPlan, saved: Callable[..., Any]) -> None:
    root = picture(saved, limit=LIMIT, width=300)  # fewer columns than events
    (limit,) = (line for line in root.iter(f"{SVG}line") if line.get("class") == "limit")
    across = [line for line in root.iter(f"{SVG}line") if line.get("stroke-opacity")]
    zero = max(float(line.attrib["y1"]) for line in across)
    scale = LIMIT["bytes"] / (zero - float(limit.attrib["y1"]))
    peaks = {"allocated": at.peak_allocated_bytes, "reserved": at.peak_reserved_bytes}
    for name, peak_bytes in peaks.items():
        (path,) = (path for path in root.iter(f"{SVG}path") if path.get("class") == name)
        drawn = heights(path)
        assert len(drawn) < len(at.timeline.allocated_bytes)
        assert (zero - min(drawn)) * scale == pytest.approx(peak_bytes, abs=scale)


def test_the_picture_takes_words_colours_and_a_part_of_the_step(saved: Callable[..., Any]) -> None:
    code = """files.timelineSvg(timeline, {
      names: {
        part: (name) => ({ activations: "激活值" })[name] ?? name,
        phase: (name) => `phase ${name}`, line: (name) => name,
      },
      colours: { activations: "#123456", background: "#000000", text: "#eeeeee" },
      from: 10, to: 30 })"""
    root = ElementTree.fromstring(saved(code))
    texts = [str(text.text) for text in root.iter(f"{SVG}text")]
    assert "激活值" in texts
    assert any(text.startswith("phase ") for text in texts)
    assert "optimizer" in texts  # the part; its phase has a name of its own
    assert "#123456" in [path.get("fill") for path in root.iter(f"{SVG}path")]
    (path,) = (path for path in root.iter(f"{SVG}path") if path.get("class") == "allocated")
    assert len(heights(path)) == 20


def test_a_timeline_without_events_is_a_picture_and_a_table(
    in_page: InPage,
    document: dict[str, Any],
) -> None:
    empty = json.loads(json.dumps(document["tape"])) | {"events": [], "marks": []}
    code = """async (columns, use) => {
      const { Tape } = await use("memfit/engine/tape");
      const { replay } = await use("memfit/engine/timeline");
      const files = await use("memfit/export/plan");
      const timeline = replay(new Tape(columns), { batch: 8 });
      return [files.timelineSvg(timeline), files.timelineCsv(timeline),
        files.liveCsv(timeline, 0), files.perfettoJson(timeline)];
    }"""
    svg, events, live, trace = in_page(code, empty)
    assert ElementTree.fromstring(svg).tag == f"{SVG}svg"
    assert rows_of(events) == rows_of(live) == []
    assert {event["ph"] for event in json.loads(trace)["traceEvents"]} == {"M"}


def test_the_picture_becomes_a_png(saved: Callable[..., Any]) -> None:
    code = """(async () => {
      const svg = files.timelineSvg(timeline, { width: 640, height: 360 });
      const blob = await files.svgToPng(svg, 1280, 720);
      return { type: blob.type, bytes: [...new Uint8Array(await blob.arrayBuffer())] };
    })()"""
    found = saved(code)
    png = bytes(found["bytes"])
    assert found["type"] == "image/png"
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (1280, 720)
    from PIL import Image

    colours = Image.open(io.BytesIO(png)).convert("RGB").getcolors(maxcolors=10**6)
    assert colours is not None
    shown = {colour for count, colour in colours if count > 50}
    assert {(255, 255, 255), (230, 159, 0), (0, 114, 178)} <= shown  # paper and two parts


def test_a_timeline_knows_its_first_peak(at: BatchPlan, saved: Callable[..., Any]) -> None:
    timeline: Timeline = at.timeline
    assert saved("timeline.peakPosition") == timeline.allocated_bytes.index(at.peak_allocated_bytes)
