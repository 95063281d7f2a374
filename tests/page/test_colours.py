"""Text of the page can be read, and everyone tells the parts apart.

Contrast is 4.5 to 1 or more in both themes (WCAG 2.2, 1.4.3). Colour blindness is simulated with
the matrices for full severity of Machado, Oliveira and Fernandes 2009 (IEEE TVCG 15:6, table 1);
the distance is CIEDE2000, of which about 2 can just be seen.
"""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from memfit.memory.tape.parts import PARTS
from memfit.page.html import assets

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
    """Colours by name: of the parts, then of the style sheets, those of every theme first."""
    found = {
        f"part-{part}": look.colour if theme == "light" else look.dark_colour
        for part, look in PARTS.items()
    }
    for name in ("style.css", "style-plan.css"):
        sheet = assets()[name].read_text(encoding="utf-8")
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


VISIONS = {
    "usual": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip
LEAST_DISTANCE = 9


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISIONS)
def test_every_two_parts_differ(theme: str, vision: str) -> None:
    parts = {name: hex_ for name, hex_ in colours_of(theme).items() if name.startswith("part-")}
    assert len(parts) == len(PARTS)
    seen = {name: as_seen(hex_, VISIONS[vision]) for name, hex_ in parts.items()}
    for one, other in combinations(seen, 2):
        distance = float(deltaE_ciede2000(seen[one], seen[other]))
        assert distance >= LEAST_DISTANCE, f"{one} and {other}"


def as_seen(colour: str, matrix: np.ndarray) -> np.ndarray:
    """A colour as somebody sees it, in CIELAB."""
    coded = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(matrix @ light, 0, 1)
    coded = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    return rgb2lab(coded[None, None])[0, 0]
