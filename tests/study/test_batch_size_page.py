"""The numbers of ``docs/batch-size.md`` are those of the study that made its figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from memfit.recipe.recipe import Recipe
from memfit.study.demo import DEMO_BATCH_SIZES, DEMO_GOAL, build, demo_recipe
from memfit.units import format_bytes

DOCS = Path(__file__).parents[2] / "docs"
PAGE = re.sub(r"\s+", " ", (DOCS / "batch-size.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DOCS / "batch-size" / "study.json").read_text())
    return content


def test_the_demo_is_still_what_the_page_says(study: dict[str, Any]) -> None:
    assert Recipe(**study["recipe"]) == demo_recipe()  # fields that came later are as usual
    assert [size["batch_size"] for size in study["sizes"]] == list(DEMO_BATCH_SIZES)
    assert f"accuracy={study['goal']['value']}" == DEMO_GOAL
    assert f"{sum(p.numel() for p in build().parameters()):,} parameters" in PAGE


def test_every_figure_is_there() -> None:
    figures = re.findall(r"!\[[^]]+\]\((batch-size/[^)]+)\)", PAGE)
    assert len(figures) == 7
    assert {f"batch-size/{path.name}" for path in DOCS.glob("batch-size/*.png")} == set(figures)


def test_steps_and_accuracies(study: dict[str, Any]) -> None:
    for size in study["sizes"]:
        goal = size["goal"]
        row = f"| {size['batch_size']} | {goal['mean_steps']:,.0f} | {goal['mean_examples']:,.0f} |"
        assert row in PAGE
    first, last = study["sizes"][0], study["sizes"][-1]
    for kind in ("equal_epochs", "equal_steps"):
        ends = [size[kind]["mean"] * 100 for size in (first, last)]
        assert f"{ends[0]:.1f} % at 16, {ends[1]:.1f} % at 512" in PAGE
    gaps = [size["gap"]["mean"] * 100 for size in (first, last)]
    assert f"{gaps[0]:.1f} points at 16 and {gaps[1]:.1f} at 512" in PAGE


def test_fits_noise_and_recommendation(study: dict[str, Any]) -> None:
    critical = study["tradeoff"]["critical"]
    ends = f"(95 %: {critical['low']:.0f} to {critical['high']:.0f})"
    assert f"is {critical['value']:.0f} here {ends}" in PAGE
    rule = study["rate_rule"]
    words = f"batch^{rule['exponent']:.2f} (95 %: {rule['low']:.2f} to {rule['high']:.2f})"
    assert words.replace("-", "−") in PAGE
    assert rule["supported"] == ["square root", "none"]
    known = [p for p in study["noise"] if p["noise"]["value"] is not None]
    for point in (known[0], known[-1]):
        noise = point["noise"]
        words = f"{noise['value']:.0f} ({noise['low']:.0f} to {noise['high']:.0f})"
        assert f"{words} at epoch {point['epoch']:.1f}" in PAGE
    chosen = study["recommendation"]
    assert f"here {chosen['global_batch']}, learning rate {chosen['learning_rate']:g}" in PAGE
    assert f'"{chosen["sureness"]}": within 5 % of the best in {chosen["share"]:.0%}'[:-1] in PAGE
    assert f"The **knee**, here {study['knee']}," in PAGE
    for memory in (study["memory"][0], study["memory"][-1]):
        assert format_bytes(memory["parts"]["activations"]) in PAGE
