"""What a page of the documentation shows in Python is true: its blocks run, one after the other."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import memfit

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("data.md", "own-loop.md", "say.md")
ELSEWHERE = {"course.md", "course.zh.md"}  # see test_course.py
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks_of(page: Path) -> list[tuple[int, str]]:
    """The line each block starts on, and its code."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(1)), m.group(1)) for m in PYTHON.finditer(text)]


def test_no_page_with_python_is_left_out() -> None:
    assert {page.name for page in DOCS.glob("*.md") if blocks_of(page)} == {*PAGES, *ELSEWHERE}


@pytest.mark.parametrize("name", PAGES)
def test_the_python_of_a_page_runs(name: str) -> None:
    names: dict[str, object] = {}
    for line, code in blocks_of(DOCS / name):
        # Blank lines in front: an error names the line of the page.
        exec(compile("\n" * line + code, str(DOCS / name), "exec"), names)


def bytes_of(count: str) -> int:
    return int(count.split("B", maxsplit=1)[0].replace(",", ""))


def test_the_table_of_batches_adds_up() -> None:
    text = (DOCS / "data.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| .*?, (\d+) × (\d+) × (\d+) \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", text, re.M
    )
    assert len(rows) == 3
    for channels, height, width, values, float32, half, labels in rows:
        count = 64 * int(channels) * int(height) * int(width)
        assert int(values.replace(",", "")) == count
        assert (bytes_of(float32), bytes_of(half)) == (4 * count, 2 * count)
        assert bytes_of(labels) == 64 * 8


def test_the_default_that_own_loop_names() -> None:
    text = (DOCS / "own-loop.md").read_text(encoding="utf-8")
    default = inspect.signature(memfit.fit_micro_batch).parameters["grow_after"].default
    assert f"`grow_after` clean steps ({default})" in text
