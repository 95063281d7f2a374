"""A training loop on the virtual GPU: with the lifetimes that its variables really have."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch.amp import GradScaler

from memfit.cards.catalogue import gpu as find_gpu
from memfit.errors import MemfitError, UsageError
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.recording.recorder import Recorder
from memfit.memory.recording.virtual_gpu import VirtualGPU
from memfit.memory.tape.tape import Tape
from memfit.models import BuiltModel, build
from memfit.planner.assumptions import Assumption
from memfit.recipe.fields import FIELDS
from memfit.recipe.precision import weights_dtype
from memfit.step.batch import (
    BatchSpec,
    TensorSpec,
    call_model,
    input_spec,
    loaded_batch,
    logits_of,
    target_of,
)
from memfit.step.failures import explain
from memfit.step.ingredients import autocast_of, combine
from memfit.step.job import Job
from memfit.step.loop import Loop, no_collection, training_loop
from memfit.step.prepare import prepare_model

__all__ = ["DEFAULT_CARD", "TRACED_BATCHES", "TrainingStep"]

#: The card whose rules hold when no card is named: the most common architecture.
DEFAULT_CARD = "rtx-3060"

#: The two micro-batches that are traced; every other one is arithmetic.
TRACED_BATCHES = (4, 8)

_META = torch.device("meta")

_Seen = TypeVar("_Seen")


class TrainingStep:
    """The training step of a job, ready to be traced at any micro-batch.

    Args:
        job: what decides memory; its model is built on the meta device, its card is played.
        target: the labels of one sample, where they are known; else the model is run once to see.
        loop: whose steps are planned: the one of every tutorial, or the trainer's.
        watch: told of every trace that begins: its micro-batch, and the recorder at work.

    Attributes:
        recipe: of the job.
        gpu: the card that is played.
        name: of the model.
        is_tokens: the model reads token numbers.
        traced_batches: from which all others follow.

    Raises:
        ModelError: the model cannot be built.
        StepError: the model does not run on the input.
    """

    def __init__(
        self,
        job: Job,
        target: TensorSpec | None = None,
        *,
        loop: Loop = training_loop,
        watch: Callable[[int, Recorder], None] | None = None,
    ) -> None:
        self.job, self.gpu = job, job.card or find_gpu(DEFAULT_CARD)
        recipe = self.recipe = job.recipe
        shape, classes = recipe.input_shape, recipe.num_classes
        built = build(job.model, input_shape=shape, num_classes=classes)
        self.name, self.model = built.name, built.module
        self.unsupported: dict[str, str] = {}
        self.unknown_temporaries: set[str] = set()
        self.loop = loop
        self.traced_batches = TRACED_BATCHES
        self._watch = watch
        self._is_users = built.kind == "unknown"
        self.is_tokens = recipe.input_ids is not None or built.kind == "token"
        self.checkpointed_blocks = prepare_model(self.model, recipe)
        self.batch = self._batch_spec(built, target)

    # -- preparation ---------------------------------------------------------------------------

    def _batch_spec(self, built: BuiltModel, target: TensorSpec | None) -> BatchSpec:
        recipe = self.recipe
        shape = recipe.input_shape or built.default_input_shape
        dtype = weights_dtype(recipe.precision)
        length = recipe.input_ids
        if self.is_tokens and length is None:
            if shape is None or len(shape) != 1:
                raise UsageError("This model reads tokens.", hint="Pass input_ids=LENGTH.")
            length = shape[0]
        inputs = input_spec(None if length else shape, length, dtype)
        if self.job.source is not None:
            return self._loaded_batch(self.job.but(input_shape=shape))
        spec = BatchSpec(
            inputs,
            target or TensorSpec((), torch.int64),
            is_tokens=self.is_tokens,
            channels_last=recipe.memory_format == "nhwc",
        )
        if target or recipe.loss is not None or recipe.step is not None:
            return spec
        return replace(spec, target=self._seen(inputs, target_of))

    def _loaded_batch(self, job: Job) -> BatchSpec:
        """The loader's batch; shares of classes are as many as the model has outputs."""
        self.batch = loaded_batch(made := job.loader())
        if made.augmentation.mixes and (self.output_classes() or 0) > len(made.classes):
            return loaded_batch(job.but(num_classes=self.output_classes()).loader())
        return self.batch

    def _seen(self, inputs: TensorSpec, see: Callable[[Any], _Seen]) -> _Seen:
        """Run forward once, unrecorded, to see what the model returns."""
        gpu = VirtualGPU(self.gpu, attention=self.recipe.attention, makes_up=False)
        with gpu, torch.no_grad(), self._named_errors(gpu):
            gpu.adopt(self.model)
            batch = inputs.make(2, _META)
            with autocast_of(self.recipe, "cuda"):
                return see(call_model(self.model, batch, is_tokens=self.is_tokens))

    @property
    def parameter_count(self) -> int:
        """Parameters of the model."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample; of tokens, their number."""
        return self.batch.inputs.shape

    def assumptions(self) -> Iterator[Assumption]:
        """What a trace of it takes for granted."""
        recipe = self.recipe
        if self._is_users and (defaults := _defaults_of(self.job)):
            yield Assumption("defaults", {"defaults": ", ".join(defaults)})
        yield Assumption("second_step")
        if not recipe.cudnn_benchmark:
            yield Assumption("cudnn_heuristics")
        if self.batch.is_tokens:
            yield Assumption("full_sequences")
        if recipe.loss is None and recipe.step is None:
            yield Assumption("cross_entropy")
        if self.checkpointed_blocks:
            yield Assumption("checkpointed", {"blocks": str(self.checkpointed_blocks)})

    def accumulating(self) -> TrainingStep:
        """The same step of the same model with two micro-batches; a third is like the second."""
        other = copy.copy(self)
        other.job = self.job.but(accumulation=2, global_batch=None)
        other.recipe = other.job.recipe
        return other

    def output_classes(self) -> int | None:
        """How many scores the model gives for a sample; None where it is not known.

        Raises:
            StepError: the model does not run on the input.
        """
        if self.recipe.loss is not None or self.recipe.step is not None:
            return None
        return self._seen(self.batch.inputs, lambda output: logits_of(output).shape[1])

    # -- the trace -----------------------------------------------------------------------------

    def trace(self, micro_batch: int, steps: int = 2) -> Tape:
        """The tape of some optimizer steps at a micro-batch.

        Raises:
            InputShapeError: a module does not accept what it is given.
            NotTraceable: a value that only a real run knows was asked for.
            StepError: the step raised.
        """
        recipe = self.recipe
        settings = AllocatorSettings.parse(recipe.allocator)
        gpu = VirtualGPU(
            self.gpu,
            attention=recipe.attention,
            cudnn_benchmark=recipe.cudnn_benchmark,
            settings=settings,
            makes_up=False,
        )
        try:
            if self._watch is not None:
                self._watch(micro_batch, gpu.recorder)
            with no_collection(), gpu, self._named_errors(gpu):
                gpu.adopt(self.model)
                self._run(gpu, micro_batch, steps)
                tape = gpu.tape
        finally:
            self.model.zero_grad(set_to_none=True)
        self.unsupported |= gpu.unsupported
        self.unknown_temporaries |= gpu.unknown_temporaries
        return tape

    def _run(self, gpu: VirtualGPU, micro_batch: int, steps: int) -> None:
        scaler = GradScaler("meta", enabled=self.recipe.precision == "amp-fp16")
        made = combine(self.job, self.model, scaler, _META, "cuda", is_tokens=self.is_tokens)
        for _ in self.loop(made, self.batch, gpu.recorder, micro_batch, steps):
            pass

    @contextmanager
    def _named_errors(self, gpu: VirtualGPU) -> Iterator[None]:
        """Say which module and operator an error of torch belongs to."""
        try:
            yield
        except MemfitError:
            raise
        except Exception as error:  # whatever the model's own code raises
            raise explain(error, gpu) from error


def _defaults_of(job: Job) -> list[str]:
    """What decides memory and neither a model's code nor its user said."""
    recipe, names = job.recipe, ("optimizer", "precision")
    own = job.own.given()
    found = [
        f"{name} {getattr(recipe, name)}"
        for name in names
        if name not in own and getattr(recipe, name) == FIELDS[name].default
    ]
    return [*found, "the largest batch"] if job.asked.batch_size is None else found
