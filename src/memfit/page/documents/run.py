"""A training run as plain data for the page; only reads, also while the run goes on."""

from __future__ import annotations

import json
import os
import socket
import tomllib
from pathlib import Path
from typing import Any

from memfit.errors import RunError
from memfit.files.run_lock import writer_of
from memfit.page.documents.run_pace import pace_of
from memfit.recipe.tasks import TASKS
from memfit.trainer.run.run_folder import RunFolder

__all__ = ["run_document", "run_names"]

_SCHEMA_VERSION = 1
#: Of an evaluation, which also has what is as large as the classes squared.
_SHOWN = ("split", "samples", "loss", *(facts.metric for facts in TASKS.values()))


def run_names(root: Path) -> list[str]:
    """Folders of runs, the newest first; none without the root.

    A run is as new as the last word on its status: it began, went on or ended.
    """
    found = [(_written(path), path.parent.name) for path in root.glob("*/run.json")]
    return [name for _, name in sorted(found, reverse=True)]


def run_document(folder: Path, after: int = 0) -> dict[str, Any]:
    """What the Runs tab shows: status, recipe, predicted memory, metrics, pace.

    Args:
        folder: of the run.
        after: rows of metrics that the page already has.

    Returns:
        ``rows`` from number ``first_row`` on. That is ``after``, or 0 where the file has fewer
        rows: a resumed run takes back what it makes again. ``pace`` as
        :func:`memfit.page.documents.run_pace.pace_of` has it.

    Raises:
        OtherVersion: the run was written in another format.
        RunError: the folder is no run, or is damaged.
    """
    run = RunFolder.open(folder)
    facts = run.facts()
    noted, resumed = facts.get("status"), facts.get("resumed", [])
    if not isinstance(noted, str) or not isinstance(resumed, list):
        raise RunError(f"{folder / 'run.json'} is damaged: it tells no status.")
    rows = run.metrics.read()  # a last line that is half written is left for the next time
    first = after if 0 <= after <= len(rows) else 0
    return {
        "schema_version": _SCHEMA_VERSION,
        "kind": "run",
        "name": folder.name,
        "status": _status(folder, noted),
        "created": facts.get("created"),
        "resumed": len(resumed),
        "command": facts.get("command", []),
        "versions": {name: facts.get(f"{name}_version") for name in ("memfit", "torch")},
        "recipe": _recipe(folder / "recipe.toml"),
        "plan": _plan(_optional(run, "plan.json")),
        "summary": _summary(_optional(run, "summary.json")),
        "first_row": first,
        "row_count": len(rows),
        "rows": rows[first:],
        "pace": pace_of(run.pace),
    }


def _status(folder: Path, noted: str) -> str:
    """``killed`` where the process that wrote ``running`` is gone from this machine.

    The lock itself is not touched: who tries it, even for an instant, may be in the way of a
    process that resumes.
    """
    if noted != "running":
        return noted
    writer = writer_of(folder / "run.lock")
    if writer is None or writer[1] != socket.gethostname():
        return noted
    return noted if _is_alive(writer[0]) else "killed"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _recipe(path: Path) -> dict[str, Any] | None:
    """The resolved recipe; None before it is written."""
    try:
        return _plain(tomllib.loads(path.read_text(encoding="utf-8", errors="replace")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror}.") from None
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path} is damaged: {error}.") from None


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """Values that JSON has no form for, such as dates, as text."""
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain


def _optional(run: RunFolder, name: str) -> dict[str, Any] | None:
    return run.read_json(name) if (run.path / name).exists() else None


def _plan(plan: dict[str, Any] | None) -> dict[str, Any] | None:
    """Of ``plan.json`` what the page compares with."""
    if plan is None:
        return None
    return {name: plan.get(name) for name in ("model", "gpu", "micro_batch", "at")}


def _summary(summary: dict[str, Any] | None) -> dict[str, Any] | None:
    """Of ``summary.json`` all but what is as large as the classes squared."""
    if summary is None:
        return None
    return summary | {name: _short(summary.get(name)) for name in ("evaluation", "test")}


def _short(evaluation: Any) -> dict[str, Any] | None:
    if not isinstance(evaluation, dict):
        return None
    return {name: value for name, value in evaluation.items() if name in _SHOWN}


def _written(path: Path) -> float:
    """Seconds since 1970 at which a file was last written; 0 where it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
