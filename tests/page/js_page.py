"""The page's modules in a real browser: one Chromium for all tests of a session."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memfit.page.html import assets, served_page

ORIGIN = "http://memfit.test"

# Nothing is asked of a network or a GPU; the sandbox needs rights that containers do not give.
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
#: For a machine that is ten times slower: who waits for a condition goes on when it holds.
PATIENCE_MS = 120_000

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_BROWSER: pytest.StashKey[Any] = pytest.StashKey()

_TYPES = {".js": "text/javascript", ".html": "text/html", ".css": "text/css"}


def shared_browser(config: pytest.Config) -> Any:
    """The session's Chromium, started when it is first asked for and closed at the end.

    Without one the test is skipped; where ``CI`` is set it fails.
    """
    if _BROWSER not in config.stash:
        config.stash[_BROWSER] = _start(config)
    browser = config.stash[_BROWSER]
    if browser is None and os.environ.get("CI"):
        pytest.fail("no Playwright with a Chromium, and on CI the page must be tested")
    if browser is None:
        pytest.skip("no Playwright with a Chromium")
    return browser


def new_page(config: pytest.Config, **options: Any) -> Any:
    """A page in a context of its own, made with Playwright's options, that waits patiently."""
    context = shared_browser(config).new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    return context.new_page()


@pytest.fixture(scope="module")
def in_page(request: pytest.FixtureRequest) -> Any:
    """Run JavaScript in an empty page that knows the page's modules: ``in_page(code, value)``.

    ``code`` is a function ``async (value, use) => answer`` of plain values, where
    ``await use("memfit/engine/plan")`` gives a module. What is kept in ``window`` stays for later
    calls.
    Afterwards nothing may have been written to the console as an error.
    """
    page = new_page(request.config)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.route("**/*", _answer)
    page.goto(f"{ORIGIN}/")
    yield _runner(page)
    page.context.close()
    assert not errors


def _runner(page: Any) -> Callable[..., Any]:
    def run(code: str, value: Any = None) -> Any:
        """The value travels as text: quicker than Playwright's own way, and exact."""
        call = f"await ({code})(JSON.parse(text), (name) => import(name))"
        answer = page.evaluate(
            f"async (text) => JSON.stringify({call}) ?? null", json.dumps(value, allow_nan=False)
        )
        return None if answer is None else json.loads(answer)

    return run


def _start(config: pytest.Config) -> Any:
    """The browser; None where there is none."""
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        return None
    expect.set_options(timeout=PATIENCE_MS)
    playwright = sync_playwright().start()
    config.add_cleanup(playwright.stop)
    path = next(filter(None, map(shutil.which, _NAMES)), playwright.chromium.executable_path)
    if not Path(path).is_file():
        return None
    browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
    config.add_cleanup(browser.close)
    return browser


def _answer(route: Any) -> None:
    """Files of the page instead of a network; everything else is refused."""
    address = route.request.url
    if address == f"{ORIGIN}/":
        route.fulfill(content_type="text/html", body=_empty_page())
        return
    path = assets().get(address.removeprefix(f"{ORIGIN}/assets/"))
    if path is not None:
        route.fulfill(content_type=_TYPES[path.suffix], body=path.read_text(encoding="utf-8"))
    else:
        route.abort()


def _empty_page() -> str:
    """The page that a server completes, but nothing starts."""
    return served_page().replace('import "memfit/app";', "")
