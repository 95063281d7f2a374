"""Ways to fit more: two lines each, what it buys and how to ask for it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from memfit.planner.result import Option
from memfit.report.console.terminal import Marks, shorten
from memfit.units import format_bytes

__all__ = ["ways_list"]

_COLUMN = 12
#: From this width on there is room for the total beside what is saved.
_WIDE = 72


def ways_list(options: Sequence[Option], at: str, width: int, marks: Marks) -> Group:
    """The options in the order given, with their flags and what they cost.

    Args:
        options: ranked.
        at: the batch at which totals and savings hold, in words.
        width: columns of the terminal.
        marks: the characters to draw with.
    """
    has_card = any(option.max_batch_size is not None for option in options)
    titles = [*(["total"] if width >= _WIDE else []), "saves", *(["largest"] if has_card else [])]
    name_width = min(52, width - _COLUMN * len(titles))
    title = Text("Ways to fit more".ljust(name_width), style="bold")
    title.append("".join(name.rjust(_COLUMN) for name in titles), style="dim not bold")
    lines: list[RenderableType] = [title]
    for option in options:
        lines.append(_numbers(option, name_width, marks, wide=width >= _WIDE, has_card=has_card))
        how = Text(option.flag, style="cyan")
        if option.note:
            how.append(f" {marks.dot} {option.note}", style="dim")
        lines.append(Padding(how, (0, 0, 0, 4)))
    lines.append(Text(f"total and saves: at {at}", style="dim"))
    return Group(*lines)


def _numbers(option: Option, name_width: int, marks: Marks, *, wide: bool, has_card: bool) -> Text:
    name = shorten(option.name, name_width - 3, marks)
    line = Text(f"  {name}".ljust(name_width), no_wrap=True)
    if wide:
        line.append(format_bytes(option.total_bytes).rjust(_COLUMN))
    line.append(format_bytes(option.saved_bytes).rjust(_COLUMN))
    if has_card and option.max_batch_size is not None:
        line.append(f"{option.max_batch_size:,}".rjust(_COLUMN), style="bold")
    return line
