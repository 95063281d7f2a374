"""The page of a script, made of an answer as the script's process gives it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import memfit
from memfit.cards.catalogue import gpu
from memfit.cli import app
from memfit.commands.run import separated
from memfit.memory.tape.tape import Tape
from memfit.page.documents.plan import plan_document
from memfit.page.documents.script import script_document
from memfit.scripts import subject
from memfit.scripts.plan import plan_script
from memfit.scripts.told.answer import Answer, Decided, Evaluation, Kept, Status, Step
from memfit.scripts.told.job import FakeData, ScriptJob
from memfit.scripts.told.knob import Knob, KnobKind
from memfit.units import MIB, format_bytes

Document = dict[str, Any]
OpenPage = Callable[..., Any]
Scripted = Callable[..., Document]

BATCH, CARD, PLACE = 64, "rtx-3060", "train.py:21"
FLAG = Knob(KnobKind.FLAG, "--batch-size", BATCH)
MESSAGE = "CUDA out of memory. Tried to allocate 2.00 MiB. Of the allocated memory 1 KiB is so."


@cache
def tape_at(batch: int) -> Tape:
    """Of a small model, as if a script had trained it."""
    tape = memfit.plan("mlp", gpu=CARD, optimizer="adam", batch_size=8, verify=False).step.trace(
        batch
    )
    return replace(tape, allocations=tuple(replace(a, place=PLACE) for a in tape.allocations))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """The document of a script that trains, but for what is said otherwise of its run."""

    def document(
        *, knob: Knob = FLAG, card: str | None = CARD, limited: dict[str, Any] | None = None,
        **facts: Any,
    ) -> Document:  # fmt: skip
        def run(job: ScriptJob, capacity_bytes: int, printed: object) -> Answer:
            batch = job.batch or knob.batch or BATCH
            step = Step(3 * MIB, 22 * MIB, 40)
            answer = Answer(
                Status.STOPPED, steps=(step, step, step),
                evaluations=(Evaluation("after", MIB, 22 * MIB, 3, "train.py:39"),),
                knob=replace(knob, batch=knob.batch and batch), parameters=101_770,
                notes=("MNIST was made up.",),
                kept=(Kept("model.pt", 2048), Kept("old.pt", 0, is_deleted=True)),
                values=(
                    Decided("number", "train.py:30", "aten.item", "2.5", is_made_up=True, count=3),
                    Decided("size", "train.py:31", "aten.nonzero", "(4, 1)", is_made_up=False),
                ),
                tape=tape_at(batch),
            )  # fmt: skip
            is_limited = capacity_bytes == gpu(CARD).capacity_bytes
            return replace(answer, **facts, **(limited or {} if is_limited else {}))

        monkeypatch.setattr(subject, "on_card", lambda _, capacity_bytes, *__: capacity_bytes)
        monkeypatch.setattr(subject, "run_script", run)
        job = ScriptJob("train.py", ("--batch-size", "64", "--gpu", "0"), fake_data=FakeData())
        played = subject.Script(job, gpu(CARD), is_limited=card is not None)
        made = plan_script(played, card and gpu(card))
        return json.loads(json.dumps(script_document(made), allow_nan=False))

    return document


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as holds

    return holds(locator, "as expected")


def it(page: Any, name: str) -> Any:
    return page.locator(f'[data-test="{name}"]:visible')


def opened(open_page: OpenPage, document: Document, **how: Any) -> Any:
    page = open_page({"plan": document}, **how)
    expect(it(page, "script")).to_be_visible()
    return page


def expect_words(page: Any, words: dict[str, Sequence[str]]) -> None:
    for name, texts in words.items():
        for text in texts:
            expect(it(page, name)).to_contain_text(text)


# -- the document ----------------------------------------------------------------------------------


def test_nothing_of_a_recipe_is_told(scripted: Scripted) -> None:
    document = scripted()
    assert document["recipe"] is None
    assert document["script"]["proof"]["fits"]


def test_places_are_told_by_allocation_where_there_are_some(scripted: Scripted) -> None:
    tape = scripted()["tape"]
    assert {tape["strings"][number] for number in tape["place"]} == {PLACE}
    assert len(tape["place"]) == len(tape["constant"])
    assert "place" not in plan_document(memfit.plan("mlp", gpu=CARD), ladder=[1])["tape"]


# -- the page --------------------------------------------------------------------------------------


def test_what_ran_in_both_languages(
    open_page: OpenPage, scripted: Scripted, picture: Callable[[Any, str], None]
) -> None:
    page = opened(open_page, scripted())
    it(page, "assumptions").locator("summary").click()
    expect(it(page, "verdict")).to_have_text("Fits")
    expect(it(page, "recipe-facts")).to_have_count(0)
    expect(it(page, "pass")).to_have_count(2)
    expect_words(page, {
        "subject": ["101,770 parameters", "batch 64 (--batch-size)"],
        "peak-at": [PLACE],
        "readout-place": [PLACE],
        "proof": ["Batch 64 on NVIDIA GeForce RTX 3060", "ran 3 of its steps"],
        "script.values": ["train.py:30 a number 2.5 · made up · 3 times", "size (4, 1)"],
        "script.kept": ["model.pt 2.0 KiB", "old.pt was to be deleted"],
        "script.notes": ["MNIST was made up."],
        "assumption-whole_run": ["The whole run"],
    })  # fmt: skip
    it(page, "live-search").fill(PLACE)
    expect(it(page, "row").first).to_contain_text(PLACE)
    picture(page, "script-1280-light-en")
    it(page, "language-zh").click()
    expect_words(page, {
        "subject": ["批大小 64（--batch-size）"],
        "proof": ["实际运行了 3 步"],
        "script.values": ["虚构", "算出"],
        "script.kept": ["未写入磁盘", "本要删除"],
        "assumption-whole_run": ["整个运行过程"],
        "assumption-arithmetic_runs": ["在批大小 32 和 64 上运行过"],
    })  # fmt: skip


def test_the_command_runs_it_again(open_page: OpenPage, scripted: Scripted) -> None:
    page = opened(open_page, scripted())
    it(page, "batch-number").fill("48")
    expect(it(page, "command")).to_contain_text("--batch 48 ")
    words = shlex.split(it(page, "command").text_content())
    assert words[:2] == ["memfit", "run"]
    options = app["run"].assemble_argument_collection()
    _, bound, _ = app.parse_args(["run", *separated(words[2:], options)], exit_on_error=False)
    assert bound.args == ("train.py", "--batch-size", "64", "--gpu", "0")
    assert bound.kwargs == {"batch": "48", "gpu": CARD, "fake_data": True}


def test_the_verdict_is_the_one_of_pytorch(open_page: OpenPage, scripted: Scripted) -> None:
    """Arithmetic says that it fits; it is asked where nothing was run."""
    failed = {
        "status": Status.OUT_OF_MEMORY,
        "message": MESSAGE,
        "place": "train.py:17",
        "steps": (),
    }
    document = scripted(limited=failed)
    page = opened(open_page, document)
    expect(it(page, "verdict")).to_have_text("Does not fit")
    expect_words(page, {"proof": ["in step 1", "train.py:17", "Tried to allocate 2.00 MiB."]})
    expect(it(page, "proof")).not_to_contain_text("Of the allocated memory")
    it(page, "batch-slider").press("ArrowRight")
    expect(it(page, "verdict")).to_have_text("Fits")


def test_what_it_needs_and_what_it_takes(open_page: OpenPage, scripted: Scripted) -> None:
    more = Step(3 * MIB, 500 * MIB, 40)
    page = opened(open_page, scripted(is_benchmarked=True, limited={"steps": (more,)}))
    it(page, "assumptions").locator("summary").click()
    takes = format_bytes(500 * MIB + gpu(CARD).context_bytes)
    expect_words(page, {
        "proof": [f"takes {takes}", "cudnn.benchmark"],
        "assumption-benchmark_off": ["is off in the figures"],
    })  # fmt: skip


def test_a_batch_that_nothing_sets(open_page: OpenPage, scripted: Scripted) -> None:
    document = scripted(knob=Knob())
    assert document["max_batch_size"] is None
    page = opened(open_page, document, width=390, theme="dark")
    expect(it(page, "verdict-sentence")).to_contain_text("The script takes")
    expect_words(page, {"fixed-batch": ["its own batch", "{batch}"], "subject": ["its own batch"]})
    for name in ("batch-slider", "recommended", "largest", "curve"):
        expect(it(page, name)).to_have_count(0)
    expect(it(page, "command")).to_contain_text("memfit run --gpu rtx-3060")
    it(page, "gpu").click()
    it(page, "gpu-search").fill("t4")
    it(page, "gpu-search").press("Enter")
    expect(it(page, "card-name")).to_contain_text("T4")
    expect(it(page, "verdict")).to_have_text("Fits")
    it(page, "keep").click()
    page.locator("#tab-compare").click()
    expect(it(page, "side-A")).to_contain_text("its own batch")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_without_a_card(open_page: OpenPage, scripted: Scripted) -> None:
    page = opened(open_page, scripted(card=None))
    expect(it(page, "proof")).to_contain_text("No card was named")


def test_a_saved_document_is_opened_again(
    open_page: OpenPage, scripted: Scripted, tmp_path: Path
) -> None:
    document = scripted()
    page = opened(open_page, document)
    it(page, "export").click()
    with page.expect_download() as started:
        it(page, "export-json").click()
    told = json.loads(Path(started.value.path()).read_text(encoding="utf-8"))
    assert told["recipe"] is None
    assert {key: told[key] for key in ("script", "engine", "made_up")} == {
        key: document[key] for key in ("script", "engine", "made_up")
    }
    assert told["at"]["peak"]["place"] == PLACE
    path = tmp_path / "run.plan.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    it(page, "keep").click()
    page.locator("#tab-compare").click()
    it(page, "open-record").set_input_files(path)
    expect(it(page, "side-B")).to_contain_text("batch 64 (--batch-size)")
