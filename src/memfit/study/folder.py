"""The folder of a study: ordinary runs, what was measured beside them, and the result.

::

    studies/NAME/
      settings.json       the recipe and what all trials have in common
      runs/               a run folder for every trial, each with a trial.json
      throughput.json     speed, once measured
      noise.json          the noise scale, once measured
      study.json          the result
      recommended.toml    ready for memfit train
      figures/  report.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memfit.errors import RunError, UsageError
from memfit.files.durable import why_not_written, write_whole
from memfit.files.metrics_file import read_json, to_json
from memfit.files.run_lock import RunLock
from memfit.step.job import Job
from memfit.study.results import StudySettings, plain

__all__ = ["StudyFolder"]

_VERSION = 1


class StudyFolder:
    """One study on the disk; locked while it is open.

    Args:
        path: made when missing.
        job: of the study.

    Raises:
        UsageError: the folder holds a study of another recipe, or something else.
        RunError: it cannot be written, or another process works on it.
    """

    def __init__(self, path: Path, job: Job) -> None:
        self.path = path
        self.runs = path / "runs"
        self._recipe = plain(job.absolute().asked.to_dict())
        self._check(path)
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            self._lock = RunLock(path / "study.lock")
        except OSError as error:
            reason = why_not_written(error, path.parent)
            raise RunError(f"Cannot write {path}: {reason}.") from None

    def _check(self, path: Path) -> None:
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file, not the folder of a study.")
        known = self.read("settings.json")
        if known is None:
            if path.is_dir() and any(p.name not in ("runs", "study.lock") for p in path.iterdir()):
                raise UsageError(
                    f"{path} is no study: it has no settings.json.", hint="Choose another --folder."
                )
            return
        if known.get("schema_version") != _VERSION:
            raise UsageError(f"{path} was written by another version of memfit.")
        differences = [
            f"{name} = {_shown(known['recipe'].get(name))} there, {_shown(value)} now"
            for name, value in self._recipe.items()
            if known["recipe"].get(name) != value
        ]
        if differences:
            raise UsageError(
                f"{path} is the study of another recipe: {'; '.join(differences)}.",
                hint="Choose another --folder, or ask with the recipe it began with.",
            )

    @property
    def settings(self) -> StudySettings | None:
        """Of the study that was begun here; None for a new one."""
        known = self.read("settings.json")
        return None if known is None else StudySettings(**known["settings"])

    def begin(self, settings: StudySettings) -> None:
        """Write down what all trials have in common."""
        self.write(
            "settings.json",
            {"schema_version": _VERSION, "recipe": self._recipe, "settings": plain(settings)},
        )

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the study; None where it is not there.

        Raises:
            RunError: it is damaged.
        """
        path = self.path / name
        return read_json(path, "Remove it to measure it again.") if path.is_file() else None

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all."""
        self.write_text(name, to_json(content, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all.

        Raises:
            RunError: it cannot be written.
        """
        try:
            write_whole(self.path / name, text.encode())
        except OSError as error:
            reason = why_not_written(error, self.path)
            raise RunError(f"Cannot write {self.path / name}: {reason}.") from None

    def close(self) -> None:
        """Let another process work on it."""
        self._lock.release()

    def __enter__(self) -> StudyFolder:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)
