"""Take the README's two pictures of the page: docs/page.png and docs/page-dark.png.

``python docs/page_pictures.py`` plans ResNet-50 on an RTX 3060, writes the page as one file, and
photographs it with Playwright and a Chromium. Nothing is loaded from a network.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

import memfit
from memfit.page.single_file import plan_page

DOCS = Path(__file__).parent
WIDTH, HEIGHT = 1280, 1400
COLOURS = 192  # of a picture's palette: its own, so that nobody sees a difference


def main() -> int:
    """Plan, open the page twice, write both pictures."""
    from playwright.sync_api import sync_playwright

    plan = memfit.plan(
        "torchvision:resnet50", precision="amp-fp16", optimizer="adamw", gpu="rtx-3060"
    )
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "plan.html"
        path.write_text(plan_page(plan, None), encoding="utf-8")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        _save(_opened(browser, path, "light", "en-US"), DOCS / "page.png")
        _dark(_opened(browser, path, "dark", "zh-CN"), DOCS / "page-dark.png")
        browser.close()
    return 0


def _opened(browser: Any, path: Path, theme: str, locale: str) -> Any:
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme, locale=locale,
        reduced_motion="reduce",
    )  # fmt: skip
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector('[data-test="curve"][data-points]:not([data-points="0"])')
    return page


def _dark(page: Any, path: Path) -> None:
    """The instant of the peak, what is alive in it, and memory against the batch."""
    page.click('[data-test="jump-to-peak"]')
    page.locator(".details").evaluate("(element) => element.scrollIntoView()")
    page.mouse.wheel(0, -70)  # the head of the page lies over its top
    page.wait_for_timeout(300)
    _save(page, path)


def _save(page: Any, path: Path) -> None:
    """A picture with a palette: a third of the bytes."""
    page.mouse.move(0, 0)
    page.screenshot(path=path)
    with Image.open(path) as full:
        small = full.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path.relative_to(DOCS.parent)}: {path.stat().st_size / 1e3:,.0f} kB")


if __name__ == "__main__":
    raise SystemExit(main())
