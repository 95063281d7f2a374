"""The gradient noise scale over a training: it grows as the gradient shrinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from memfit.data.loading.loader import DEFAULT_BATCH, Loader
from memfit.errors import UsageError
from memfit.progress import SILENT, Tell
from memfit.recipe.recipe import Recipe
from memfit.step.job import Job
from memfit.study.measuring.gradients import MeasuredTraining, SquaredNorms, layer_groups
from memfit.study.science.noise_scale import NoiseScale, noise_scale
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.recovery.transaction import batch_dependent_layers
from memfit.trainer.run.planned import planned
from memfit.trainer.step.backends import backends_of
from memfit.trainer.step.devices import choose_device
from memfit.trainer.step.ingredients import prepare_ingredients

__all__ = [
    "NoiseMeasurement",
    "NoisePoint",
    "NoiseScale",
    "measure_noise",
    "micro_batches_of",
    "noise_scale",
]

#: Pairs behind each point of a measurement: fewer have no interval to speak of.
_PAIRS_OF_A_POINT = 20
_MOST_POINTS = 12
_USUAL_MICRO_BATCHES = 8


@dataclass(frozen=True, slots=True)
class NoisePoint:
    """The noise scale at one time of a training.

    Args:
        step: in the middle of the steps that were averaged, from 1.
        epoch: at that step, from 0.
        noise: of the whole gradient.
        layers: of the gradient of each group of layers; None unless asked for.
    """

    step: int
    epoch: float
    noise: NoiseScale
    layers: dict[str, NoiseScale] | None = None


@dataclass(frozen=True)
class NoiseMeasurement(Sequence[NoisePoint]):
    """The noise scale over a training: a sequence of points, and all of it together.

    Args:
        points: over the training, in order.
        overall: over all measured steps.
        steps: that were taken.
        losses: of the steps that were taken.
        notes: what to know about the numbers, in sentences.
    """

    points: tuple[NoisePoint, ...]
    overall: NoisePoint
    steps: int
    losses: tuple[float, ...]
    notes: tuple[str, ...]

    @overload
    def __getitem__(self, index: int) -> NoisePoint: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[NoisePoint, ...]: ...
    def __getitem__(self, index: int | slice) -> NoisePoint | tuple[NoisePoint, ...]:
        """A point."""
        return self.points[index]

    def __len__(self) -> int:
        """Points."""
        return len(self.points)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"schema_version": 1, **asdict(self)}


def micro_batches_of(
    recipe: Recipe, micro_batch: int | None, micro_batches: int | None
) -> tuple[int, int]:
    """Small batch and number of small batches in the large one, which is the global batch.

    Args:
        recipe: whose ``batch_size`` and ``global_batch`` hold where nothing else is said.
        micro_batch: samples; what makes 8 micro-batches of the global batch when omitted.
        micro_batches: how many; what makes the global batch, else 8, when omitted.

    Raises:
        UsageError: the global batch cannot be cut so.

    >>> micro_batches_of(Recipe(model="mlp", global_batch=256), None, None)
    (32, 8)
    """
    whole = recipe.global_batch
    if micro_batch is None and micro_batches is None:
        micro_batch = recipe.batch_size
    if micro_batch is None:
        whole = whole or DEFAULT_BATCH
        number = _USUAL_MICRO_BATCHES if micro_batches is None else micro_batches
        while micro_batches is None and number > 2 and whole % number:
            number -= 1
        return _part(whole, number), number
    if micro_batches is None:
        micro_batches = _USUAL_MICRO_BATCHES if whole is None else _part(whole, micro_batch)
    return micro_batch, micro_batches


def _part(whole: int, number: int) -> int:
    if number < 1 or whole % number:
        raise UsageError(
            f"A global batch of {whole} cannot be cut into {number}.",
            hint="Give both --micro-batch and --micro-batches: their product is the global batch.",
        )
    return whole // number


def measure_noise(
    job: Job,
    *,
    steps: int,
    micro_batch: int,
    micro_batches: int,
    every: int = 1,
    device: str = "auto",
    by_layer: bool | Sequence[str] = False,
    progress: Tell = SILENT,
) -> NoiseMeasurement:
    """Train for some steps, and measure the noise of its gradients meanwhile.

    Each step's global batch is ``micro_batch * micro_batches`` samples in the loader's order, each
    of them once an epoch. The learning rate follows the recipe's schedule of its whole training,
    of which these are the first steps. In a process group the ranks share the micro-batches; with
    as many ranks as micro-batches, each rank's gradient is one.

    In the first epoch every batch is new to the weights, and ``G`` is the gradient on the data's
    distribution. In later ones it is the gradient on the training set of N images, and its square
    comes out too small by ``tr Σ / N``, as batches are drawn without replacement.

    Args:
        job: names data.
        steps: to take.
        micro_batch: b, samples.
        micro_batches: k, in each step; the large batch is ``B = b·k``.
        every: so many steps there is a measured one.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        by_layer: also for each top-level module; or paths of modules.
        progress: is told steps that were taken, and all.

    Raises:
        UsageError: the numbers do not go together, or with the data.
        NonFiniteLoss: the training diverged.
        DoesNotFit: the micro-batch does not fit.
    """
    _check(job.recipe, steps, micro_batch, micro_batches, every)
    place = choose_device(device)
    with Ranks.join(place.device) as ranks, backends_of(job.recipe, place.device):
        whole = micro_batch * micro_batches
        asked = job.but(global_batch=whole, batch_size=micro_batch).on(place.card)
        _, job = planned(asked)
        recipe, data = job.recipe, job.loader(rank=ranks.rank, world_size=ranks.world_size)
        _check_data(data, micro_batches, ranks)
        made = prepare_ingredients(job, place.device, ranks)
        total = max(steps, recipe.steps or recipe.epochs * len(data))
        training = MeasuredTraining(made, data, total, micro_batch, ranks=ranks)
        parameters = training.parameters
        blocks = () if isinstance(by_layer, bool) else by_layer
        groups = layer_groups(made.model, parameters, blocks) if by_layer else None
        record = _train(training, data, steps, every, progress)
    notes = (*made.notes, *_notes(training, record, micro_batch))
    measured = record.measured(groups, (micro_batch, whole), data, notes)
    return replace(measured, notes=(*notes, *_without_replacement(measured, data)))


@dataclass
class _Record:
    """What a training gave: squared norms at some of its steps."""

    numbers: list[int]
    norms: list[SquaredNorms]
    losses: list[float]
    left_out: int = 0

    def measured(
        self,
        groups: dict[str, list[int]] | None,
        batches: tuple[int, int],
        data: Loader,
        notes: tuple[str, ...],
    ) -> NoiseMeasurement:
        """Points over the training, and all of it."""
        if len(self.norms) < 3:
            raise UsageError(
                f"{len(self.norms)} steps were measured; at least 3 are needed.",
                hint="Take more steps, or measure every one.",
            )
        small = np.stack([each.small for each in self.norms])
        large = np.stack([each.large for each in self.norms])

        def point(part: NDArray[np.intp]) -> NoisePoint:
            def of(columns: list[int] | slice) -> NoiseScale:
                sums = [norms[part][:, columns].sum(axis=1) for norms in (small, large)]
                return noise_scale(sums[0], sums[1], *batches)

            step = self.numbers[part[len(part) // 2]]
            layers = None if groups is None else {name: of(own) for name, own in groups.items()}
            return NoisePoint(step, step / len(data), of(slice(None)), layers)

        everything = np.arange(len(self.norms))
        number = min(_MOST_POINTS, max(1, len(self.norms) // _PAIRS_OF_A_POINT))
        points = tuple(point(part) for part in np.array_split(everything, number))
        overall = points[0] if number == 1 else point(everything)
        return NoiseMeasurement(points, overall, len(self.losses), tuple(self.losses), notes)


def _train(
    training: MeasuredTraining, data: Loader, steps: int, every: int, progress: Tell
) -> _Record:
    record = _Record([], [], [])
    batches = (batch for epoch in count() for batch in data.batches(epoch))
    while training.step < steps:
        batch = next(batches)
        if training.step % every:
            result, norms = training.take_step(batch), None
        else:
            result, norms = training.measure_step(batch)
            record.left_out += norms is None
        if result is None:
            continue
        record.losses.append(result.loss)
        if norms is not None:
            record.numbers.append(result.step)
            record.norms.append(norms)
        progress(training.step, steps)
    return record


def _notes(training: MeasuredTraining, record: _Record, micro_batch: int) -> list[str]:
    notes = []
    if layers := batch_dependent_layers(training.ingredients.model):
        more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
        notes.append(
            f"{layers[0]}{more}: BatchNorm takes its statistics from the micro-batch "
            f"({micro_batch}), so the gradients are those of a training with that micro-batch."
        )
    if record.left_out:
        notes.append(
            f"Steps that were taken and not measured: {record.left_out}. Their batch was not whole "
            "(the last of an epoch), or a gradient was not finite."
        )
    return notes


def _without_replacement(measured: NoiseMeasurement, data: Loader) -> list[str]:
    """Whether what is missing of ``|G|²`` after the first epoch matters."""
    noise, images = measured.overall.noise, len(data.split)
    missing = noise.trace / images
    if measured.steps <= len(data) or missing < 0.1 * noise.grad_norm_squared:
        return []
    return [
        f"After the first epoch no image is new: with {images:,} images |G|² comes out too small "
        f"by about tr Σ / {images:,} = {missing:.3g}, and B_simple too large. Fewer steps, or more "
        "images, avoid it."
    ]


def _check(recipe: Recipe, steps: int, micro_batch: int, micro_batches: int, every: int) -> None:
    for name, value, least in (
        ("steps", steps, 3), ("micro-batch", micro_batch, 1),
        ("micro-batches", micro_batches, 2), ("every", every, 1),
    ):  # fmt: skip
        if not isinstance(value, int) or value < least:
            raise UsageError(f"--{name} is {value}; it must be {least} or more.")
    if -(-steps // every) < 3:
        raise UsageError(
            f"Every {every} of {steps} steps measures {-(-steps // every)}; at least 3 are needed."
        )
    if recipe.shard:
        raise UsageError("The noise of a sharded model is not measured.", hint="Leave out --shard.")


def _check_data(data: Loader, micro_batches: int, ranks: Ranks) -> None:
    if data.batch_size > len(data.split):
        raise UsageError(
            f"{micro_batches} micro-batches are {data.batch_size:,} samples; the data has "
            f"{len(data.split):,}.",
            hint="Fewer or smaller micro-batches.",
        )
    if micro_batches % ranks.world_size:
        raise UsageError(
            f"{micro_batches} micro-batches cannot be shared by {ranks.world_size} ranks.",
            hint=f"Give a multiple of {ranks.world_size}.",
        )
