"""A run: a recipe trained to its end in a folder of its own, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from memfit.data.loading.loader import Loader
from memfit.errors import CannotRedo, DoesNotFit, NonFiniteLoss, UsageError
from memfit.recipe.own import Own
from memfit.recipe.recipe import Recipe, example_recipe
from memfit.step.ingredients import Ingredients
from memfit.step.job import Job, resolve
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.ranks.shard import check_shardable
from memfit.trainer.recovery.out_of_memory import OutOfMemoryKept, preparing, release
from memfit.trainer.recovery.recover import recover
from memfit.trainer.recovery.transaction import MicroBatchEvent
from memfit.trainer.run.interruption import Interruption
from memfit.trainer.run.listener import Beginning, Listener
from memfit.trainer.run.notes import notes_of
from memfit.trainer.run.opening import opened_run
from memfit.trainer.run.pace import PaceLog
from memfit.trainer.run.planned import planned
from memfit.trainer.run.run_folder import RunFolder
from memfit.trainer.run.sizes import micro_batches_of, smaller_next_time
from memfit.trainer.run.standing import Standing, followed_split
from memfit.trainer.run.summary import RunResult, summarise
from memfit.trainer.step.backends import backends_of
from memfit.trainer.step.devices import RunDevice, choose_device
from memfit.trainer.step.evaluation import Evaluation, evaluate
from memfit.trainer.step.ingredients import prepare_ingredients
from memfit.trainer.step.micro_batches import even_sizes
from memfit.trainer.step.training import StepResult, Training
from memfit.trainer.weights.checkpoint import load_checkpoint

__all__ = ["RunResult", "train"]

#: About so many lines of training steps are written, however long the run.
_METRIC_LINES = 5000


def train(
    recipe: Recipe | Job | None = None,
    *,
    name: str | None = None,
    runs: Path | str = "runs",
    resume: Path | str | None = None,
    device: str = "auto",
    memory_bytes: int | None = None,
    listener: Listener | None = None,
    command: Sequence[str] = (),
    with_test: bool = True,
    **options: Any,
) -> RunResult:
    """Train a recipe, with the micro-batch that its plan says fits.

    Args:
        recipe: what to train; the built-in ``cnn`` on ``shapes`` when omitted. Not needed to
            resume, unless objects of yours belong to it.
        name: of the run's folder; made of date, model and data when omitted.
        runs: the folder of all runs.
        resume: a run's folder to go on with.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        memory_bytes: play a smaller device.
        listener: is told what happens.
        command: what was typed, for the run's record.
        with_test: look at the test split at the end; a study's trials do not.
        **options: fields of :class:`~memfit.Recipe`; ``model``, ``data``, ``optimizer``,
            ``transform``, ``loss`` and ``step`` may be objects of yours.

    Raises:
        MemfitError: see :mod:`memfit.errors`; nothing that was reached is lost.

    Example:
        >>> import memfit
        >>> data = "shapes,train=256,test=64,size=16"
        >>> result = memfit.train(data=data, epochs=1)  # doctest: +SKIP
        >>> result.evaluation.accuracy  # doctest: +SKIP
    """
    listener = listener or Listener()
    plain, own = Own.split(options)
    if recipe is None and (resume is None or own.given()):
        recipe = example_recipe(**plain)
    elif recipe is None and options.keys() - {"shard"}:
        raise UsageError(f"A run is resumed as it began; {', '.join(options)} cannot change.")
    job = None if recipe is None else resolve(recipe, **options)
    place = choose_device(device, memory_bytes)
    with Ranks.join(place.device) as ranks:
        told = listener if ranks.is_first else Listener()
        with place.limits(), opened_run(
            job,
            name=name,
            runs=Path(runs),
            resume=None if resume is None else Path(resume),
            command=command,
            ranks=ranks,
            on_damaged=lambda path, reason: told.note(f"{path.name} is not used: {reason}."),
            shard=options.get("shard"),
        ) as opened, backends_of(opened[1].recipe, place.device):  # fmt: skip
            with preparing():
                run = _Run(*opened, place, ranks, told, with_test)
            return run.go()


class _Run:
    """One process of a run."""

    def __init__(
        self,
        folder: RunFolder,
        job: Job,
        state: dict[str, Any] | None,
        place: RunDevice,
        ranks: Ranks,
        listener: Listener,
        with_test: bool,
    ) -> None:
        self.folder, self.place, self.ranks = folder, place, ranks
        self.listener = listener
        self.plan, self.job = planned(
            job.on(place.card), world_size=1 if job.recipe.shard else ranks.world_size
        )
        recipe = self.recipe = self.job.recipe
        self.loader = self._loader()
        self.val = self._answered(followed_split(state, self.job.data.dataset))
        self.test = self._answered("test") if with_test else None
        self.total_steps = self.recipe.steps or self.recipe.epochs * len(self.loader)
        if recipe.shard and ranks.are_many:
            check_shardable(recipe, place.memory_bytes, place.device)
        self.ingredients: Ingredients = prepare_ingredients(self.job, place.device, ranks)
        self.plan, sizes = micro_batches_of(
            self.plan, self.ingredients, self.loader, folder=folder, place=place, ranks=ranks
        )
        self.sizes = sizes
        step = 0 if state is None else state["step"]
        ranks.check_same(
            number_of_images=len(self.loader.split), step=step,
            mean=self.loader.mean, std=self.loader.std, classes=self.loader.classes,
        )  # fmt: skip
        self.training = Training(
            self.ingredients, self.loader, self.total_steps, sizes,
            ranks=ranks, on_event=self._changed_micro_batch, release_cache=place.release_cache,
        )  # fmt: skip
        self.evaluating = recover(even_sizes(2 * sizes[0]), release_cache=place.release_cache)
        self.at = Standing(split=None if self.val is None else self.val.split.name)
        self.pace = PaceLog(folder.pace, self.plan, place)
        self._told: set[str] = set()
        self.skipped: set[tuple[str, str]] = set()
        self._adopt()
        self.is_resumed = state is not None
        if state is not None:
            self._load(state)

    # -- from start to end -------------------------------------------------------------------------

    def go(self) -> RunResult:
        """Train to the end, or until a signal says stop."""
        self._begin()
        with Interruption() as interruption:
            try:
                self._train(interruption)
            except CannotRedo as error:
                raise smaller_next_time(
                    error, folder=self.folder, sizes=self.sizes, ranks=self.ranks
                ) from None
            except (NonFiniteLoss, DoesNotFit) as error:
                is_sound = not isinstance(error, NonFiniteLoss) or error.weights_are_finite
                is_shared = isinstance(error, NonFiniteLoss) or not self.ranks.are_many
                if is_sound and is_shared:
                    self._save()  # all is as it was before the step
                self._set_status("stopped")
                raise
        status: Literal["finished", "stopped"] = "finished" if self._is_done else "stopped"
        if self.at.last is None and self.val is not None and self._is_done:  # resumed at its end
            self.at.last = self._evaluate(self.val)
        summary = summarise(self.plan, self.training, self.at, self.place, len(self.skipped))
        if self.test is not None and self._is_done:
            tested = self._tested(self.test)
            summary = replace(summary, test=tested, skipped_images=len(self.skipped))
        if self.ranks.is_first:
            self.folder.write_json("summary.json", summary.to_dict() | {"status": status})
        self._set_status(status)
        self.listener.ended()
        return RunResult(self.folder.path, status, summary)

    def _train(self, interruption: Interruption) -> None:
        while not self._is_done:
            with OutOfMemoryKept() as kept:
                self._train_epoch(interruption)
            if kept.message is not None:
                self._go_back(kept.message)
            elif self.ranks.any(interruption.is_asked, self.place.device):
                return

    def _train_epoch(self, interruption: Interruption) -> None:
        left = self.total_steps - self.training.step
        for batch in islice(self.loader.batches(self.at.epoch, self.at.position), left):
            if (result := self.training.take_step(batch)) is not None:
                self._note_step(result)
            self.at.position = min(batch.position + self.loader.batch_size, len(self.loader.split))
            if self.ranks.any(interruption.is_asked, self.place.device):
                interruption.is_asked = True
                self._save()
                return
            every = self.recipe.checkpoint_every
            if every is not None and self.training.step % every == 0:
                self._save()
        self._finish_epoch()

    def _finish_epoch(self) -> None:
        """Evaluate, then save: an epoch counts as done once its evaluation is in a checkpoint."""
        found, is_best, epoch = None, False, self.at.epoch + 1
        due = epoch % self.recipe.evaluate_every == 0 or self.training.step >= self.total_steps
        if self.val is not None and due:
            found = self._evaluate(self.val)
            is_best = self._note_evaluation(found, epoch)
        self.listener.finished_epoch(self.training.step, epoch, found, is_best)
        self.at.epoch, self.at.position = epoch, 0
        self._save(is_best)

    @property
    def _is_done(self) -> bool:
        patience = self.recipe.early_stopping
        stopped_early = patience is not None and self.at.without_better >= patience
        # batches of nothing but unreadable images take no step
        is_over = self.recipe.steps is None and self.at.epoch >= self.recipe.epochs
        has_all = self.training.step >= self.total_steps or is_over
        return self.at.position == 0 and (has_all or stopped_early)

    def _tested(self, test: Loader) -> Evaluation:
        """The best weights on the test split, which is looked at here and nowhere else."""
        if self.at.best_step not in (None, self.training.step):
            self.training.load_state_dict(load_checkpoint(self.folder.checkpoints.best_path))
        found = self._evaluate(test)
        self._note_skipped()
        self.listener.tested(found, self.training.step)
        return found

    def _evaluate(self, loader: Loader) -> Evaluation:
        return evaluate(self.ingredients, loader, self.evaluating, self.ranks)

    def _note_evaluation(self, found: Evaluation, epoch: int) -> bool:
        """Whether it is the best so far."""
        is_best = self.at.note(found, self.training.step)
        self._write({"event": "evaluation", "epoch": epoch, **found.record})
        return is_best

    # -- the folder --------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self.ranks.is_first:
            if not self.is_resumed:
                self.folder.write_recipe(self.recipe.to_dict())
                self.folder.write_json("plan.json", self.plan.to_dict())
            self.folder.metrics.rewind(self.training.step, evaluated=self.at.position == 0)
        beginning = Beginning(
            run=self.folder.path, plan=self.plan, device=self.place.name,
            step=self.training.step, total_steps=self.total_steps,
            steps_per_epoch=len(self.loader),
            global_batch=min(self.loader.batch_size, len(self.loader.split)),
            micro_batch=self.training.fitting.size, world_size=self.ranks.world_size,
            learning_rate=self.training.peak_rate, memory_bytes=self.place.memory_bytes,
        )  # fmt: skip
        self.listener.began(beginning)
        for note in (
            *self.ingredients.notes,
            *notes_of(self.job, self.loader, self.val, self.ingredients.model, self.ranks),
        ):
            self.listener.note(note)
        if not self.is_resumed:
            self._save()
        if self.ranks.is_first:
            self.pace.start(self.training.step, self.total_steps)

    def _save(self, is_best: bool = False) -> None:
        if not self.training.is_finite():
            return  # the next step's loss tells; older checkpoints are sound
        state = self.training.state_dict()
        self._note_skipped()
        if not self.ranks.is_first:
            self.ranks.wait()
            return
        path = self.folder.save_checkpoint(
            self.training.step,
            {
                **state,
                "progress": self.at.to_dict(),
                "skipped": sorted(self.skipped),
                "recipe": self.recipe.to_dict(),
                "classes": list(self.loader.classes),
            },
            is_best,
        )
        self.listener.saved(path)
        self.ranks.wait()

    def _note_skipped(self) -> None:
        """Images that were left out, of all ranks and all splits."""
        if self.recipe.on_bad_image != "skip":
            return
        loaders = [made for made in (self.loader, self.val, self.test) if made is not None]
        own = {(p.name, p.reason) for each in loaders for p in each.unreadable.values()}
        self.skipped |= {item for each in self.ranks.gather(own) for item in each}
        if self.skipped and self.ranks.is_first:
            self.folder.write_skipped(sorted(self.skipped))

    def _load(self, state: dict[str, Any]) -> None:
        self.skipped |= {(name, reason) for name, reason in state["skipped"]}
        self.training.load_state_dict(state)
        self.at.load(state["progress"])
        if self.ranks.is_first and self.at.best_step is not None:
            self.folder.checkpoints.name_best(self.at.best_step)  # killed before it was named?

    def _go_back(self, message: str) -> None:
        """Memory ran out in the optimizer's step, which cannot be undone: to the checkpoint."""
        failed_at = self.training.step
        release(self.place.release_cache)
        path, state = self.folder.checkpoints.newest()
        self._load(state)
        if self.ranks.is_first:
            self.folder.metrics.rewind(self.training.step, evaluated=self.at.position == 0)
        if self._went_back_at == failed_at:
            raise DoesNotFit(
                f"The optimizer's step does not fit: {message}",
                hint="fused=true needs no temporaries: --optimizer adamw,fused=true.",
            )
        self._went_back_at = failed_at
        self.listener.note(
            f"Memory ran out in the optimizer's step {failed_at + 1}: back to {path.name}."
        )

    _went_back_at: int | None = None

    def _set_status(self, status: Literal["finished", "stopped"]) -> None:
        if self.ranks.is_first:
            self.folder.set_status(status)

    def _write(self, record: dict[str, Any]) -> None:
        if self.ranks.is_first:
            self.folder.metrics.append({"step": self.training.step, **record})

    # -- events ------------------------------------------------------------------------------------

    def _note_step(self, result: StepResult) -> None:
        for note in (self.training.fitting.note, self.training.note):
            if note is not None and note not in self._told:
                self._told.add(note)
                self.listener.note(note)
        self.pace.count(result)
        if result.step % max(1, self.total_steps // _METRIC_LINES) == 0:
            self._write(
                {
                    "event": "step",
                    "epoch": self.at.epoch,
                    "loss": result.loss,
                    "learning_rate": result.learning_rate,
                    "micro_batch": result.micro_batch,
                }
            )
            if self.ranks.is_first:
                self.pace.write(result)
        self.listener.took_step(result, self.place.reserved_bytes)

    def _changed_micro_batch(self, event: MicroBatchEvent) -> None:
        predicted = self.plan.at(event.from_size).peak_reserved_bytes
        self._write(
            {
                "event": "micro-batch",
                "step": self.training.step + 1,  # the one that is under way
                "phase": event.phase,
                "from": event.from_size,
                "to": event.to_size,
                "message": event.message,
                "predicted_bytes": predicted,
                "limit_bytes": self.place.memory_bytes,
            }
        )
        self.listener.changed_micro_batch(event)

    # -- preparation -------------------------------------------------------------------------------

    def _answered(self, split: str) -> Loader | None:
        return None if self.job.data.dataset.answered(split) is None else self._loader(split)

    def _loader(self, split: str | None = None) -> Loader:
        ranks, budget = self.ranks, self.place.budget
        made = self.job.loader(split, rank=ranks.rank, world_size=ranks.world_size)
        made.host = None if budget is None else budget.host
        return made

    def _adopt(self) -> None:
        if (budget := self.place.budget) is not None:
            budget.adopt(self.ingredients.model)
            self.training.tell(budget)
