"""``memfit explain``: what a memory snapshot says."""

from __future__ import annotations

from pathlib import Path

from memfit.commands.output import counting, show, show_json
from memfit.errors import ExitCode
from memfit.flags import JsonFlag, Whole

__all__ = ["explain"]


def explain(snapshot: Path, *, device: Whole = None, as_json: JsonFlag = False) -> int:
    """What fills GPU memory in a snapshot of PyTorch, and why memory ran out.

    Parameters
    ----------
    snapshot:
        A file written by torch.cuda.memory._dump_snapshot, or by memfit plan --snapshot.
    device:
        The GPU's number in the snapshot; the one with the most memory when omitted.
    as_json:
        Print what was found as JSON and nothing else.
    """
    from memfit.explain.explained import explain_snapshot

    explained = counting("MiB", lambda step: explain_snapshot(snapshot, device, step))
    if as_json:
        show_json(explained.to_dict())
    else:
        from memfit.report.explain import render_explained

        show(lambda console: render_explained(explained, console))
    return ExitCode.OK
