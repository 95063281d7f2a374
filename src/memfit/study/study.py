"""The study: speed, memory, noise, steps to a goal, learning rates, and one recommendation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfit.cards.catalogue import GPU
from memfit.cards.catalogue import gpu as find_gpu
from memfit.data.loading.loader import DEFAULT_BATCH
from memfit.data.samples.dataset import Dataset
from memfit.errors import DataError, UsageError
from memfit.planner.plan import Plan
from memfit.planner.planning import plan_job
from memfit.progress import TimeLeft
from memfit.recipe.recipe import Recipe
from memfit.recipe.toml import recipe_to_toml
from memfit.step.job import Job
from memfit.study.advice import advice
from memfit.study.analysis import size_result
from memfit.study.folder import StudyFolder
from memfit.study.measured import measured_noise, measured_speed
from memfit.study.measuring.gradients import accumulation_difference
from memfit.study.measuring.memory import batch_memory
from memfit.study.results import SizeResult, Study, StudySettings
from memfit.study.science.goal import Goal, parse_goal
from memfit.study.science.rate_rule import fit_rate_rule
from memfit.study.science.recommendation import Recommendation
from memfit.study.science.tradeoff import fit_tradeoff
from memfit.study.search import LocalRunner, Runner, Search, SizeRecords, goal_of, study_seconds
from memfit.study.trials.listener import StudyListener
from memfit.trainer.recovery.transaction import batch_dependent_layers
from memfit.trainer.step.devices import choose_device
from memfit.trainer.step.schedule import peak_learning_rate

if TYPE_CHECKING:
    from memfit.study.measuring.noise import NoisePoint
    from memfit.study.measuring.throughput import Throughput

__all__ = ["run_study"]

#: Share of a trial after which bad learning rates are given up.
_RUNG = 0.25
#: Of the budget, for speed and noise together.
_FOR_MEASURING = 0.15
#: Trials may run over by this factor before seeds are left out.
_LATE = 1.2


def run_study(
    job: Job,
    *,
    batch_sizes: Sequence[int],
    seeds: int = 3,
    budget_seconds: float | None = None,
    goal: Goal | str | None = None,
    folder: Path | str,
    device: str = "auto",
    gpu: str | GPU | None = None,
    by_layer: bool = False,
    ray: str | bool = False,
    listener: StudyListener | None = None,
) -> Study:
    """Measure what batch size changes for a job, and recommend one.

    Args:
        job: what to train; each trial takes its own batch, learning rate and seed.
        batch_sizes: global ones, at least two.
        seeds: whole trials of each batch size.
        budget_seconds: for everything; trials become shorter than the recipe's epochs.
        goal: ``"accuracy=0.9"`` or ``"loss=0.3"``; chosen by what was reached when omitted.
        folder: of the study: it goes on with what is there.
        device: ``auto``, ``cpu`` or ``cuda``.
        gpu: the card whose memory is the ceiling; the local one when omitted.
        by_layer: measure the noise of groups of layers, too.
        ray: run trials on Ray: an address, or True for a local one.
        listener: is told what happens.

    Returns:
        The study, as in ``study.json``.

    Raises:
        UsageError: the question is wrong, or the folder is another recipe's.
        KeyboardInterrupt: a signal asked to stop; the same call goes on.
        MemfitError: see :mod:`memfit.errors`; what ran is kept.
    """
    listener = listener or StudyListener()
    wanted = parse_goal(goal) if isinstance(goal, str) else goal
    sizes = _checked_sizes(batch_sizes)
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}; it must be 1 or more.")
    if budget_seconds is not None and budget_seconds <= 0:
        raise UsageError(f"The budget is {budget_seconds:g} s; it must be positive.")
    if job.source is None:
        raise UsageError("A study trains, so it needs data.", hint="Such as --data shapes.")
    with StudyFolder(Path(folder), job) as opened:
        work = _Work(opened, job, sizes, seeds, budget_seconds, wanted, device, gpu, listener)
        study = work.go(by_layer=by_layer, ray=ray)
        listener.ended()
    return study


class _Work:
    """One call of :func:`run_study`."""

    def __init__(
        self,
        folder: StudyFolder,
        job: Job,
        sizes: tuple[int, ...],
        seeds: int,
        budget: float | None,
        goal: Goal | None,
        device: str,
        gpu: str | GPU | None,
        listener: StudyListener,
    ) -> None:
        self.folder, self.job, self.sizes, self.seeds = folder, job, sizes, seeds
        self.budget, self.goal, self.device, self.listener = budget, goal, device, listener
        self.place = choose_device(device)
        self.card = find_gpu(gpu) if isinstance(gpu, str) else gpu or self.place.card
        self.start = time.perf_counter()
        self.pace = TimeLeft(listener)
        self.notes: list[str] = []
        self.samples = _checked_data(job.data.dataset, sizes)
        self.plan: Plan = plan_job(job.but(global_batch=None).on(self.card), verify=False)

    def go(self, *, by_layer: bool, ray: str | bool) -> Study:
        runner = self._runner(ray)
        self.listener.began(self.folder.path, self.sizes, self.place.name)
        speed = self._speed()
        speeds = {point.batch_size: point.samples_per_second for point in speed}
        settings = self._settings(speeds)
        found = self._search(settings, speeds, runner)
        goal = self.goal or goal_of([[record] for size in found for record in size.seeds])
        step_seconds = {point.batch_size: point.step_seconds for point in speed}
        results = tuple(size_result(size, settings, goal, step_seconds) for size in found)
        noise_batch, noise = self._noise(settings, results, by_layer)
        study = self._study(settings, goal, found, results, speed, noise_batch, noise)
        self._write(study)
        return study

    # -- measuring ---------------------------------------------------------------------------------

    def _speed(self) -> tuple[Throughput, ...]:
        self.listener.stage("speed")
        seconds = 0.5
        if self.budget is not None:
            seconds = min(1.0, 0.5 * _FOR_MEASURING * self.budget / (5 * len(self.sizes)))
        return measured_speed(self.folder, self.job, self.sizes, seconds, self.device, self.pace)

    def _settings(self, speeds: Mapping[int, float]) -> StudySettings:
        known = self.folder.settings
        if known is not None:
            return known
        recipe = self.job.asked
        own = recipe.global_batch or recipe.batch_size or DEFAULT_BATCH
        base = recipe.base_batch_size if recipe.lr is None and recipe.base_lr else own
        rate = peak_learning_rate(recipe, base)
        epochs = recipe.epochs
        if recipe.steps is not None:
            epochs = max(1, round(recipe.steps * own / self.samples))

        def settings(number: int) -> StudySettings:
            middle = (self.sizes[0] * self.sizes[-1]) ** 0.5
            steps = max(round(number * self.samples / middle), -(-self.samples // self.sizes[0]))
            return StudySettings(self.samples, number, steps, _RUNG, rate, base)

        if self.budget is not None:
            left = self.budget - (time.perf_counter() - self.start)
            left -= 0.5 * _FOR_MEASURING * self.budget
            while epochs > 1 and study_seconds(settings(epochs), speeds, self.seeds) > left:
                epochs -= 1
        chosen = settings(epochs)
        expected = study_seconds(chosen, speeds, self.seeds)
        if self.budget is not None and expected > left:
            self._note(
                f"The budget of {self.budget:g} s is short: with one epoch a trial, the study "
                f"should take {expected + self.budget - left:.0f} s."
            )
        self.folder.begin(chosen)
        return chosen

    def _search(
        self, settings: StudySettings, speeds: Mapping[int, float], runner: Runner
    ) -> tuple[SizeRecords, ...]:
        budget = self.budget
        return Search(
            settings,
            self.sizes,
            seeds=self.seeds,
            first_seed=self.job.asked.seed,
            goal=self.goal,
            runner=runner,
            runs=self.folder.runs,
            speeds=speeds,
            is_late=lambda: (
                budget is not None and time.perf_counter() - self.start > _LATE * budget
            ),
            note=self._note,
            listener=self.listener,
            pace=self.pace,
        ).go()

    def _runner(self, ray: str | bool) -> Runner:
        if not ray:
            return LocalRunner(self.job, self.folder.runs, self.device)
        from memfit.study.ray_runs import RayRunner

        address = ray if isinstance(ray, str) else None
        return RayRunner(self.job, self.folder.runs, self.device, address)

    def _noise(
        self, settings: StudySettings, results: Sequence[SizeResult], by_layer: bool
    ) -> tuple[int | None, tuple[NoisePoint, ...]]:
        """At the middle batch size that trained, with its learning rate."""
        trained = [result for result in results if result.rate is not None]
        if not trained:
            return None, ()
        middle = trained[len(trained) // 2]
        assert middle.rate is not None
        self.listener.stage("gradient noise")
        batch, rate = middle.batch_size, middle.rate.value
        job = self.job.but(
            global_batch=batch, batch_size=None, accumulation=1, lr=rate, base_lr=None,
            schedule="constant", steps=settings.epoch_steps(batch),
        )  # fmt: skip
        steps = settings.epoch_steps(batch)
        points, notes = measured_noise(
            self.folder, job, steps, batch, self.device, by_layer, self.pace
        )
        self.notes += notes
        return batch, points

    # -- putting it together -----------------------------------------------------------------------

    def _study(
        self,
        settings: StudySettings,
        goal: Goal | None,
        found: Sequence[SizeRecords],
        results: tuple[SizeResult, ...],
        speed: tuple[Throughput, ...],
        noise_batch: int | None,
        noise: tuple[NoisePoint, ...],
    ) -> Study:
        from memfit.study.measuring.throughput import knee

        best = knee(speed).batch_size if speed else None
        measured = {size.batch_size: _measured_bytes(size) for size in found}
        memory = batch_memory(self.plan, self.sizes, measured)
        reached = [r for r in results if r.goal is not None and r.goal.mean_steps is not None]
        tradeoff = fit_tradeoff(
            [r.batch_size for r in reached], [r.goal.reached for r in reached if r.goal]
        )
        rates = [r.rate for r in results if r.rate is not None]
        chosen = advice(results, memory, speed, tradeoff, noise, best)
        self._note_problems(results, goal)
        self._note_batch_norm(chosen)
        return Study(
            folder=self.folder.path,
            recipe=self.job.asked.to_dict(),
            model_name=self.plan.model_name,
            data_name=self.job.data.dataset.name,
            device=self.place.name,
            seeds=self.seeds,
            settings=settings,
            goal=goal,
            sizes=results,
            memory=memory,
            card=None if self.card is None else self.card.name,
            throughput=speed,
            knee=best,
            noise=noise,
            noise_batch=noise_batch,
            tradeoff=tradeoff,
            rate_rule=fit_rate_rule(rates),
            recommendation=chosen,
            notes=tuple(self.notes),
            seconds=sum(r.seconds for size in found for r in _records_of(size)),
        )

    def _note_problems(self, results: Sequence[SizeResult], goal: Goal | None) -> None:
        for result in results:
            if result.problem is not None:
                self._note(f"Batch {result.batch_size}: {result.problem}")
            elif result.goal is not None and None in result.goal.steps:
                number = len(result.goal.reached)
                self._note(
                    f"Batch {result.batch_size}: {number or 'none'} of {len(result.goal.steps)} "
                    f"seeds reached {goal} in {max(t.steps for t in result.tried):,} steps."
                )
        self._note(
            "Learning rates were chosen by the validation images, so accuracies are a little too "
            "good; batch sizes are compared alike. The test images were not looked at."
        )

    def _note_batch_norm(self, chosen: Recommendation | None) -> None:
        """What accumulation changes: measured on a batch that fits, in two halves."""
        if chosen is None or chosen.micro_batch < 2:
            return
        if not batch_dependent_layers(self.plan.step.model):
            return
        whole = chosen.micro_batch
        found = accumulation_difference(
            self.job, global_batch=whole, micro_batch=whole // 2, device=self.device
        )
        layers = found.batch_dependent
        more = f" and {len(layers) - 1} more layers" if len(layers) > 1 else ""
        self._note(
            f"{layers[0]}{more} (BatchNorm) see the micro-batch, so accumulation is not one large "
            f"batch: the gradient of {whole} samples in two halves differs by {found.relative:.2%}."
        )

    def _write(self, study: Study) -> None:
        self.folder.write("study.json", study.to_dict())
        chosen = study.recommendation
        if chosen is None:
            return
        recipe = self.job.asked.but(
            global_batch=chosen.global_batch,
            batch_size=chosen.micro_batch,
            accumulation=1,
            lr=chosen.learning_rate,
            base_lr=None,
        )
        comment = f"# recommended by memfit study: {study.folder}\n"
        self.folder.write_text("recommended.toml", comment + recipe_to_toml(_told(recipe)))

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.listener.note(text)


def _told(recipe: Recipe) -> dict[str, Any]:
    """What the recipe says that is not said anyway."""
    plain = Recipe(model=recipe.model).to_dict()
    return {k: v for k, v in recipe.to_dict().items() if k == "model" or v != plain[k]}


def _records_of(size: SizeRecords) -> list[Any]:
    seeds = [record for record in size.seeds if record.trial.learning_rate == size.best]
    first = {record.trial.name for record in size.by_rate.values()}
    return [*size.by_rate.values(), *(r for r in seeds if r.trial.name not in first)]


def _measured_bytes(size: SizeRecords) -> int | None:
    return max((r.memory["reserved_bytes"] for r in size.seeds if r.memory), default=None)


def _checked_sizes(batch_sizes: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(sorted(set(batch_sizes)))
    if sizes and sizes[0] < 1:
        raise UsageError(f"A batch size of {sizes[0]} is none; it must be 1 or more.")
    if len(sizes) < 2:
        raise UsageError(
            f"A study compares different batch sizes; {len(sizes) or 'none'} was given.",
            hint="Such as --batch-sizes 16,64,256.",
        )
    return sizes


def _checked_data(data: Dataset, sizes: Sequence[int]) -> int:
    samples = len(data.train)
    if data.task not in (None, "classes"):
        raise UsageError(
            f"{data.name} asks for {data.task}; a study compares accuracies, which classes have.",
            hint="memfit plan and memfit train take it.",
        )
    if sizes[-1] > samples:
        raise UsageError(
            f"A batch size of {sizes[-1]:,} is more than the data: {data.name} has {samples:,} "
            "training images.",
            hint=f"Leave it out: batch sizes up to {samples:,} can be studied.",
        )
    if data.answered("val") is None:
        raise DataError(
            f"{data.name} has no validation images with labels: a study compares what they say.",
            hint="Hold out a share of the training images: val_share=0.1 (--val-share 0.1).",
        )
    return samples
