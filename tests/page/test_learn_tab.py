"""The Learn tab: its bytes are the plan's and the course's, and it speaks both languages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memfit
from memfit.memory.tape.tape import Part
from memfit.page.documents.learn import (
    LEARN_IMAGES,
    LEARN_OPTIMIZERS,
    LEARN_PRECISIONS,
    learn_documents,
)
from memfit.planner.plan import Plan

Open = Callable[..., Any]

FOUR = ("parameters", "gradients", "optimizer", "batch", "activations")
#: docs/course.md, section 6.
COURSE = {
    "parameters": 407_080,
    "gradients": 407_080,
    "optimizer": 814_160,
    "batch": 201_216,
    "activations": 37_900,
}


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    return {"learn": learn_documents()}


@pytest.fixture
def page(open_page: Open, documents: dict[str, Any]) -> Any:
    page = open_page(documents, tab="#learn")
    page.wait_for_selector("[data-test=four]")
    return page


def test_the_course_is_where_it_begins(page: Any) -> None:
    assert counted(page) == COURSE
    assert page.inner_text("[data-test=parameter-count]").strip() == "101,770"
    formula = page.inner_text("[data-test=formula-parameters]")
    assert " ".join(formula.split()) == (
        "784 × 128 + 128 + 128 × 10 + 10 = 101,770 parameters × 4 B = 407,080 B = 397.5 KiB"
    )


@pytest.mark.parametrize("image", LEARN_IMAGES)
@pytest.mark.parametrize("optimizer", LEARN_OPTIMIZERS)
@pytest.mark.parametrize("precision", LEARN_PRECISIONS)
def test_by_hand_counted_and_planned_are_the_same(
    page: Any, image: str, optimizer: str, precision: str
) -> None:
    plan = planned(image, optimizer, precision)
    for choice in (image, optimizer, precision):
        page.click(f"[data-test=choose-{choice}]")
    for batch in (1, 64, 100):
        page.fill("[data-test=learn-batch-number]", str(batch))
        page.dispatch_event("[data-test=learn-batch-number]", "change")
        assert counted(page) == when_full(plan, batch)
        said = page.locator("[data-test=agrees]").all_inner_texts()
        assert len(said) == len(FOUR)
        assert all(text.startswith("✓") for text in said)
        assert peak(page) == plan.at(batch).parts


@pytest.mark.parametrize(
    ("typed", "taken"), [("5000", "1024"), ("-3", "1"), ("", "64"), ("99.6", "100")]
)
def test_a_batch_out_of_range_is_not_left_standing(page: Any, typed: str, taken: str) -> None:
    place = "[data-test=learn-batch-number]"
    for _ in range(2):  # also where the batch is that already
        page.fill(place, typed)
        page.dispatch_event(place, "change")
        assert page.input_value(place) == taken
        assert page.inner_text("[data-test=shape] b >> nth=0") == f"{int(taken):,}"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_tables_fit_a_phone(open_page: Open, documents: dict[str, Any], language: str) -> None:
    page = open_page(documents, tab="#learn", width=390)
    page.wait_for_selector("[data-test=four]")
    page.click(f"[data-test=language-{language}]")
    for name in ("layers", "kept", "comparison", "precisions"):
        table = page.locator(f"[data-test={name}]")
        beyond = "(table) => table.scrollWidth - table.parentElement.clientWidth"
        assert table.evaluate(beyond) <= 0, name


def test_the_slider_makes_the_batch_grow_and_leaves_the_rest(page: Any) -> None:
    before = counted(page)
    page.focus("[data-test=learn-batch]")
    for _ in range(8):  # one doubling
        page.keyboard.press("ArrowRight")
    after = counted(page)
    assert after["batch"] == 2 * before["batch"]
    assert after["parameters"] == before["parameters"]
    assert after["activations"] == 2 * (before["activations"] - 12) + 12  # three single numbers


def test_a_step_shows_what_is_alive(page: Any) -> None:
    alive = {}
    for stop in ("data", "forward", "peak", "backward", "optimizer", "end"):
        page.click(f"[data-test=stop-{stop}]")
        cells = page.locator("[data-test=alive] [data-part]")
        alive[stop] = {
            cell.get_attribute("data-part"): number(cell.inner_text()) for cell in cells.all()
        }
    assert alive["data"]["gradients"] == 0
    assert alive["forward"]["activations"] == COURSE["activations"]
    assert alive["backward"]["gradients"] == COURSE["gradients"]
    assert alive["backward"]["activations"] == 64 * 10 * 4 + 4  # the output and the loss
    assert alive["optimizer"]["temporaries"] > 0
    assert alive["end"]["temporaries"] == 0


def test_a_question_shows_its_answer_on_the_bench(page: Any) -> None:
    page.click("[data-test=question-adam] summary")
    page.click("[data-test=try-adam]")
    assert counted(page)["optimizer"] == 0
    page.click("[data-test=course-choice]")
    assert counted(page) == COURSE


def test_the_pixels_are_numbers_in_grey_and_colour(page: Any) -> None:
    first = page.inner_text("[data-test=pixel-numbers]")
    page.focus("[data-test=pixel-window]")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("[data-test=pixel-numbers]") != first
    assert page.locator("[data-test=plane-red]").count() == 0
    page.click("[data-test=choose-colour]")
    red = page.inner_text("[data-test=pixel-numbers]")
    page.click("[data-test=plane-blue]")
    assert page.inner_text("[data-test=pixel-numbers]") != red
    page.click("[data-test=unit-share]")
    shares = [float(text) for text in page.inner_text("[data-test=pixel-numbers]").split()]
    assert len(shares) == 64
    assert all(0 <= share <= 1 for share in shares)


def test_chinese_covers_the_whole_tab(page: Any) -> None:
    page.click("[data-test=language-zh]")
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    code = """() => {
      const tab = document.getElementById("panel-learn");
      const blocks = tab.querySelectorAll("p, h2, h3, li, summary, th, figcaption, label, button");
      return [...blocks].map((block) => {
        const copy = block.cloneNode(true);
        copy.querySelectorAll("code, pre, .mono, table").forEach((part) => part.remove());
        return copy.textContent;
      });
    }"""
    texts = page.evaluate(code)
    assert len(texts) > 100
    latin = [text for text in texts if re.search("[A-Za-z]", text) and not has_chinese(text)]
    allowed = r"Adam|SGD|float32|AMP / float32|[\d,. ×+=*/%()]|[KM]iB|B|→|—|-|bfloat16|ToTensor"
    assert [text for text in latin if re.sub(allowed, "", text).strip()] == []
    page.click("[data-test=language-en]")
    assert not any(has_chinese(text) for text in page.evaluate(code))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_is_wider_than_a_phone(
    open_page: Open, documents: dict[str, Any], language: str
) -> None:
    page = open_page(documents, tab="#learn", width=390)
    page.click(f"[data-test=language-{language}]")
    page.wait_for_selector("[data-test=four]")
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    for choice in ("colour", "amp-bf16"):
        page.click(f"[data-test=choose-{choice}]")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_documents_are_few_and_small(documents: dict[str, Any]) -> None:
    learn = documents["learn"]
    assert len(learn) == len(LEARN_IMAGES) * len(LEARN_OPTIMIZERS) * len(LEARN_PRECISIONS)
    assert len(json.dumps(learn)) < 250_000
    assert all(document["kind"] == "plan" for document in learn.values())


def test_the_course_says_the_same_numbers() -> None:
    course = (Path(__file__).parents[2] / "docs" / "course.md").read_text(encoding="utf-8")
    for size in COURSE.values():
        assert str(size) in course.replace(",", "").replace("_", "")


def planned(image: str, optimizer: str, precision: str) -> Plan:
    return memfit.plan(
        "mlp",
        input_shape=LEARN_IMAGES[image],
        optimizer=LEARN_OPTIMIZERS[optimizer],
        precision=precision,
        gpu="rtx-3060",
        verify=False,
    )


def when_full(plan: Plan, batch: int) -> dict[str, int]:
    """Bytes of the four parts where backward begins, and where the second step's update does."""
    tape, sizes = plan.tape_at(batch)
    starts = {mark.phase: mark.position for mark in tape.marks if mark.step == 1}

    def live(events: int) -> dict[str, int]:
        alive: set[int] = set()
        for event in tape.events[:events]:
            alive.symmetric_difference_update({event if event >= 0 else ~event})
        parts = dict.fromkeys(map(str, Part), 0)
        for number_ in alive:
            parts[str(tape.allocations[number_].part)] += sizes[number_]
        return parts

    update = live(starts["optimizer"])
    backward = live(starts["backward"])
    return {name: update[name] for name in FOUR[:3]} | {name: backward[name] for name in FOUR[3:]}


def counted(page: Any) -> dict[str, int]:
    return {
        name: int(page.get_attribute(f"[data-test=counted-{name}]", "data-bytes")) for name in FOUR
    }


def peak(page: Any) -> dict[str, int]:
    cells = page.locator("[data-test=peak-parts] [data-part]").all()
    return {cell.get_attribute("data-part"): number(cell.text_content()) for cell in cells}


def number(text: str) -> int:
    return int(text.replace(",", "").removesuffix("B").strip())


def has_chinese(text: str) -> bool:
    return re.search("[\u4e00-\u9fff]", text) is not None
