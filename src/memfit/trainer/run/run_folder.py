"""The folder of one run: what was asked, what was planned, what happened, what was learned.

::

    runs/2026-11-21-cnn-shapes-1/
      run.json        format, versions, command, status
      recipe.toml     the resolved recipe
      plan.json       the plan that the run started with
      metrics.jsonl   one JSON object for each line; the same after a resume
      pace.jsonl      seconds, samples and memory at those steps; only for people and the page
      skipped.txt     images left out, with the reason
      summary.json    the result
      checkpoints/    step-00000123.pt …, last.pt, best.pt
      run.lock        locked while a process writes
"""

from __future__ import annotations

import difflib
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any, Literal

from memfit.errors import OtherVersion, RunError, UsageError
from memfit.files.durable import remove_leftovers, why_not_written, write_whole
from memfit.files.metrics_file import MetricsFile, read_json, to_json
from memfit.files.run_lock import RunLock
from memfit.recipe.toml import recipe_to_toml
from memfit.trainer.ranks.launch import launch
from memfit.trainer.weights.checkpoints import Checkpoints

__all__ = ["FORMAT_VERSION", "RunFolder", "RunStatus"]

#: Of the folder; counted up when an older memfit could not use it.
FORMAT_VERSION = 1

#: ``running`` without a process that holds the lock was killed.
RunStatus = Literal["running", "finished", "stopped"]


class RunFolder:
    """One run on the disk. Make it with ``create``, ``resume`` (both write) or ``open`` (reads).

    As a context it lets go of the lock at its end.

    Args:
        path: the folder.
        lock: held when this process writes.
        keep_last: checkpoints to keep besides the best.
    """

    def __init__(self, path: Path, lock: RunLock | None, keep_last: int = 2) -> None:
        self.path = path
        self.metrics = MetricsFile(path / "metrics.jsonl")
        self.pace = MetricsFile(path / "pace.jsonl")
        self.checkpoints = Checkpoints(path / "checkpoints", keep_last)
        self._lock = lock

    @classmethod
    def create(
        cls,
        root: Path,
        name: str | None,
        *,
        words: Sequence[str] = (),
        command: Sequence[str] = (),
        keep_last: int = 2,
    ) -> RunFolder:
        """Make the folder of a new run; one that exists is never used again.

        Args:
            root: the folder of all runs; made when missing.
            name: the run's; today, the words and a number when omitted.
            words: for the name, such as the model and the data.
            command: what was typed, for ``run.json``.
            keep_last: checkpoints to keep besides the best.

        Raises:
            RunError: the name is taken, or the place cannot be written.
            UsageError: the name is no name of a folder.
        """
        with _writing(root):
            root.mkdir(parents=True, exist_ok=True)
        path = _made_with_name(root, name) if name is not None else _made_with_words(root, words)
        with _writing(path):
            (path / "checkpoints").mkdir()
            run = cls(path, RunLock(path / "run.lock"), keep_last)
        run._write_facts({**_facts(command), "status": "running", "resumed": []})
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A run to read from, finished or not, also while a process writes to it.

        Raises:
            RunError: the folder is no run, or damaged.
            OtherVersion: it was written in another format.
        """
        run = cls(path, None)
        run.facts()
        return run

    @classmethod
    def resume(cls, path: Path, *, command: Sequence[str] = (), keep_last: int = 2) -> RunFolder:
        """A run to go on with: locked, and cleared of what a killed process left unfinished.

        Raises:
            RunError: the folder is no run, is damaged, or cannot be written.
            OtherVersion: it was written in another format.
            RunInUse: a live process writes to it.
        """
        cls.open(path)
        with _writing(path):
            lock = RunLock(path / "run.lock")
        run = cls(path, lock, keep_last)
        try:
            run._take_over(command)
        except BaseException:
            run.close()
            raise
        return run

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    def facts(self) -> dict[str, Any]:
        """What ``run.json`` says: ``schema_version``, versions, ``command``, ``status``.

        Raises:
            RunError: the folder is no run, or damaged.
            OtherVersion: it was written in another format.
        """
        try:
            (self.path / "run.json").stat()
        except (FileNotFoundError, NotADirectoryError):
            raise _no_run(self.path) from None
        except OSError as error:
            raise RunError(f"Cannot read {self.path}: {error.strerror}.") from None
        facts = self.read_json("run.json")
        found = facts.get("schema_version")
        if found != FORMAT_VERSION:
            raise OtherVersion(
                f"{self.path} was written by memfit {facts.get('memfit_version', 'unknown')} in "
                f"run format {found}; this memfit knows run format {FORMAT_VERSION}.",
                hint=f"Install memfit {facts.get('memfit_version', 'of that time')} to use it.",
            )
        return facts

    @property
    def status(self) -> RunStatus:
        """As ``run.json`` says; ``running`` also for a run that was killed."""
        status: RunStatus = self.facts()["status"]
        return status

    def set_status(self, status: RunStatus) -> None:
        """Note that the run goes on, is finished, or was stopped.

        Raises:
            RunError: it cannot be written.
        """
        self._write_facts({**self.facts(), "status": status})

    def save_checkpoint(self, step: int, content: dict[str, Any], is_best: bool = False) -> Path:
        """Write a checkpoint; the metrics up to it are on the disk before it is.

        Raises:
            CheckpointError: it cannot be written; older ones are untouched.
            RunError: the metrics cannot be written.
        """
        self.metrics.sync()
        return self.checkpoints.save(step, content, is_best)

    def discard(self) -> None:
        """Remove a new run that could not begin, so that its name is free again."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def write_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Write ``recipe.toml``, from the resolved recipe's ``to_dict()``.

        Raises:
            RunError: it cannot be written, or holds a value that TOML cannot.
        """
        try:
            text = recipe_to_toml(recipe)
        except UsageError as error:
            raise RunError(f"The recipe cannot be written as TOML: {error}") from None
        self._write("recipe.toml", text)

    def write_skipped(self, images: Iterable[tuple[str, str]]) -> None:
        """Write ``skipped.txt``: for each image left out a line with its name, a tab, the reason.

        Raises:
            RunError: it cannot be written.
        """
        lines = (f"{_one_line(name)}\t{_one_line(reason)}\n" for name, reason in images)
        self._write("skipped.txt", "".join(lines))

    def write_json(
        self, name: Literal["plan.json", "summary.json", "micro_batch.json"], content: Any
    ) -> None:
        """Write a result's ``to_dict()``.

        Raises:
            RunError: it cannot be written.
        """
        self._write(name, to_json(content, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the run.

        Raises:
            RunError: it is missing or damaged.
        """
        return read_json(self.path / name)

    def close(self) -> None:
        """Let another process write; closing twice is harmless."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _take_over(self, command: Sequence[str]) -> None:
        with _writing(self.path):
            remove_leftovers(self.path)
            self.checkpoints.folder.mkdir(exist_ok=True)
        self.checkpoints.remove_leftovers()
        self.metrics.repair()
        facts = self.facts()
        resumed = [*facts.get("resumed", []), _facts(command)]
        self._write_facts({**facts, "status": "running", "resumed": resumed})

    def _write_facts(self, facts: Mapping[str, Any]) -> None:
        self._write("run.json", to_json(facts, indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        with _writing(self.path / name):
            # names of files may hold bytes that are no UTF-8
            write_whole(self.path / name, text.encode(errors="surrogateescape"))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write {path}: {why_not_written(error, path.parent)}.",
            hint="Choose a place that can be written, or make room there.",
        ) from None


def _made_with_name(root: Path, name: str) -> Path:
    if not name.strip() or name[0] in ".-" or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise UsageError(f"{name!r} is no name for a run.", hint="Use one word, like cnn-large.")
    path = root / name
    try:
        path.mkdir()
    except FileExistsError:
        if (path / "run.json").is_file():
            hint = f"Continue it with --resume {path}, or choose another name."
        else:
            hint = "It is no run of memfit; choose another name."
        raise RunError(f"{path} exists; a run never writes over it.", hint=hint) from None
    except OSError as error:
        raise RunError(f"Cannot make {path}: {error.strerror}.") from None
    return path


def _made_with_words(root: Path, words: Sequence[str]) -> Path:
    cleaned = (re.sub(r"[^\w.]+", "-", word.lower()).strip("-._") for word in words)
    stem = "-".join((f"{datetime.now():%Y-%m-%d}", *filter(None, cleaned)))[:60]
    for number in count(1):
        path = root / f"{stem}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"Cannot make {path}: {error.strerror}.") from None
        return path
    raise AssertionError("count has no end")


def _facts(command: Sequence[str]) -> dict[str, Any]:
    from memfit.version import __version__

    return {
        "schema_version": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "memfit_version": __version__,
        "torch_version": _version_of("torch"),
        "torchvision_version": _version_of("torchvision"),
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "launch": launch(),
        "command": list(command),
    }


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _no_run(path: Path) -> RunError:
    if path.is_dir():
        return RunError(f"{path} is no run of memfit: it has no run.json.")
    if path.exists():
        return RunError(f"{path} is no run of memfit: it is a file.", hint="Name the run's folder.")
    known = [run.parent.name for run in path.parent.glob("*/run.json")]
    nearest = difflib.get_close_matches(path.name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(str(path.parent / name) for name in nearest)}?"
    return RunError(f"There is no run {path}.", hint=hint if nearest else None)


def _one_line(text: str) -> str:
    return re.sub(r"[\t\r\n]", lambda match: repr(match[0])[1:-1], text)
