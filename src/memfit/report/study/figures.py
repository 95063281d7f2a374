"""The figures of a study, each as PNG and PDF (SVG for the page)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memfit.memory.tape.parts import PARTS
from memfit.memory.tape.tape import Part
from memfit.report.figures import write_figure
from memfit.report.study.axes import (
    AMBER,
    BLUE,
    FAINT,
    GREEN,
    INK,
    RED,
    batch_axis,
    legend,
    mark_recommended,
    one_panel,
    plain_numbers,
    style,
)
from memfit.study.results import Measured, Study
from memfit.study.science.rate_rule import RULES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "draw", "write_study_figures"]

_SIZE = (7.2, 4.4)
_MIB = 1024**2
_CURVE = "S/S_min − 1 = 1/(E/E_min − 1)"


def write_study_figures(study: Study, folder: Path) -> list[Path]:
    """Draw every figure for which there are measurements.

    Args:
        study: what was found.
        folder: made when missing; figures of an earlier study in it are replaced.

    Raises:
        DataError: one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in FIGURES:
        figure = draw(study, name)
        if figure is None:
            continue
        for suffix in (".png", ".pdf"):
            write_figure(figure, folder / f"{name}{suffix}")
            written.append(folder / f"{name}{suffix}")
    return written


def draw(study: Study, name: str) -> Figure | None:
    """One figure; None where nothing was measured for it."""
    _, has, paint = FIGURES[name]
    if not has(study):
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained", facecolor="white")
    paint(study, figure)
    return figure


# -- the figures -----------------------------------------------------------------------------------


def _speed(study: Study, figure: Figure) -> None:
    axes = one_panel(figure, "Speed", f"samples/s, {study.device}; bars: 95 % interval of the mean")
    points = study.throughput
    sizes = [p.batch_size for p in points]
    speeds = [p.samples_per_second for p in points]
    errors = [
        [p.samples_per_second - p.low for p in points],
        [p.high - p.samples_per_second for p in points],
    ]
    axes.axhspan(0.95 * max(speeds), max(speeds), color=BLUE, alpha=0.07, linewidth=0)
    axes.text(
        sizes[0] / 1.2, 0.975 * max(speeds), "within 5 % of the best", size=8, color=FAINT,
        va="center",
    )  # fmt: skip
    axes.errorbar(
        sizes, speeds, yerr=errors, color=BLUE, marker="o", markersize=5, capsize=3,
        linewidth=1.6, label="measured",
    )  # fmt: skip
    if study.knee is not None:
        knee = next(p for p in points if p.batch_size == study.knee)
        axes.annotate(
            f"knee: batch {knee.batch_size:,}",
            (knee.batch_size, knee.samples_per_second),
            xytext=(0, -34), textcoords="offset points", ha="center", size=9, color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2, "alpha": 0.9}, zorder=5,
        )  # fmt: skip
    if study.recommendation is not None and study.recommendation.goodput:
        useful = study.recommendation.goodput
        axes.plot(
            list(useful), list(useful.values()), color=GREEN, marker="s", markersize=4,
            linewidth=1.6, label="goodput: useful samples/s",
        )  # fmt: skip
    mark_recommended(axes, study)
    batch_axis(axes, sizes)
    axes.set_ylim(0, max(p.high for p in points) * 1.08)
    axes.set_ylabel("samples/s")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)


def _memory(study: Study, figure: Figure) -> None:
    card = study.card or "no card is the ceiling"
    subtitle = f"predicted at the peak of a step, the whole batch at once; {card}"
    axes = one_panel(figure, "Memory by part", subtitle)
    places = [float(place) for place in range(len(study.memory))]
    bottom = np.zeros(len(study.memory))
    for part, look in PARTS.items():
        if part == Part.CONTEXT:
            continue
        sizes = np.array([m.parts.get(part, 0) for m in study.memory]) / _MIB
        if sizes.sum():
            axes.bar(places, sizes, 0.62, bottom=bottom, color=look.colour, label=look.name)
        bottom += sizes
    for place, height in zip(places, bottom, strict=True):
        axes.text(place, height, f"{height:,.0f}", ha="center", va="bottom", size=8.5, color=INK)
    measured = [
        (place, m.measured_bytes / _MIB)
        for place, m in zip(places, study.memory, strict=True)
        if m.measured_bytes is not None
    ]
    if measured:
        axes.plot(*zip(*measured, strict=True), "D", color=INK, markersize=5, label="measured")
    axes.set_xticks(places, [f"{m.batch_size:,}" for m in study.memory])
    axes.set_xlabel("batch size (samples in one forward)")
    context = max(m.parts.get(Part.CONTEXT, 0) for m in study.memory) / _MIB
    axes.set_ylabel("MiB")
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, bottom.max() * 1.1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(  # beside the bars: they can be equally high
        handles[::-1], labels[::-1], frameon=False, fontsize=8.5, loc="outside right center",
        title=f"without the CUDA context of {context:,.0f} MiB", title_fontsize=8.5,
        alignment="left",
    )  # fmt: skip


def _noise(study: Study, figure: Figure) -> None:
    subtitle = (
        f"measured at batch {study.noise_batch:,} while it trains; band: 95 % bootstrap interval"
    )
    axes = one_panel(figure, "Simple noise scale over training", subtitle)
    known = [p for p in study.noise if p.noise.value is not None]
    epochs = [p.epoch for p in known]
    axes.fill_between(
        epochs,
        [p.noise.low or p.noise.value or math.nan for p in known],
        [p.noise.high or p.noise.value or math.nan for p in known],
        color=BLUE, alpha=0.15, linewidth=0,
    )  # fmt: skip
    values = [p.noise.value or math.nan for p in known]
    axes.plot(epochs, values, color=BLUE, marker="o", markersize=4, label="B_simple = tr Σ / |G|²")
    for number, point in enumerate(p for p in study.noise if p.noise.value is None):
        axes.axvline(
            point.epoch, color=FAINT, linewidth=0.8, linestyle=":",
            label=None if number else "no value: |G|² cannot be told from zero",
        )  # fmt: skip
    axes.set_yscale("log")
    if study.tradeoff is not None:
        critical = study.tradeoff.critical
        axes.axhline(critical.value, color=RED, linestyle="--", linewidth=1.2,
                     label="critical batch, from the steps to the goal")  # fmt: skip
        if critical.low is not None and critical.high is not None:
            axes.axhspan(critical.low, critical.high, color=RED, alpha=0.07, linewidth=0)
    plain_numbers(axes, "y")
    axes.set_xlim(left=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("samples")
    legend(axes, loc="best")


def _tradeoff(study: Study, figure: Figure) -> None:
    left, right = figure.subplots(1, 2)
    style(left, "Steps and examples", f"to {study.goal}")
    style(right, "Steps by batch size", "dotted: half the steps for twice the batch")
    reached = [(s.batch_size, s.goal.reached, s.goal.mean_steps) for s in study.sizes
               if s.goal is not None and s.goal.mean_steps is not None]  # fmt: skip
    sizes = np.array([batch for batch, _, _ in reached], dtype=float)
    means = np.array([mean for _, _, mean in reached])
    for batch, steps, mean in reached:
        left.plot([batch * s for s in steps], steps, "o", color=BLUE, alpha=0.3, markersize=3.5)
        right.plot([batch] * len(steps), steps, "o", color=BLUE, alpha=0.3, markersize=3.5)
        left.annotate(
            f"{batch:,}", (batch * mean, mean), xytext=(5, 4), textcoords="offset points",
            size=8, color=INK,
        )  # fmt: skip
    left.plot(sizes * means, means, "o", color=BLUE, markersize=6, label="mean of the seeds")
    right.plot(sizes, means, "o", color=BLUE, markersize=6)
    right.plot(sizes, means[0] * sizes[0] / sizes, ":", color=FAINT, linewidth=1.2)
    if study.tradeoff is not None:
        _draw_fit(study, left, right, sizes)
    for axes in (left, right):
        axes.set_yscale("log")
        axes.set_xscale("log")
        plain_numbers(axes, "y")
    plain_numbers(left, "x")
    left.set_xlabel("examples seen")
    left.set_ylabel("optimizer steps")
    batch_axis(right, [int(size) for size in sizes])
    right.set_xlabel("batch size")
    for axes in (left, right):
        axes.tick_params(axis="x", rotation=30)
    legend(left, loc="upper right")


def _draw_fit(study: Study, left: Axes, right: Axes, sizes: np.ndarray) -> None:
    fit = study.tradeoff
    assert fit is not None
    batches = np.geomspace(sizes.min() / 1.6, sizes.max() * 1.6, 100)
    steps = np.array([fit.steps(b) for b in batches])
    left.plot(batches * steps, steps, color=RED, linewidth=1.4, label=_CURVE)
    right.plot(batches, steps, color=RED, linewidth=1.4)
    c = fit.critical
    right.axvline(c.value, color=RED, linewidth=1, linestyle="--")
    if c.is_bounded:
        assert c.low is not None
        assert c.high is not None
        right.axvspan(c.low, c.high, color=RED, alpha=0.08, linewidth=0)
        words = f"critical batch\n{c.value:,.0f} ({c.low:,.0f} to {c.high:,.0f})"
    else:
        words = f"critical batch\n{c.value:,.0f}, not bounded"
    right.text(
        0.97, 0.97, words, transform=right.transAxes, ha="right", va="top", size=8.5, color=RED
    )


def _accuracy(study: Study, figure: Figure) -> None:
    settings = study.settings
    subtitle = f"mean of {study.seeds} seeds, each with the learning rate tuned; bars: ± 1 sd"
    axes = one_panel(figure, "Validation accuracy for the same budget", subtitle)
    _series(axes, study, "equal_epochs", f"equal epochs: {settings.epochs}", BLUE, "o")
    _series(axes, study, "equal_steps", f"equal steps: {settings.steps:,}", AMBER, "s")
    if study.goal is not None and study.goal.kind == "accuracy":
        axes.axhline(study.goal.value, color=FAINT, linewidth=1, linestyle=":", label="goal")
    mark_recommended(axes, study)
    batch_axis(axes, [s.batch_size for s in study.sizes])
    axes.set_ylabel("validation accuracy")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    legend(axes, loc="best")


def _series(axes: Axes, study: Study, name: str, label: str, colour: str, marker: str) -> None:
    found: list[tuple[int, Measured]] = [
        (s.batch_size, getattr(s, name)) for s in study.sizes if getattr(s, name) is not None
    ]
    if found:
        axes.errorbar(
            [b for b, _ in found], [m.mean for _, m in found],
            yerr=[m.spread or 0.0 for _, m in found],
            color=colour, marker=marker, markersize=5, capsize=3, linewidth=1.6, label=label,
        )  # fmt: skip


def _gap(study: Study, figure: Figure) -> None:
    subtitle = "at the end of whole trials, mean of the seeds; bars: ± 1 sd"
    axes = one_panel(figure, "Generalisation gap", subtitle)
    _series(axes, study, "train_accuracy", "training images", AMBER, "o")
    _series(axes, study, "val_accuracy", "validation images", BLUE, "o")
    pairs = [s for s in study.sizes if s.train_accuracy is not None and s.val_accuracy is not None]
    axes.fill_between(
        [s.batch_size for s in pairs],
        [s.val_accuracy.mean for s in pairs if s.val_accuracy],
        [s.train_accuracy.mean for s in pairs if s.train_accuracy],
        color=FAINT, alpha=0.12, linewidth=0, label="gap",
    )  # fmt: skip
    batch_axis(axes, [s.batch_size for s in study.sizes])
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    legend(axes, loc="best")


def _learning_rate(study: Study, figure: Figure) -> None:
    rule = study.rate_rule
    subtitle = "grey: tried and worse; bars: rates that cannot be told from the best"
    axes = one_panel(figure, "Best learning rate by batch size", subtitle)
    rates = [s.rate for s in study.sizes if s.rate is not None]
    for size in study.sizes:
        usable = [t.learning_rate for t in size.tried if t.early_loss is not None]
        failed = [t.learning_rate for t in size.tried if t.early_loss is None]
        axes.plot([size.batch_size] * len(usable), usable, "o", color="#d1d5db", markersize=4)
        axes.plot([size.batch_size] * len(failed), failed, "x", color=RED, markersize=5)
    sizes = np.array([rate.batch_size for rate in rates], dtype=float)
    values = np.array([rate.value for rate in rates])
    errors = [[r.value - r.low for r in rates], [r.high - r.value for r in rates]]
    axes.errorbar(
        sizes, values, yerr=errors, fmt="o", color=BLUE, markersize=6, capsize=3,
        label="best rate",
    )  # fmt: skip
    middle, centre = math.exp(np.log(sizes).mean()), math.exp(np.log(values).mean())
    for (name, power), dashes in zip(RULES.items(), ("--", "-.", ":"), strict=True):
        axes.plot(sizes, centre * (sizes / middle) ** power, dashes, color=FAINT, linewidth=1.1,
                  label=f"{name} rule" if power else "no rule")  # fmt: skip
    if rule is not None:
        label = f"fit: batch^{rule.exponent:.2f} ({rule.low:.2f} to {rule.high:.2f})"
        axes.plot(sizes, [rule.rate(b) for b in sizes], color=RED, linewidth=1.5, label=label)
    batch_axis(axes, [s.batch_size for s in study.sizes])
    axes.set_yscale("log")
    plain_numbers(axes, "y")
    axes.set_ylabel("learning rate")
    legend(axes, loc="upper left")


_Paint = Callable[[Study, "Figure"], None]
#: Name of the file: title in the page, whether there is something to draw, and how.
FIGURES: dict[str, tuple[str, Callable[[Study], bool], _Paint]] = {
    "speed": ("Speed and goodput", lambda s: bool(s.throughput), _speed),
    "memory": ("Memory by part", lambda s: bool(s.memory), _memory),
    "noise": ("Gradient noise over training",
        lambda s: any(p.noise.value is not None for p in s.noise), _noise),
    "tradeoff": ("Steps against examples",
        lambda s: sum(z.goal is not None and z.goal.mean_steps is not None for z in s.sizes) >= 2,
        _tradeoff),
    "accuracy": ("Accuracy for the same budget",
        lambda s: any(z.equal_epochs or z.equal_steps for z in s.sizes), _accuracy),
    "gap": ("Generalisation gap", lambda s: any(z.gap is not None for z in s.sizes), _gap),
    "learning-rate": ("Best learning rate by batch size",
        lambda s: sum(z.rate is not None for z in s.sizes) >= 2, _learning_rate),
}  # fmt: skip
