"""Pages opened from the disk in a real browser, and held to what every page promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import js_page
import pytest

from memfit.page.html import single_file

#: Screenshots of the last run; git ignores the folder.
ARTEFACTS = Path(__file__).parents[2] / "artefacts"

OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenPage]:
    """Open documents as one file: ``open_page(documents, width=1280, theme="light")``.

    Afterwards no page may have written an error, or asked for anything outside of its file.
    """
    pages: list[Any] = []
    wrong: list[str] = []

    def note(url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            wrong.append(f"request to {url}")

    def open_one(
        documents: Mapping[str, Any], *, width: int = 1280, theme: str = "light", tab: str = ""
    ) -> Any:
        page = js_page.new_page(
            request.config, viewport={"width": width, "height": 900}, color_scheme=theme,
            accept_downloads=True, locale="en-US", reduced_motion="reduce",
        )  # fmt: skip
        pages.append(page)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("request", lambda asked: note(asked.url))
        path = tmp_path / f"page-{len(pages)}.html"
        path.write_text(single_file(documents), encoding="utf-8")
        page.goto(f"{path.as_uri()}{tab}")
        return page

    yield open_one
    for page in pages:
        page.context.close()
    assert not wrong


@pytest.fixture
def picture() -> Callable[[Any, str], None]:
    """Keep a screenshot of a whole page: ``picture(page, "plan-light")``."""

    def keep(page: Any, name: str) -> None:
        ARTEFACTS.mkdir(exist_ok=True)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    return keep
