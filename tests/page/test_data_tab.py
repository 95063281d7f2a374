"""The Data tab in a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memfit.report.page.data_document import data_document

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


def test_nothing_is_wider_than_a_phone(open_page: Open, data: dict[str, Any]) -> None:
    page = open_page({"data": data}, tab="#data", width=390)
    page.wait_for_selector("[data-test=data-view]")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
