"""The checkpoints of one run: the last few, the best, and the way back when one is damaged.

``step-00000123.pt`` are the last k. ``last.pt`` and ``best.pt`` are further names (hard links) of
such files: they take no space, stay when the step's own name goes, and a folder copied to another
disk, or one without links, has whole files in their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memfit.errors import CheckpointError, UsageError
from memfit.files.durable import link_or_copy, remove_leftovers, why_not_written
from memfit.trainer.weights.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["Checkpoints"]

_STEP_NAME = re.compile(r"step-(\d{8,})\.pt")


class Checkpoints:
    """The checkpoints in one folder; one process writes, any number read.

    Args:
        folder: exists.
        keep_last: how many besides the best.

    Raises:
        UsageError: ``keep_last`` is below 1.
    """

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        if keep_last < 1:
            raise UsageError(f"keep_last is {keep_last}; at least one checkpoint must be kept.")
        self.folder = folder
        self.keep_last = keep_last

    @property
    def last_path(self) -> Path:
        """``last.pt``, the newest one under a name that stays."""
        return self.folder / "last.pt"

    @property
    def best_path(self) -> Path:
        """``best.pt``; there once a step was the best."""
        return self.folder / "best.pt"

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, from old to new."""
        names = (_STEP_NAME.fullmatch(path.name) for path in self.folder.glob("step-*.pt"))
        return sorted(int(name[1]) for name in names if name)

    def path(self, step: int) -> Path:
        """Where the checkpoint after ``step`` optimizer steps is, or would be."""
        return self.folder / f"step-{step:08d}.pt"

    def save(self, step: int, content: dict[str, Any], is_best: bool = False) -> Path:
        """Write the checkpoint after ``step`` optimizer steps, then let old ones go.

        Checkpoints of later steps go too: they are damaged, or of a future that this run, resumed
        from before them, did not take.

        Raises:
            CheckpointError: it cannot be written; all older ones are still there.
        """
        path = self.path(step)
        save_checkpoint(path, content)
        try:
            link_or_copy(path, self.last_path)
            if is_best:
                link_or_copy(path, self.best_path)
            self._let_go(step)
        except OSError as error:
            raise CheckpointError(
                f"{path} is written, but its folder cannot be brought up to date: "
                f"{why_not_written(error, self.folder, path.stat().st_size)}."
            ) from None
        return path

    def name_best(self, step: int) -> None:
        """Let ``best.pt`` be the checkpoint of a step, where that is still there.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        path = self.path(step)
        try:
            if path.exists():
                link_or_copy(path, self.best_path)
        except OSError as error:
            raise CheckpointError(f"Cannot write {self.best_path}: {error.strerror}.") from None

    def newest(
        self, on_damaged: Callable[[Path, str], None] | None = None
    ) -> tuple[Path, dict[str, Any]]:
        """The newest checkpoint that is whole.

        Args:
            on_damaged: told the path and the reason of each one passed over.

        Returns:
            Its path and its content, on the CPU.

        Raises:
            CheckpointError: there is none, or none can be used; lists every reason.
            OtherVersion: the newest whole one is of another format.
        """
        reasons = []
        try:
            candidates = self._candidates()
        except OSError as error:
            raise CheckpointError(f"Cannot read {self.folder}: {error.strerror}.") from None
        for path in candidates:
            try:
                return path, load_checkpoint(path)
            except CheckpointError as error:
                reason = getattr(error, "reason", error.message)
                reasons.append(f"  {path.name}: {reason}")
                if on_damaged is not None:
                    on_damaged(path, reason)
        if not reasons:
            raise CheckpointError(
                f"There is no checkpoint in {self.folder}.",
                hint="The run was stopped before its first one: start it again under a new name.",
            )
        raise CheckpointError(
            f"None of the checkpoints in {self.folder} can be used:\n" + "\n".join(reasons),
            hint="Restore one of them from a backup, or start a new run.",
        )

    def remove_leftovers(self) -> list[Path]:
        """Remove what killed processes left unfinished; only for the one process that writes.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        try:
            return remove_leftovers(self.folder)
        except OSError as error:
            raise CheckpointError(f"Cannot clean {self.folder}: {error.strerror}.") from None

    def _candidates(self) -> list[Path]:
        """From new to old, each file once, though it may have several names."""
        steps = [self.path(step) for step in reversed(self.steps())]
        files: dict[tuple[int, int], Path] = {}
        for path in (*steps[:1], self.last_path, *steps[1:], self.best_path):
            if path.exists():
                status = path.stat()
                files.setdefault((status.st_dev, status.st_ino), path)
        return list(files.values())

    def _let_go(self, newest_step: int) -> None:
        steps = self.steps()
        kept = [step for step in steps if step <= newest_step][-self.keep_last :]
        for step in steps:
            if step not in kept:
                self.path(step).unlink(missing_ok=True)
