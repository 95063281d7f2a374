"""The files that a plan can be written to: a page, and a memory snapshot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from memfit.commands.shared.output import working
from memfit.errors import UsageError
from memfit.files.names import shown
from memfit.files.output_path import check_output_path, write_output

if TYPE_CHECKING:
    from memfit.cards.catalogue import GPU
    from memfit.planner.plan import Plan

__all__ = ["check_plan_files", "write_plan_files"]


def check_plan_files(
    html: Path | None, snapshot: Path | None, *, cards: Sequence[GPU], force: bool
) -> None:
    """Refuse, before anything is worked out, what could not be written.

    Raises:
        UsageError: several cards were named; or a file exists already, has another ending, or lies
            where nothing can be written.
    """
    if len(cards) > 1 and not (html is None and snapshot is None):
        raise UsageError(f"--html and --snapshot are of one card; {len(cards)} were named.")
    if html is not None:
        check_output_path(html, what="page", suffixes=(".html", ".htm"), force=force)
    if snapshot is not None:
        check_output_path(snapshot, what="snapshot", suffixes=(".pickle", ".pkl"), force=force)


def write_plan_files(
    html: Path | None, snapshot: Path | None, plan: Plan, draw: Callable[[], str]
) -> None:
    """Write what was asked for, and say where.

    Args:
        html: the page; None for none.
        snapshot: for PyTorch's viewer; None for none.
        plan: of a recipe or a script.
        draw: gives the page.
    """
    from memfit.planner.snapshot import plan_snapshot

    if html is not None:
        write_output(html, working("drawing the page", draw).encode())
        print(f"page: {shown(html)}", file=sys.stderr)
    if snapshot is not None:
        write_output(snapshot, working("writing the snapshot", lambda: plan_snapshot(plan)))
        print(f"snapshot: {shown(snapshot)}", file=sys.stderr)
