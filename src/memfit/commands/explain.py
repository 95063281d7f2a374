"""``memfit explain``: what a memory snapshot says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from memfit.commands.shared.flags import JsonFlag, Switch, Whole
from memfit.commands.shared.output import counting, show, show_json, working
from memfit.errors import ExitCode
from memfit.files.names import shown
from memfit.files.output_path import check_output_path, write_output

if TYPE_CHECKING:
    from memfit.explain.explained import Explained

__all__ = ["explain"]


def explain(
    snapshot: Path,
    *,
    device: Whole = None,
    html: Path | None = None,
    force: Switch = False,
    as_json: JsonFlag = False,
) -> int:
    """What fills GPU memory in a snapshot of PyTorch, and why memory ran out.

    Parameters
    ----------
    snapshot:
        A file written by torch.cuda.memory._dump_snapshot, or by memfit plan --snapshot.
    device:
        The GPU's number in the snapshot; the one with the most memory when omitted.
    html:
        Write what was found as one HTML file: look into every instant.
    force:
        Overwrite what exists.
    as_json:
        Print what was found as JSON and nothing else.
    """
    if html is not None:
        check_output_path(html, what="page", suffixes=(".html", ".htm"), force=force)

    from memfit.explain.explained import explain_snapshot

    explained = counting("MiB", lambda step: explain_snapshot(snapshot, device, step))
    if html is not None:
        working("drawing the page", lambda: _write_page(explained, html))
    if as_json:
        show_json(explained.to_dict())
    else:
        from memfit.report.explain import render_explained

        show(lambda console: render_explained(explained, console))
    return ExitCode.OK


def _write_page(explained: Explained, path: Path) -> None:
    from memfit.page.single_file import explain_page

    write_output(path, explain_page(explained).encode())
    print(f"page: {shown(path)}", file=sys.stderr)
