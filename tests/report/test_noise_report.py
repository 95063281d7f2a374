"""The noise scale as people read it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from memfit.errors import DataError
from memfit.report.console.terminal import as_text
from memfit.report.study.noise import noise_figure, render_noise

KNOWN: dict[str, Any] = {
    "value": 1234.5, "low": 980.1, "high": 1600.0, "grad_norm_squared": 0.25, "trace": 308.6,
    "small_batch": 16, "large_batch": 128, "samples": 20, "reason": None,
}  # fmt: skip
UNKNOWN = KNOWN | {
    "value": None, "low": 5000.0, "high": None, "grad_norm_squared": -0.1,
    "reason": "The gradient cannot be told from zero.",
}  # fmt: skip


def content(*points: dict[str, Any], layers: bool = False) -> dict[str, Any]:
    made = [
        {
            "step": 10 * n + 5, "epoch": n / 4, "noise": noise,
            "layers": {"conv": KNOWN, "head": noise} if layers else None,
        }
        for n, noise in enumerate(points)
    ]  # fmt: skip
    return {"schema_version": 1, "points": made, "overall": made[0], "notes": ["BatchNorm: so."]}


def text(found: dict[str, Any], width: int = 80, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, highlight=False, markup=False)
    return as_text(console, render_noise(found, console))


def test_value_interval_terms_and_notes_are_told() -> None:
    shown = text(content(KNOWN, UNKNOWN, layers=True))
    assert "B_simple: 1,234 samples (95 %: 980 to 1,600)" in shown
    assert "does 9%" in shown  # 1 / (1 + 1234.5 / 128)
    assert "at least 5,000" in shown
    assert "By layer" in shown
    assert "conv" in shown
    assert "BatchNorm: so." in shown


def test_what_is_unknown_says_why() -> None:
    shown = text(content(UNKNOWN))
    assert "B_simple: unknown; it is at least 5,000" in shown
    assert "The gradient cannot be told from zero." in shown
    assert "By layer" not in shown
    nothing = text(content(UNKNOWN | {"low": None}))
    assert "at least" not in nothing
    assert "None" not in nothing


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_stays_narrow(width: int) -> None:
    shown = text(content(KNOWN, UNKNOWN, layers=True), width)
    assert max(map(len, shown.splitlines())) <= width


def test_ascii_has_no_other_characters() -> None:
    shown = text(content(KNOWN, UNKNOWN), encoding="ascii")
    assert shown.isascii()
    assert "?" not in shown


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
@pytest.mark.parametrize("layers", [False, True])
def test_the_figure_is_written_once(tmp_path: Path, suffix: str, layers: bool) -> None:
    path = tmp_path / f"noise.{suffix}"
    noise_figure(content(KNOWN, UNKNOWN, layers=layers), path, force=False)
    assert path.stat().st_size > 1000
    with pytest.raises(DataError, match="exists"):
        noise_figure(content(KNOWN), path, force=False)
    noise_figure(content(UNKNOWN), path, force=True)
