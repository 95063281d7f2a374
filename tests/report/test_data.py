"""How an inspection reads, at several widths and in several alphabets."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sample_inspection import clean_dataset, clean_inspection, messy_inspection

from memfit.data.facts.inspection import Inspection, inspect_dataset
from memfit.data.samples.dataset import Dataset
from memfit.files.names import clean
from memfit.report.console.terminal import ASCII, UNICODE, as_text
from memfit.report.data.inspection import render_inspection
from memfit.report.data.pixel_numbers import sparkline
from memfit.report.data.preview import preview, spread_samples

WIDTHS = (60, 80, 120)
SAMPLES = {
    "clean": clean_inspection,
    "grey": lambda: clean_inspection(channels=1),
    "messy": messy_inspection,
}


def printed(inspection: Inspection, width: int, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(width=width, file=file, highlight=False, emoji=False, markup=False)
    return as_text(console, render_inspection(inspection, console, memory_bytes=8 << 30))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SAMPLES)
def test_reports_read_as_they_did(
    name: str, width: int, check_golden: Callable[[str, str], None]
) -> None:
    check_golden(f"data_{name}_{width}", printed(SAMPLES[name](), width))


@pytest.mark.parametrize("width", [40, *WIDTHS])
@pytest.mark.parametrize("name", SAMPLES)
def test_no_line_is_too_long(name: str, width: int) -> None:
    lines = printed(SAMPLES[name](), width).splitlines()
    assert max(map(len, lines)) <= width


def test_ascii_has_no_other_characters() -> None:
    text = printed(messy_inspection(), 80, "ascii")
    assert text.isascii()
    assert "?" not in text  # nothing had to be replaced


def test_names_cannot_move_the_cursor() -> None:
    text = printed(messy_inspection(), 120)
    assert "\x1b" not in text
    assert r"\x1b[31mred\n.jpg" in clean("\x1b[31mred\n.jpg")


def test_the_answer_comes_first() -> None:
    text = printed(messy_inspection(), 80)
    order = ["cannot be read", "Exact duplicates:", "Normalise with", "What they are", "Classes"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_only_ten_bad_files_are_shown_and_the_rest_counted() -> None:
    text = printed(messy_inspection(), 120)
    assert text.count("train/broken") == 10
    assert "and 3 more; --json lists all" in text


def test_what_is_to_be_pasted_runs() -> None:
    torch = pytest.importorskip("torch")
    from torchvision.transforms import v2

    for width in WIDTHS:
        text = printed(clean_inspection(), width)
        code = re.search(r"v2\.Normalize\(.*?\]\s*,?\s*\)", text, re.DOTALL)
        assert code is not None
        normalise = eval(code[0], {"v2": v2})
        assert normalise(torch.zeros(3, 2, 2)).shape == (3, 2, 2)


def test_nothing_readable_is_said_and_nothing_else_made_up() -> None:
    none = replace(
        messy_inspection(), statistics=None, delivered=None, cost=None,
        overall=replace(messy_inspection().overall, readable=0, sizes=None),
    )  # fmt: skip
    text = printed(none, 80)
    assert "None of 1,234 images can be read." in text
    assert "Normalise" not in text
    assert "What it costs" not in text


def test_an_empty_source_can_be_printed() -> None:
    assert "0 images" in printed(inspect_dataset(Dataset("nothing", "empty", {})), 80)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.integers(1, 80))
def test_sparklines_show_every_value_that_occurs(counts: list[int], width: int) -> None:
    for marks in (UNICODE, ASCII):
        line = sparkline(counts, width, marks)
        assert len(line) == min(width, len(counts))
        assert (not line.strip()) == (not any(counts))
        if len(counts) <= width:
            assert [mark != " " for mark in line] == [count > 0 for count in counts]


# -- preview ---------------------------------------------------------------------------------------


def colourful(width: int = 80, **settings: object) -> Console:
    settings = {"force_terminal": True, "color_system": "truecolor", **settings}
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    return Console(width=width, file=file, _environ={"TERM": "xterm"}, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_preview_fits_and_names_the_classes(width: int) -> None:
    text = preview(clean_dataset(), colourful(width))
    assert text is not None
    lines = text.plain.splitlines()
    assert max(map(len, lines)) <= width
    assert "class 0" in lines[-1]
    assert "class 2" in lines[-1]


def test_the_preview_has_the_pixels_colours() -> None:
    dataset = clean_dataset()
    text = preview(dataset, colourful())
    assert text is not None
    first = next(span.style for span in text.spans if getattr(span.style, "bgcolor", None))
    red, green, blue = dataset.train.pixels(0)[0, 0]
    assert first.color.triplet == (red, green, blue)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "settings",
    [{"force_terminal": False}, {"color_system": None}, {"color_system": "standard"},
     {"no_color": True}],
)  # fmt: skip
def test_no_preview_without_colours(settings: dict[str, object]) -> None:
    assert preview(clean_dataset(), colourful(**settings)) is None


def test_samples_are_spread_over_classes() -> None:
    train = clean_dataset(classes=3, each=4).train
    labels = [train.label(row) for row in spread_samples(train, 6)]
    assert labels == [0, 0, 1, 1, 2, 2]
    assert len(spread_samples(clean_dataset(classes=30, each=1).train, 7)) == 7
