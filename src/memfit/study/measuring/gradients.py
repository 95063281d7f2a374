"""Gradients of micro-batches and of their mean, taken from real training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memfit.data.loading.batch import Batch
from memfit.data.loading.loader import Loader
from memfit.errors import UnknownName, UsageError
from memfit.step.ingredients import Ingredients
from memfit.step.job import Job
from memfit.torch_inside import AnyDropout
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.recovery.transaction import batch_dependent_layers, even_slices
from memfit.trainer.run.planned import planned
from memfit.trainer.step.backends import backends_of
from memfit.trainer.step.devices import choose_device
from memfit.trainer.step.ingredients import prepare_ingredients
from memfit.trainer.step.training import StepResult, Training, in_evaluation

__all__ = [
    "AccumulationDifference",
    "MeasuredTraining",
    "SquaredNorms",
    "accumulation_difference",
    "layer_groups",
]


@dataclass(frozen=True, slots=True)
class SquaredNorms:
    """Of the gradients of one optimizer step, by parameter.

    Args:
        small: mean over the micro-batches, ``(parameters,)`` float64.
        large: of the mean gradient, ``(parameters,)`` float64.
    """

    small: NDArray[np.float64]
    large: NDArray[np.float64]


class MeasuredTraining(Training):
    """Training that looks at its gradients on the way, and changes nothing.

    A hook on each parameter sees what the backward of one micro-batch adds to the gradient. What
    is there before clipping and the optimizer's step is the gradient of the whole batch, over all
    ranks.

    Args:
        ingredients: model, optimizer, loss.
        loader: whose global batch is ``micro_batch * micro_batches``.
        total_steps: of the whole run, for the schedule.
        micro_batch: samples in each backward.
        ranks: each takes its share of the micro-batches.
    """

    def __init__(
        self, ingredients: Ingredients, loader: Loader, total_steps: int, micro_batch: int,
        *, ranks: Ranks,
    ) -> None:  # fmt: skip
        super().__init__(ingredients, loader, total_steps, [micro_batch], ranks=ranks)
        self._micro_batches = loader.batch_size // micro_batch
        self._is_measuring = False
        self._norms: list[list[Tensor]] = [[] for _ in self._trainable]
        self._large: NDArray[np.float64] | None = None
        for number, parameter in enumerate(self._trainable):
            parameter.register_hook(partial(self._note_gradient, number))

    @property
    def parameters(self) -> Sequence[Tensor]:
        """That train, in the order of :class:`SquaredNorms`."""
        return self._trainable

    def measure_step(self, batch: Batch) -> tuple[StepResult | None, SquaredNorms | None]:
        """Take a step and tell the squared norms of its gradients.

        Returns:
            The step, and None for the norms where the batch was not a whole one or a gradient was
            not finite.

        Raises:
            MemfitError: as :meth:`~memfit.trainer.step.training.Training.take_step`.
        """
        self._look()
        try:
            result = self.take_step(batch)
        finally:
            self._is_measuring = False
        if result is None or result.samples != self.loader.batch_size or self._large is None:
            return result, None
        made, scale = self.ingredients, self._scale
        own = [
            torch.stack(norms).double().square().sum() if norms else None for norms in self._norms
        ]
        total = np.array(self.ranks.totals(_floats(own), made.device))
        # each micro-batch's loss was weighted by its share, 1 / k: k² / k of the sum is the mean
        found = SquaredNorms(total * self._micro_batches / scale**2, self._large / scale**2)
        is_finite = bool(np.isfinite(found.small).all() and np.isfinite(found.large).all())
        return result, found if is_finite else None

    def _look(self) -> None:
        self._is_measuring, self._large = True, None
        self._norms = [[] for _ in self._trainable]

    def _note_gradient(self, number: int, gradient: Tensor) -> None:
        if self._is_measuring:
            self._norms[number].append(_norm(gradient))

    def _update_together(self) -> None:
        if self._is_measuring:
            self._scale = float(self.ingredients.scaler.get_scale())
            gradients = [parameter.grad for parameter in self._trainable]
            norms = _floats([None if g is None else _norm(g) for g in gradients])
            self._large = np.array(norms) ** 2
        super()._update_together()

    _scale = 1.0


def _norm(gradient: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(gradient.detach(), dtype=torch.float32)
    return norm


def _floats(numbers: Sequence[Tensor | None]) -> list[float]:
    """Scalars on the host, in one transfer; None is zero."""
    there = [number for number in numbers if number is not None]
    values = iter(torch.stack(there).tolist() if there else [])
    return [0.0 if number is None else next(values) for number in numbers]


def layer_groups(
    model: nn.Module, parameters: Sequence[Tensor], blocks: Sequence[str] = ()
) -> dict[str, list[int]]:
    """Which parameters belong together.

    Args:
        model: whose modules name the groups.
        parameters: of the model; their numbers are what is returned.
        blocks: paths of modules that make a group each; the model's top-level modules when empty,
            or those of its only one.

    Returns:
        Numbers of parameters by path, in the model's order; parameters of no block under
        ``"other"``.

    Raises:
        UnknownName: there is no such module with parameters of these.
    """
    numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
    names = {
        name: numbers[id(p)] for name, p in model.named_parameters() if id(p) in numbers
    }  # fmt: skip
    groups = _by_prefix(names, blocks) if blocks else _by_top_level(names)
    for block in blocks:
        if block not in groups:
            known = {name.rpartition(".")[0] for name in names}
            raise UnknownName("module with parameters that train", block, known)
    return groups


def _by_top_level(names: Mapping[str, int]) -> dict[str, list[int]]:
    depth = 1
    while True:
        groups: dict[str, list[int]] = {}
        for name, number in names.items():
            module = name.rpartition(".")[0]
            path = ".".join(module.split(".")[:depth]) if module else name
            groups.setdefault(path, []).append(number)
        if len(groups) > 1 or depth >= max(name.count(".") for name in names):
            return groups
        depth += 1


def _by_prefix(names: Mapping[str, int], blocks: Sequence[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for name, number in names.items():
        inside = [b for b in blocks if name == b or name.startswith(f"{b}.")]
        groups.setdefault(max(inside, key=len, default="other"), []).append(number)
    return groups


# -- one large batch against accumulation ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AccumulationDifference:
    """How far the gradient of accumulated micro-batches is from that of one large batch.

    Args:
        relative: norm of the difference over the norm of the large batch's gradient.
        global_batch: samples.
        micro_batch: samples in each part.
        batch_dependent: paths of the layers that see the micro-batch instead of the batch.
    """

    relative: float
    global_batch: int
    micro_batch: int
    batch_dependent: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def accumulation_difference(
    job: Job, *, global_batch: int, micro_batch: int, device: str = "auto"
) -> AccumulationDifference:
    """Compare both gradients of a job's first batch, at its starting weights.

    Without batch-dependent layers only rounding is left. Dropout layers are off in both, since
    their masks would differ.

    Args:
        job: names data.
        global_batch: samples of the one large batch.
        micro_batch: samples of each part at most; the parts are as even as can be.
        device: where, as ``memfit train``.

    Raises:
        UsageError: a size is impossible.
    """
    if not 1 <= micro_batch <= global_batch:
        raise UsageError(
            f"A micro-batch of {micro_batch} is no part of a batch of {global_batch}."
        )  # fmt: skip
    place = choose_device(device)
    asked = job.but(global_batch=global_batch, batch_size=None, compile=False).on(place.card)
    _, job = planned(asked)
    data = job.loader()
    made = prepare_ingredients(job, place.device)
    batch = next(iter(data.batches(0)))
    with backends_of(job.recipe, place.device), _without_dropout(made.model):
        whole = _gradient(made, data, batch, [slice(0, len(batch))])
        parts = _gradient(made, data, batch, even_slices(len(batch), micro_batch))
    norm = float(torch.linalg.vector_norm(whole))
    relative = float(torch.linalg.vector_norm(parts - whole)) / norm if norm else 0.0
    layers = tuple(batch_dependent_layers(made.model))
    return AccumulationDifference(relative, len(batch), min(micro_batch, len(batch)), layers)


def _gradient(made: Ingredients, data: Loader, batch: Batch, parts: Sequence[slice]) -> Tensor:
    """Of the mean loss, all parameters in one row, float64."""
    trainable = made.trainable
    for parameter in trainable:
        parameter.grad = None
    for part in parts:
        samples = batch[part]
        loss = made.forward_and_loss(*data.prepare(samples, made.device))[0]
        (loss * (len(samples) / len(batch))).backward()
    return torch.cat([p.grad.double().flatten() for p in trainable if p.grad is not None])


def _without_dropout(model: nn.Module) -> AbstractContextManager[None]:
    return in_evaluation([m for m in model.modules() if isinstance(m, AnyDropout) and m.training])
