"""What the timeline shows first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import js_page
import pytest

in_page = js_page.in_page

STEP = [("forward", 0), ("backward", 10), ("optimizer", 20)]


@pytest.mark.parametrize(
    ("peak", "shown"), [(45, {"from": 30, "to": 60}), (12, {"from": 0, "to": 60})]
)
def test_the_last_step_or_everything_when_the_peak_is_elsewhere(
    in_page: Callable[..., Any], peak: int, shown: dict[str, int]
) -> None:
    marks = [
        {"position": 30 * step + start, "step": step, "phase": phase}
        for step in (0, 1)
        for phase, start in STEP
    ]
    code = """async (timeline, use) =>
      (await use("memfit/charts/timeline-scale")).firstView(timeline)"""
    assert in_page(code, {"marks": marks, "count": 60, "peakPosition": peak}) == shown
