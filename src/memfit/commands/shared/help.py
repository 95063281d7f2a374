"""``--help`` with what most people need, ``--help-all`` with everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve
from cyclopts.help import DefaultFormatter

from memfit.commands.shared.flags import own_flags
from memfit.recipe.fields import FIELDS

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

__all__ = ["Help"]

#: A word that has a flag of its own, beside its field's, is rare as well.
_RARE = {row.flag for row in FIELDS.values() if row.is_rare} | {
    f"--{word}" for row in FIELDS.values() for word in own_flags(row)
}


class Help(DefaultFormatter):
    """Leaves the rare flags of the table out, and says of each panel how many."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a panel; nothing where all of it is rare."""
        shown = [entry for entry in panel.entries if not _RARE.intersection(entry.positive_names)]
        if hidden := len(panel.entries) - len(shown):
            title = f"{panel.title} ({hidden} more: --help-all)"
            panel = evolve(panel, entries=shown, title=title)
        if shown:
            super().__call__(console, options, panel)
