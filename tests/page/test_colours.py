"""Text of the page can be read: contrast of 4.5 to 1 or more in both themes (WCAG 2.2, 1.4.3)."""

from __future__ import annotations

import re

import pytest
from js_page import ASSETS

LEAST = 4.5

#: Text and what it stands on, as names of the style sheet.
PAIRS = [
    *((ink, paper) for ink in ("text", "muted") for paper in ("bg", "surface", "raised")),
    *(("accent", paper) for paper in ("bg", "surface", "raised")),
    *((tone, paper) for tone in ("good", "warn", "bad") for paper in ("surface", f"{tone}-bg")),
    *(("text", f"{tone}-bg") for tone in ("good", "warn", "bad")),
    ("on-accent", "accent"),
    ("card-line", "surface"),
    ("on-part", "part-activations"),
]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("ink", "paper"), PAIRS)
def test_text_stands_out(theme: str, ink: str, paper: str) -> None:
    colours = colours_of(theme)
    assert contrast(colours[ink], colours[paper]) >= LEAST


def test_the_contrast_is_that_of_the_standard() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def colours_of(theme: str) -> dict[str, str]:
    """The style sheets' colours by name, those of every theme first."""
    found: dict[str, str] = {}
    for path in (ASSETS / "style.css", ASSETS / "style-plan.css"):
        sheet = path.read_text(encoding="utf-8")
        for selector in (r":root", rf':root\[data-theme="{theme}"\]'):
            for block in re.findall(rf"{selector} \{{(.*?)\}}", sheet, re.DOTALL):
                found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    return found


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours such as ``#0072b2``."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
