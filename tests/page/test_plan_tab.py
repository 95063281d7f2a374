"""The Plan, Compare and Snapshot tabs in a real browser, held against the plans of the command."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memfit
from memfit.cards.catalogue import gpu
from memfit.explain.explained import explain_snapshot
from memfit.measure.records import Measurement, Record, save_record
from memfit.measure.target import Target
from memfit.memory.snapshot.writer import snapshot_bytes
from memfit.page.documents.explained import explain_document
from memfit.page.documents.plan import plan_document
from memfit.planner.plan import Plan
from memfit.planner.result import Option
from memfit.units import MIB

Document = dict[str, Any]
OpenPage = Callable[..., Any]
Picture = Callable[[Any, str], None]

BATCH = 64
OPTION = Option("mixed precision (bf16)", "--precision amp-bf16", 99, 10, 5, "activations halve")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return memfit.plan("cnn", optimizer="adamw", gpu="rtx-3060", batch_size=BATCH, base_lr=0.1)


@pytest.fixture(scope="module")
def document(plan: Plan) -> Document:
    allocated = plan.at(BATCH).peak_allocated_bytes
    point = {"batch_size": BATCH, "peak_allocated_bytes": allocated * 2, "source": "a real card"}
    return plan_document(plan, options=[OPTION], measured=[point], ladder=[1, 8, BATCH, 512, 4096])


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as holds

    return holds(locator, "as expected")


def it(page: Any, name: str) -> Any:
    return page.locator(f'[data-test="{name}"]:visible')


def opened(open_page: OpenPage, document: Document, **how: Any) -> Any:
    page = open_page({"plan": document}, **how)
    expect(it(page, "verdict")).to_be_visible()
    return page


def shown_bytes(page: Any, name: str) -> int:
    return int(it(page, name).get_attribute("data-bytes"))


def set_batch(page: Any, batch: int) -> None:
    it(page, "batch-number").fill(str(batch))
    expect(it(page, "verdict-sentence")).to_contain_text(f"Batch {batch:,} ")


# -- the verdict -----------------------------------------------------------------------------------


def test_the_verdict_comes_first_and_in_words(
    open_page: OpenPage, plan: Plan, document: Document, picture: Picture
) -> None:
    page = opened(open_page, document)
    expect(it(page, "verdict")).to_have_text("Fits")
    expect(it(page, "recommended")).to_contain_text(f"{plan.recommended_batch_size:,}")
    expect(it(page, "largest")).to_contain_text(f"{plan.max_batch_size:,}")
    expect(it(page, "learning-rate")).to_contain_text("0.05")
    expect(it(page, "way")).to_contain_text("Mixed precision")
    picture(page, "plan-1280-light-en")


@pytest.mark.parametrize("batch", [1, 8, 512, 4096])
def test_every_number_is_the_one_of_the_command(
    open_page: OpenPage, plan: Plan, document: Document, batch: int
) -> None:
    page = opened(open_page, document)
    set_batch(page, batch)
    at = plan.at(batch)
    parts = {part: shown_bytes(page, f"part-{part}") for part in at.parts}
    assert parts == at.parts
    most = {part: int(it(page, f"part-{part}").get_attribute("data-most")) for part in at.parts}
    assert most == at.parts_most
    assert shown_bytes(page, "total") == at.total_bytes == sum(parts.values())
    assert shown_bytes(page, "peak-allocated") == at.peak_allocated_bytes
    assert shown_bytes(page, "peak-reserved") == at.peak_reserved_bytes


def test_the_slider_goes_by_keys_and_the_command_follows(
    open_page: OpenPage, document: Document
) -> None:
    page = opened(open_page, document)
    it(page, "batch-slider").press("ArrowRight")
    expect(it(page, "command")).to_contain_text(f"--batch-size {BATCH + 1} ")
    expect(it(page, "exact")).to_contain_text("interpolated")
    it(page, "batch-slider").press("Home")
    expect(it(page, "command")).to_contain_text("--batch-size 1 ")


def test_marked_batches_move_the_slider(
    open_page: OpenPage, plan: Plan, document: Document
) -> None:
    page = opened(open_page, document)
    it(page, "recommended").click()
    expect(it(page, "batch-number")).to_have_value(str(plan.recommended_batch_size))


def test_a_batch_that_is_too_large(open_page: OpenPage, plan: Plan, document: Document) -> None:
    page = opened(open_page, document)
    assert plan.max_batch_size is not None
    set_batch(page, 4 * plan.max_batch_size)
    expect(it(page, "verdict")).to_have_text("Does not fit")


# -- the card --------------------------------------------------------------------------------------


def test_another_card(open_page: OpenPage, plan: Plan, document: Document) -> None:
    page = opened(open_page, document)
    it(page, "gpu").click()
    it(page, "gpu-search").fill("a100 40")
    it(page, "gpu-search").press("Enter")
    card = gpu("a100-40gb")
    expect(it(page, "card-name")).to_have_text(card.name)
    expect(it(page, "kernels-note")).to_contain_text("RTX 3060")
    expect(it(page, "command")).to_contain_text("--gpu a100-40gb")
    assert shown_bytes(page, "part-context") == card.context_bytes
    assert shown_bytes(page, "total") == plan.at(BATCH).peak_reserved_bytes + card.context_bytes


def test_less_free_memory_and_a_size_of_ones_own(open_page: OpenPage, document: Document) -> None:
    page = opened(open_page, document)
    it(page, "freeBytes").fill("0.15")
    it(page, "freeBytes").press("Enter")
    expect(it(page, "verdict")).to_have_text("Does not fit")
    expect(it(page, "command")).to_contain_text("--gpu rtx-3060 --free 0.15GiB")
    it(page, "freeBytes").fill("99")
    it(page, "freeBytes").press("Enter")
    expect(it(page, "freeBytes")).to_have_attribute("aria-invalid", "true")
    it(page, "sizeBytes").fill("10.5")
    it(page, "sizeBytes").press("Enter")
    expect(it(page, "command")).to_contain_text("--gpu 10.5GiB")
    expect(it(page, "part-context")).to_have_attribute(
        "data-bytes", str(gpu("10.5GiB").context_bytes)
    )


def test_the_command_is_copied_as_a_shell_takes_it(open_page: OpenPage, document: Document) -> None:
    page = opened(open_page, {**document, "command": ["memfit", "plan", "a b'c.py:build"]})
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    it(page, "copy").click()
    expect(it(page, "copy")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == it(page, "command").text_content()
    assert shlex.split(copied)[:3] == ["memfit", "plan", "a b'c.py:build"]
    assert shlex.split(copied)[3:] == ["--batch-size", str(BATCH), "--gpu", "rtx-3060"]


def test_a_plan_of_a_partly_free_card_says_so_in_its_command(open_page: OpenPage) -> None:
    card = gpu("rtx-3060").with_free_bytes(123_456_789)
    page = opened(open_page, plan_document(memfit.plan("mlp", gpu=card), ladder=[1]))
    expect(it(page, "command")).to_contain_text("--gpu rtx-3060 --free 123456789")


# -- the keyboard ----------------------------------------------------------------------------------


def test_without_a_mouse(open_page: OpenPage, document: Document) -> None:
    page = opened(open_page, document)

    page.locator("#tab-plan").focus()
    for key, tab in (
        ("ArrowRight", "compare"),
        ("ArrowRight", "plan"),
        ("End", "compare"),
        ("Home", "plan"),
    ):
        page.keyboard.press(key)
        expect(page.locator(f"#tab-{tab}")).to_be_focused()
    it(page, "export").focus()
    for key, name in (("Enter", "json"), ("ArrowUp", "document"), ("ArrowDown", "json")):
        page.keyboard.press(key)
        expect(it(page, f"export-{name}")).to_be_focused()
    page.keyboard.press("Escape")
    expect(it(page, "export")).to_be_focused()
    it(page, "gpu").focus()
    page.keyboard.press("Enter")
    expect(it(page, "gpu-search")).to_be_focused()
    page.keyboard.type("t4")
    page.keyboard.press("Enter")
    expect(it(page, "gpu")).to_be_focused()
    expect(it(page, "card-name")).to_contain_text("T4")
    expect(it(page, "largest")).to_contain_text(re.compile(r"batch[\d,]+all up to it"))


# -- the timeline ----------------------------------------------------------------------------------


def test_the_last_step_is_shown_and_the_peak_is_one_click_away(
    open_page: OpenPage, plan: Plan, document: Document
) -> None:
    page = opened(open_page, document)
    timeline, peak = it(page, "timeline"), plan.at(BATCH).timeline.peak
    marks = plan.tape_at(BATCH)[0].marks
    start = next(mark.position for mark in marks if mark.step == 1)
    expect(timeline).to_have_attribute("data-from", str(start))
    it(page, "jump-to-peak").click()
    expect(it(page, "readout")).to_have_attribute("data-position", str(peak.position))
    assert int(timeline.get_attribute("data-from")) <= peak.position
    assert int(timeline.get_attribute("data-to")) > peak.position
    alive = plan.at(BATCH).timeline.live_at(peak.position)
    expect(it(page, "live")).to_have_attribute("data-alive", str(len(alive)))


def test_keys_step_through_the_events(open_page: OpenPage, plan: Plan, document: Document) -> None:
    page = opened(open_page, document)
    it(page, "jump-to-peak").click()
    peak = plan.at(BATCH).timeline.peak.position
    canvas = it(page, "timeline-canvas")
    last = len(plan.tape_at(BATCH)[0].events) - 1
    for key, position in (
        ("ArrowRight", peak + 1), ("Shift+ArrowRight", peak + 11), ("ArrowLeft", peak + 10),
        ("Home", 0), ("End", last),
    ):  # fmt: skip
        canvas.press(key)
        expect(it(page, "readout")).to_have_attribute("data-position", str(position))


def test_zoom_pan_and_select(open_page: OpenPage, document: Document) -> None:
    page = opened(open_page, document)
    timeline, canvas = it(page, "timeline"), it(page, "timeline-canvas")

    def view() -> tuple[int, int]:
        return int(timeline.get_attribute("data-from")), int(timeline.get_attribute("data-to"))

    canvas.focus()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 150)
    before = view()
    page.mouse.wheel(0, -300)
    expect(timeline).not_to_have_attribute("data-from", str(before[0]))
    zoomed = view()
    assert zoomed[1] - zoomed[0] < before[1] - before[0]
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 120, box["y"] + 150, steps=4)
    page.mouse.up()
    expect(timeline).not_to_have_attribute("data-from", str(zoomed[0]))
    assert view()[0] < zoomed[0]
    it(page, "zoom-all").click()
    expect(timeline).to_have_attribute("data-from", "0")
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 300, box["y"] + 150)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 150, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    expect(timeline).not_to_have_attribute("data-from", "0")


def test_what_is_alive_is_sorted_searched_and_pinned(
    open_page: OpenPage, plan: Plan, document: Document, picture: Picture
) -> None:
    page = opened(open_page, document)
    canvas = it(page, "timeline-canvas")
    canvas.click(position={"x": 400, "y": 200})
    position = int(it(page, "live").get_attribute("data-position"))
    tape, sizes = plan.tape_at(BATCH)
    alive = plan.at(BATCH).timeline.live_at(position)
    rows = it(page, "row")
    expect(rows.first).to_have_attribute("data-bytes", str(max(sizes[n] for n in alive)))
    it(page, "sort-size").click()
    expect(rows.first).to_have_attribute("data-bytes", str(min(sizes[n] for n in alive)))
    it(page, "live-search").fill("conv float32")
    found = [
        n for n in alive if "conv" in tape.allocations[n].module + tape.allocations[n].operator
    ]
    expect(it(page, "live-count")).to_contain_text(f"{len(found)} of {len(alive)} ")
    number = rows.first.get_attribute("data-number")
    rows.first.locator('[data-test="pin"]').click()
    expect(it(page, "pinned")).to_have_attribute("data-number", number)
    canvas.press("Home")
    expect(it(page, "pinned")).to_have_attribute("data-number", number)
    picture(page, "plan-1280-pinned")
    before = int(it(page, "readout").get_attribute("data-position"))
    page.keyboard.press("ArrowRight")  # the focus is on the row's star
    expect(it(page, "readout")).to_have_attribute("data-position", str(before + 1))
    page.keyboard.press("Shift+ArrowLeft")
    expect(it(page, "readout")).to_have_attribute("data-position", str(max(0, before - 9)))


# -- modules, batches ------------------------------------------------------------------------------


def test_a_module_leads_to_its_stretch_of_the_timeline(
    open_page: OpenPage, document: Document
) -> None:
    page = opened(open_page, document)
    module = page.locator('[data-test="module"][data-path="2.conv"]')
    module.focus()
    expect(it(page, "module-facts")).to_contain_text("64×64×14×14")
    it(page, "module-show").click()
    expect(it(page, "readout")).to_contain_text("2")
    module.click()
    expect(page.locator('[data-test="module"]')).to_have_count(1)


def test_a_click_on_the_curve_sets_the_batch(open_page: OpenPage, document: Document) -> None:
    page = opened(open_page, document)
    over = page.locator(".curve .u-over")
    over.scroll_into_view_if_needed()
    over.click(position={"x": 300, "y": 60})
    expect(it(page, "batch-number")).not_to_have_value(str(BATCH))


# -- files -----------------------------------------------------------------------------------------


def saved(page: Any, name: str) -> bytes:
    it(page, "export").click()
    with page.expect_download() as started:
        it(page, f"export-{name}").click()
    return Path(started.value.path()).read_bytes()


def test_every_export_is_a_file_of_its_kind(
    open_page: OpenPage, plan: Plan, document: Document
) -> None:
    snapshot = snapshot_bytes(*plan.tape_at(BATCH))
    page = open_page({"plan": document, "snapshot": snapshot})
    at = plan.at(BATCH)
    assert json.loads(saved(page, "json"))["at"]["parts"] == at.parts
    rows = list(csv.DictReader(io.StringIO(saved(page, "csv").decode())))
    assert max(int(row["allocated_bytes"]) for row in rows) == at.peak_allocated_bytes
    alive = list(csv.DictReader(io.StringIO(saved(page, "live").decode())))
    assert len(alive) == len(at.timeline.live_at(at.timeline.peak.position))
    assert saved(page, "png").startswith(b"\x89PNG")
    picture = saved(page, "svg")
    assert picture.startswith(b"<svg")
    assert b">optimizer<" in picture  # the phase
    assert b">optimizer state<" in picture  # the part
    assert json.loads(saved(page, "perfetto"))["traceEvents"]
    assert json.loads(saved(page, "document")) == document
    assert saved(page, "snapshot") == snapshot
    set_batch(page, BATCH + 1)
    it(page, "export").click()
    expect(it(page, "export-json")).to_be_visible()
    expect(it(page, "export-snapshot")).to_have_count(0)


# -- language, theme, width ------------------------------------------------------------------------


def test_language_and_theme_stay_and_are_there_at_first_paint(
    open_page: OpenPage, document: Document, picture: Picture
) -> None:
    page = opened(open_page, document)
    it(page, "language-zh").click()
    it(page, "theme").click()
    expect(it(page, "verdict")).to_have_text("放得下")
    page.add_init_script(
        "document.addEventListener('readystatechange', () => window.first ??= "
        "[document.documentElement.lang, document.documentElement.dataset.theme])"
    )
    page.reload()
    expect(it(page, "verdict")).to_have_text("放得下")
    assert page.evaluate("window.first") == ["zh", "dark"]
    picture(page, "plan-1280-dark-zh")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_narrow_screen_scrolls_only_down(
    open_page: OpenPage, document: Document, picture: Picture, theme: str
) -> None:
    page = opened(open_page, document, width=390, theme=theme)
    it(page, "keep").click()
    for tab in ("plan", "compare"):
        page.locator(f"#tab-{tab}").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        picture(page, f"{tab}-390-{theme}-en")


def test_names_are_text_whatever_they_contain(open_page: OpenPage, document: Document) -> None:
    name = "<img src=x onerror=\"document.title='run'\"><script>1</script>"
    tape = document["tape"]
    strings = [name if text.endswith("conv") else text for text in tape["strings"]]
    hostile = document | {
        "model": document["model"] | {"name": name}, "tape": tape | {"strings": strings},
    }  # fmt: skip
    page = opened(open_page, hostile)
    expect(it(page, "model-name")).to_have_text(name)
    it(page, "live-search").fill("onerror")
    expect(it(page, "row").first).to_contain_text(name)
    assert page.locator("#app img, #app script").count() == 0


# -- compare, snapshot -----------------------------------------------------------------------------


def test_two_batches_side_by_side(
    open_page: OpenPage, plan: Plan, document: Document, picture: Picture
) -> None:
    page = opened(open_page, document)
    page.locator("#tab-compare").click()
    it(page, "keep-here").click()
    page.locator("#tab-plan").click()
    set_batch(page, 512)
    page.locator("#tab-compare").click()
    a, b = plan.at(BATCH), plan.at(512)
    for part in a.parts:
        cell = it(page, f"row-{part}").locator("[data-bytes]")
        expect(cell).to_have_attribute("data-bytes", str(b.parts[part] - a.parts[part]))
    expect(it(page, "verdict-A")).to_have_text("Fits")
    expect(it(page, "measured-row")).to_contain_text("−50.00 %")
    picture(page, "compare-1280-light-en")


def test_a_plan_from_the_disk_is_checked(
    open_page: OpenPage, document: Document, tmp_path: Path
) -> None:
    page = opened(open_page, document)
    it(page, "keep").click()
    page.locator("#tab-compare").click()

    def open_file(content: str) -> None:
        file = {"name": "x.json", "mimeType": "application/json", "buffer": content.encode()}
        page.locator('[data-test="open-record"]').set_input_files(file)

    error = it(page, "record-error")
    for content, words in (
        ("{", "not JSON"), ("[]", "neither"),
        ('{"kind": "plan", "schema_version": 9}', "version 9"),
        (json.dumps(document | {"tape": {}}), "damaged: tape"),
    ):  # fmt: skip
        open_file(content)
        expect(error).to_contain_text(words)
    other = document | {"model": {"name": "another", "parameters": 1}}
    open_file(json.dumps(other))
    expect(it(page, "side-B")).to_contain_text("another")
    expect(error).to_have_count(0)
    point = {"batch_size": 8, "peak_allocated_bytes": 1 << 20, "source": "my card"}
    open_file(json.dumps({"measured": [point]}))
    expect(it(page, "measured-row").last).to_contain_text("my card")
    open_file(json.dumps(record_of_measure(tmp_path)))
    rows = it(page, "measured-row")
    expect(rows.filter(has_text="resnet")).to_have_count(3)  # what ran out of memory is no point
    expect(rows.last).to_contain_text("resnet · NVIDIA GeForce RTX 3060 12GB · torch 2.15.0")
    expect(rows.last).to_contain_text("3.0 MiB")


def record_of_measure(folder: Path) -> Any:
    """A record as memfit measure writes it, of a run that nobody made."""
    target = Target("cuda", gpu("rtx-3060"))
    rows = (
        Measurement(
            8, "ok", peak_allocated_bytes=MIB, peak_reserved_bytes=2 * MIB, gpu_used_bytes=3 * MIB
        ),
        Measurement(16, "out_of_memory"),
    )
    record = Record(
        name="resnet",
        family="resnet",
        target=target.facts(),
        versions={"torch": "2.15.0"},
        recipe={"model": "cnn"},
        date="2026-01-02T03:04:05+00:00",
        measurements=rows,
    )
    path = folder / "record.json"
    save_record(path, record)
    return json.loads(path.read_text())


def test_a_snapshot_is_explained_and_compared(
    open_page: OpenPage, plan: Plan, document: Document, tmp_path: Path, picture: Picture
) -> None:
    path = tmp_path / "oom.pickle"
    capacity_bytes = plan.at(BATCH).peak_reserved_bytes // 2
    path.write_bytes(snapshot_bytes(*plan.tape_at(BATCH), capacity_bytes=capacity_bytes))
    explained = explain_snapshot(path)
    page = open_page({"plan": document, "explain": explain_document(explained)}, tab="#explain")
    expect(it(page, "explain-title")).to_have_text("Ran out of memory")
    expect(it(page, "oom")).to_contain_text("asked for")
    expect(it(page, "sure")).to_contain_text("100 % certain")
    it(page, "jump-to-peak").click()
    expect(it(page, "live")).to_have_attribute(
        "data-position", str(explained.history.peak_position)
    )
    picture(page, "explain-1280-light-en")
    page.locator("#tab-plan").click()
    expect(it(page, "verdict")).to_be_visible()
    page.locator("#tab-compare").click()
    row = it(page, "snapshot-activations").locator("[data-bytes]")
    gap = explained.parts["activations"] - plan.at(BATCH).parts["activations"]
    expect(row).to_have_attribute("data-bytes", str(gap))
