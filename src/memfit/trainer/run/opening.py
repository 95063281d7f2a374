"""The folder that a run begins or goes on in, and the recipe and state that it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from memfit.errors import CheckpointError, RunError, UsageError
from memfit.recipe.recipe import Recipe
from memfit.recipe.toml import load_recipe
from memfit.step.job import Job, resolve
from memfit.trainer.ranks.launch import launch, restarts
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.run.run_folder import RunFolder

__all__ = ["Opened", "as_begun", "opened_run"]

#: The folder, the job, and the state to go on from (None for a new run).
Opened = tuple[RunFolder, Job, dict[str, Any] | None]

#: Fields of a recipe that a checkpoint's tensors depend on.
_DECIDES_STATE = (
    "model", "input_shape", "num_classes", "optimizer", "precision", "frozen", "ema",
)  # fmt: skip


@contextmanager
def opened_run(
    job: Job | None,
    *,
    name: str | None,
    runs: Path,
    resume: Path | None,
    command: Sequence[str],
    ranks: Ranks,
    on_damaged: Any = None,
    shard: bool | None = None,
) -> Iterator[Opened]:
    """Begin a run, or go on with one; the first rank writes, the others read.

    Started again by ``torchrun --max-restarts``, it goes on with the run that this torchrun began.

    Args:
        job: of a new run; for a resumed one only where it holds objects of the user's.
        name: of a new run.
        runs: the folder of all runs.
        resume: the run to go on with.
        command: what was typed.
        ranks: the processes of the run.
        on_damaged: is told path and reason of each checkpoint that is passed over.
        shard: of the recipe, for a resumed run; None: as it was.

    Raises:
        RunError: the folder cannot be made or used, or the run is finished.
        CheckpointError: there is no checkpoint to go on from, or it is of another recipe.
        UsageError: the job is missing, or another than the run's.
    """
    if resume is None and restarts():
        resume = ranks.from_first(_begun_by(launch(), runs) if ranks.is_first else None)
    if resume is not None:
        with _resumed(job, resume, command, ranks, on_damaged, shard) as opened:
            yield opened
        return
    if job is None:
        raise UsageError("A new run needs a recipe.")
    job = job.absolute()
    path = None
    if ranks.is_first:
        words = [_word(job.recipe.model), _word(job.recipe.data or "data")]
        keep = job.recipe.keep_checkpoints
        folder = RunFolder.create(runs, name, words=words, command=command, keep_last=keep)
        path = folder.path
    path = ranks.from_first(path)
    if not ranks.is_first:
        assert path is not None
        folder = RunFolder.open(path)
    with folder:
        try:
            if ranks.is_first:
                folder.write_recipe(job.asked.to_dict())  # killed now, it can be resumed
            yield folder, job, None
        except BaseException:
            if ranks.is_first and _is_untouched(folder):
                folder.discard()
            raise


@contextmanager
def _resumed(
    job: Job | None,
    path: Path,
    command: Sequence[str],
    ranks: Ranks,
    on_damaged: Any,
    shard: bool | None,
) -> Iterator[Opened]:
    folder = RunFolder.open(path)
    if folder.status == "finished":
        raise RunError(
            f"{path} is finished: there is nothing to resume.",
            hint="For more epochs start a new run from its weights: --weights "
            f"{folder.checkpoints.last_path}.",
        )
    job = _job_of(path, job)
    if shard is not None:
        job = job.but(shard=shard)
    if ranks.is_first:
        folder = RunFolder.resume(path, command=command, keep_last=job.recipe.keep_checkpoints)
    with folder:
        ranks.wait()
        if _is_untouched(folder):  # killed before its first checkpoint
            yield folder, job, None
            return
        file, state = folder.checkpoints.newest(on_damaged)
        _check_same(file, job.recipe, state["recipe"])
        yield folder, job.but(val_share=as_begun(job.asked, state).val_share), state


def as_begun(recipe: Recipe, state: Mapping[str, Any]) -> Recipe:
    """A run's recipe, with what it held out: nothing, where it began before that was done."""
    return recipe.but(val_share=state["recipe"].get("val_share", 0.0))


def _begun_by(launched: str | None, runs: Path) -> Path | None:
    """The newest run of one ``torchrun``."""
    found = []
    for path in runs.glob("*/run.json"):
        with suppress(RunError):
            facts = RunFolder.open(path.parent).facts()
            if launched is not None and facts.get("launch") == launched:
                found.append((str(facts["created"]), path.parent))
    return max(found)[1] if found else None


def _is_untouched(folder: RunFolder) -> bool:
    """Whether no step was taken in it."""
    return not any(folder.checkpoints.folder.glob("*.pt")) and not folder.metrics.read()


def _job_of(path: Path, given: Job | None) -> Job:
    """The run's recipe, with the objects that only the caller has."""
    saved = load_recipe(path / "recipe.toml")
    if given is None:
        return resolve(saved)
    now = given.absolute().asked
    for field in fields(Recipe):
        value, known = getattr(now, field.name), getattr(saved, field.name)
        if field.name != "shard" and value not in (field.default, known):  # how it runs, not what
            raise UsageError(
                f"{path} was begun with {field.name} = {known!r}, not {value!r}.",
                hint="A run is resumed as it began; for another recipe start a new run.",
            )
    return given.of(saved)


def _check_same(file: Path, recipe: Recipe, saved: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that a changed ``recipe.toml`` cannot go on from."""
    values = recipe.to_dict()
    for name in _DECIDES_STATE:
        if values[name] != saved[name]:
            raise CheckpointError(
                f"{file} was written with {name} = {saved[name]!r}; recipe.toml says "
                f"{values[name]!r}.",
                hint="Put recipe.toml back as it was, or start a new run with --weights.",
            )


def _word(text: str) -> str:
    text = text.partition(",")[0]
    text = text.rpartition(":")[2] if not text.endswith(".py") else text
    return Path(text).name or "data"
