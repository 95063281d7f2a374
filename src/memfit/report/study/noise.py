"""The gradient noise scale, in words and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from memfit.files.output_path import check_figure_path
from memfit.report.console.terminal import ASCII, Marks, heading, marks_of
from memfit.report.figures import write_figure

__all__ = ["noise_figure", "render_noise"]

_Content = Mapping[str, Any]


def render_noise(content: _Content, console: Console) -> Group:
    """A measured noise scale.

    Args:
        content: a measurement's ``to_dict()``.
        console: to draw for.
    """
    marks, overall = marks_of(console), content["overall"]
    lines: list[RenderableType] = [
        Text(f"Gradient noise scale B_simple: {_in_words(overall['noise'])}", style="bold"),
        Text(_meaning(overall["noise"])),
        Text(""),
        heading("Over the training"),
        _over_training(content["points"], marks),
    ]
    if overall["layers"] is not None:
        lines += [Text(""), heading("By layer"), _by_layer(overall["layers"], marks)]
    lines += [Text(f"{marks.maybe} {note}") for note in content["notes"]]
    return Group(*lines)


def _in_words(noise: _Content) -> str:
    if noise["value"] is None:
        least = f"; it is at least {_number(noise['low'])}" if noise["low"] else ""
        return f"unknown{least}"
    low, high = _number(noise["low"]), _number(noise["high"])
    return f"{_number(noise['value'])} samples (95 %: {low} to {high})"


def _meaning(noise: _Content) -> str:
    """What the number says about batch sizes (McCandlish et al. 2018, section 2.3)."""
    if noise["value"] is None:
        return str(noise["reason"])
    batch = noise["large_batch"]
    share = 1 / (1 + noise["value"] / batch)
    return (
        "Below it, doubling the batch nearly halves the steps; above it, it mostly doubles the "
        f"samples. A step of {batch:,} samples here does {share:.0%} of what a step with the "
        "exact gradient would."
    )


def _over_training(points: Sequence[_Content], marks: Marks) -> Table:
    table = _table(marks, "epoch", "step")
    for point in points:
        table.add_row(f"{point['epoch']:.2f}", f"{point['step']:,}", *_cells(point["noise"], marks))
    return table


def _by_layer(layers: Mapping[str, _Content], marks: Marks) -> Table:
    table = _table(marks, "layer")
    for name, noise in layers.items():
        table.add_row(name, *_cells(noise, marks))
    return table


def _table(marks: Marks, *first: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in first:
        table.add_column(name, justify="left" if name == "layer" else "right")
    terms = ("|G|^2", "tr Sigma") if marks is ASCII else ("|G|²", "tr Σ")
    for name in ("B_simple", "95 %", *terms):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(noise: _Content, marks: Marks) -> tuple[str, str, str, str]:
    terms = f"{noise['grad_norm_squared']:.3g}", f"{noise['trace']:.3g}"
    if noise["value"] is None:
        low = f"at least {_number(noise['low'])}" if noise["low"] else ""
        return "unknown", low, *terms
    interval = f"{_number(noise['low'])} {marks.ellipsis} {_number(noise['high'])}"
    return _number(noise["value"]), interval, *terms


def _number(value: float) -> str:
    """Three figures, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def noise_figure(content: _Content, path: Path, *, force: bool) -> None:
    """Draw the noise scale over the training, with its intervals, and by layer where asked for.

    Args:
        content: a measurement's ``to_dict()``.
        path: ends in ``.png``, ``.pdf`` or ``.svg``.
        force: overwrite.

    Raises:
        UsageError: another ending.
        DataError: the file exists or cannot be written.
    """
    check_figure_path(path, force=force)
    from matplotlib.figure import Figure

    layers = content["overall"]["layers"] or {}
    figure = Figure(figsize=(11 if layers else 6.5, 4.2), layout="constrained")
    axes, *others = figure.subplots(1, 2 if layers else 1, squeeze=False)[0]
    points = content["points"]
    _draw(axes, [(p["epoch"], p["noise"]) for p in points], "whole gradient")
    axes.axhline(points[0]["noise"]["large_batch"], color="0.6", ls="--", lw=1)
    axes.set_title("B_simple; dashed: the batch used")
    for panel in others:
        for name in layers:
            _draw(panel, [(p["epoch"], p["layers"][name]) for p in points], name)
        panel.set_title("By layer; triangles: at least")
        panel.legend(fontsize=8)
    for panel in (axes, *others):
        panel.set_xlabel("epoch")
        panel.set_ylabel("B_simple [samples]")
        panel.set_yscale("log")
        panel.grid(alpha=0.3)
    write_figure(figure, path)


def _draw(axes: Any, found: Sequence[tuple[float, _Content]], label: str) -> None:
    """Points with error bars; an arrow up from the least value where only that is known."""
    known = [(at, noise) for at, noise in found if noise["value"]]
    values = [noise["value"] for _, noise in known]
    below = [noise["value"] - min(noise["low"], noise["value"]) for _, noise in known]
    above = [max(noise["high"], noise["value"]) - noise["value"] for _, noise in known]
    drawn = axes.errorbar(
        [at for at, _ in known], values, yerr=(below, above), marker="o", ms=4, capsize=3,
        label=label,
    )  # fmt: skip
    least = [(at, noise["low"]) for at, noise in found if noise["value"] is None and noise["low"]]
    if least:
        axes.plot(*zip(*least, strict=True), ls="", marker="^", color=drawn.lines[0].get_color())
