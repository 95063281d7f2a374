"""The Data tab in a browser."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import memfit.page.documents.data as data_document_module
from memfit.data.facts import hazards
from memfit.page.documents.data import data_document

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return data_document("shapes,train=64,test=16,size=32")


@pytest.fixture
def page(open_page: Open, data: dict[str, Any]) -> Any:
    page = open_page({"data": data}, tab="#data")
    page.wait_for_selector("[data-test=data-view]")
    return page


def test_every_picture_is_drawn(page: Any) -> None:
    wide = "(images) => images.map((image) => image.complete && image.naturalWidth)"
    for place, count in (("samples", 24), ("delivered", 16)):
        images = page.locator(f"[data-test={place}] img")
        for image in images.all():
            image.scroll_into_view_if_needed()
        assert images.evaluate_all(wide) == [32] * count


def test_the_channels_are_the_samples(page: Any, data: dict[str, Any]) -> None:
    view = data["sample"]["view"]
    for number, name in enumerate(("red", "green", "blue")):
        page.click(f"[data-test=sample] [data-test=plane-{name}]")
        first = page.locator("[data-test=pixel-numbers] td").first.inner_text()
        corner = 12 * view["width"] + 12  # the window begins in the middle: (32 - 8) / 2
        assert int(first) == view["channels"][number][corner]


def test_it_speaks_chinese_and_says_the_same_numbers(page: Any) -> None:
    assert "786,432 + 512 = 786,944 B" in page.inner_text("[data-test=delivered]")
    page.click("[data-test=language-zh]")
    assert "加载器" in page.inner_text("[data-test=delivered] h2")
    assert "786,432 + 512 = 786,944 B" in page.inner_text("[data-test=delivered]")


def test_hostile_names_are_text(open_page: Open, data: dict[str, Any]) -> None:
    name = "<img src=x onerror=alert(1)>"
    names = [name, *data["classes"]["names"][1:]]
    page = open_page({"data": data | {"name": name, "classes": data["classes"] | {"names": names}}},
                     tab="#data")  # fmt: skip
    page.wait_for_selector("[data-test=data-view]")
    assert page.inner_text("[data-test=data-view] h2 >> nth=0") == name
    assert page.locator("img[src=x]").count() == 0


def test_names_do_not_turn_or_break_what_stands_around_them(
    open_page: Open, data: dict[str, Any]
) -> None:
    names = ["cat\u202egpj.exe", "two\nlines", *data["classes"]["names"][2:]]
    page = open_page({"data": data | {"classes": data["classes"] | {"names": names}}}, tab="#data")
    page.wait_for_selector("[data-test=data-view]")
    shown = page.locator("[data-test=classes] th").all_inner_texts()
    assert shown[:2] == ["cat\\u202egpj.exe", "two\\u000alines"]


def test_every_hazard_has_chinese_words(open_page: Open, data: dict[str, Any]) -> None:
    source = inspect.getsource(hazards)
    kinds = [kind for kind, *_ in hazards._TRAITS.values()]
    kinds += re.findall(r'Hazard\(\s*"([^"]+)"', source)
    assert len(kinds) == 17
    listed = [
        {"kind": kind, "key": data_document_module._key(kind), "count": 1, "example": "",
         "usually": "usually", "here": "here"}
        for kind in kinds
    ]  # fmt: skip
    page = open_page({"data": data | {"warnings": data["warnings"] | {"hazards": listed}}},
                     tab="#data")  # fmt: skip
    page.wait_for_selector("[data-test=warnings]")
    warnings = page.locator("[data-test=warnings]")
    assert warnings.locator("[lang=en]").count() == 3 * len(kinds)
    page.click("[data-test=language-zh]")
    assert warnings.locator("[lang=en]").count() == 0
    assert page.locator("[data-test=data-view] [lang=en]").count() == 0  # the layout, too


def test_without_labels_there_is_no_batch_but_a_reason(
    open_page: Open, data: dict[str, Any]
) -> None:
    problem = {"problem": {"key": "unlabelled", "text": "x has no labels."}}
    page = open_page({"data": data | {"delivered": problem}}, tab="#data")
    assert "no labels" in page.inner_text("[data-test=delivered]")
    page.click("[data-test=language-zh]")
    assert "没有标签" in page.inner_text("[data-test=delivered]")


def test_nothing_is_wider_than_a_phone(open_page: Open, data: dict[str, Any]) -> None:
    page = open_page({"data": data}, tab="#data", width=390)
    page.wait_for_selector("[data-test=data-view]")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
