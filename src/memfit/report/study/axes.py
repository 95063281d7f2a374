"""What the figures of a study share: colours, quiet axes, batch sizes at their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memfit.study.results import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "AMBER", "BLUE", "FAINT", "GREEN", "INK", "LINE", "RED", "batch_axis", "legend",
    "mark_recommended", "one_panel", "plain_numbers", "style",
]  # fmt: skip

INK, FAINT, LINE = "#20242a", "#6b7280", "#c7ccd3"
BLUE, RED, GREEN, AMBER = "#2563eb", "#dc2626", "#15803d", "#d97706"


def one_panel(figure: Figure, title: str, subtitle: str = "") -> Axes:
    """The only panel of a figure."""
    axes = figure.subplots()
    style(axes, title, subtitle)
    return axes


def style(axes: Axes, title: str, subtitle: str = "") -> None:
    """Title, subtitle, quiet axes and grid."""
    words = f"{title}\n" if subtitle else title
    axes.set_title(words, loc="left", size=12, weight="bold", color=INK)
    if subtitle:
        axes.text(0, 1.025, subtitle, transform=axes.transAxes, size=8.5, color=FAINT, va="bottom")
    axes.tick_params(labelsize=9, colors=FAINT, length=3)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(LINE)
    axes.grid(visible=True, which="major", color="#eceff3", linewidth=0.8)
    axes.set_axisbelow(True)


def batch_axis(axes: Axes, sizes: Sequence[int]) -> None:
    """Batch sizes at their places on a logarithmic axis, as they are written."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(sizes), [f"{size:,}" for size in sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
    axes.set_xlabel("batch size (samples for one optimizer step)")


def plain_numbers(axes: Axes, which: str) -> None:
    """1, 2, 5, 10 on a logarithmic axis, as people write them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(LogLocator(base=10, subs=()))


def legend(axes: Axes, **where: object) -> None:
    """Without a frame."""
    options: dict[str, object] = {"frameon": False, "fontsize": 8.5, "labelcolor": INK, **where}
    axes.legend(**options)


def mark_recommended(axes: Axes, study: Study) -> None:
    """A green stripe at the recommended batch."""
    if study.recommendation is not None:
        axes.axvline(
            study.recommendation.global_batch, color=GREEN, linewidth=6, alpha=0.13, zorder=0,
            label="recommended",
        )  # fmt: skip
