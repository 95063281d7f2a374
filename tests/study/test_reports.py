"""What a study looks like, from one small study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from memfit.report.console.progress import duration
from memfit.report.console.terminal import as_text
from memfit.report.study.figures import FIGURES, draw, write_study_figures
from memfit.report.study.progress import trial_words
from memfit.report.study.text import findings, render_study, study_rows
from memfit.study.results import Study
from memfit.study.science.noise_scale import noise_scale
from memfit.study.science.tradeoff import CriticalBatch, TradeOff
from memfit.study.trials.trial import Trial, TrialRecord


def text_of(study: Study, width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    return as_text(console, render_study(study, console))


def test_the_text_has_every_batch_size_in_every_table(finished: Study) -> None:
    text = text_of(finished)
    for title, columns, rows in study_rows(finished):
        assert title in text
        assert [row[0] for row in rows] == ["16", "64"]
        assert all(len(row) == len(columns) for row in rows)
    assert "memfit train" in text
    assert f"{finished.folder}/report.html" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_text_fits_the_terminal(finished: Study, width: int) -> None:
    short = replace(finished, folder=Path("s"))
    assert max(map(len, text_of(short, width).splitlines())) <= width


def test_without_results_it_still_reads(finished: Study) -> None:
    sizes = tuple(
        replace(size, rate=None, goal=None, equal_epochs=None, equal_steps=None,
                train_accuracy=None, val_accuracy=None, problem="All diverged.")
        for size in finished.sizes
    )  # fmt: skip
    bare = replace(
        finished, sizes=sizes, goal=None, throughput=(), knee=None, noise=(), noise_batch=None,
        tradeoff=None, rate_rule=None, recommendation=None,
    )  # fmt: skip
    assert "Nothing can be recommended" in text_of(bare)
    assert [name for name in FIGURES if draw(bare, name) is not None] == ["memory"]


def test_every_figure_is_written(finished: Study, tmp_path: Path) -> None:
    curve = TradeOff(50, 5000, CriticalBatch(100, 50, None), 0.1, (16, 64))
    paths = write_study_figures(replace(finished, tradeoff=curve), tmp_path / "figures")
    assert {p.suffix for p in paths} == {".png", ".pdf"}
    assert {p.stem for p in paths} >= {"speed", "memory", "accuracy", "gap", "learning-rate"}
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert picture.width > 1000


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(None, None, "do not bound"), (50.0, None, "at least 50"), (None, 90.0, "at most 90"),
     (50.0, 90.0, "50 to 90")],
)  # fmt: skip
def test_open_intervals_are_said(
    finished: Study, low: float | None, high: float | None, words: str
) -> None:
    curve = TradeOff(50, 5000, CriticalBatch(70, low, high), 0.1, (16, 64))
    assert any(words in line for line in findings(replace(finished, tradeoff=curve)))


def test_noise_without_a_value_is_said(finished: Study) -> None:
    unknown = noise_scale([2.0, 2.1, 1.9, 2.2], [0.2, 2.4, -0.1, 0.3], 1, 8)
    points = tuple(replace(point, noise=replace(unknown, value=None)) for point in finished.noise)
    assert any("too small" in line for line in findings(replace(finished, noise=points)))


def test_progress_in_words() -> None:
    assert (duration(59.2), duration(61), duration(3600)) == ("1 min 0 s", "1 min 1 s", "1 h 0 min")
    trial = Trial(64, 0.1, 0, 100, 1)
    assert "diverged after step 7" in trial_words(trial, TrialRecord(trial, "diverged", 7, 1.0, ()))
