"""The folder that a run begins or goes on in, and the recipe and state that it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memfit.errors import RunError, UsageError
from memfit.recipe import Recipe, load_recipe
from memfit.trainer.ranks import Ranks
from memfit.trainer.resolve import absolute
from memfit.trainer.run_folder import RunFolder

__all__ = ["Opened", "opened_run"]

#: The folder, the recipe, and the state to go on from (None for a new run).
Opened = tuple[RunFolder, Recipe, dict[str, Any] | None]


@contextmanager
def opened_run(
    recipe: Recipe | None,
    *,
    name: str | None,
    runs: Path,
    resume: Path | None,
    command: Sequence[str],
    ranks: Ranks,
    on_damaged: Any = None,
) -> Iterator[Opened]:
    """Begin a run, or go on with one; the first rank writes, the others read.

    Args:
        recipe: of a new run; for a resumed one only where it holds code.
        name: of a new run.
        runs: the folder of all runs.
        resume: the run to go on with.
        command: what was typed.
        ranks: the processes of the run.
        on_damaged: is told path and reason of each checkpoint that is passed over.

    Raises:
        RunError: the folder cannot be made or used, or the run is finished.
        CheckpointError: there is no checkpoint to go on from.
        UsageError: the recipe is missing, or another than the run's.
    """
    if resume is not None:
        with _resumed(recipe, resume, command, ranks, on_damaged) as opened:
            yield opened
        return
    if recipe is None:
        raise UsageError("A new run needs a recipe.")
    recipe = absolute(recipe)
    path = None
    if ranks.is_first:
        words = [_word(recipe.model), _word(recipe.data)]
        keep = recipe.keep_checkpoints
        folder = RunFolder.create(runs, name, words=words, command=command, keep_last=keep)
        path = folder.path
    path = ranks.from_first(path)
    if not ranks.is_first:
        assert path is not None
        folder = RunFolder.open(path)
    with folder:
        yield folder, recipe, None


@contextmanager
def _resumed(
    recipe: Recipe | None, path: Path, command: Sequence[str], ranks: Ranks, on_damaged: Any
) -> Iterator[Opened]:
    folder = RunFolder.open(path)
    if folder.status == "finished":
        raise RunError(
            f"{path} is finished: there is nothing to resume.",
            hint="For more epochs start a new run from its weights: --weights "
            f"{folder.checkpoints.last_path}.",
        )
    if recipe is None:
        recipe = load_recipe(path / "recipe.toml")
    if ranks.is_first:
        folder = RunFolder.resume(path, command=command, keep_last=recipe.keep_checkpoints)
    with folder:
        ranks.wait()
        _, state = folder.checkpoints.newest(on_damaged)
        yield folder, recipe, state


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else getattr(value, "name", type(value).__name__)
    text = str(text).partition(",")[0]
    text = text.rpartition(":")[2] if not text.endswith(".py") else text
    return Path(text).name or "data"
