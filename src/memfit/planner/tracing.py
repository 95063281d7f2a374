"""A training loop on the virtual GPU: with the lifetimes that its variables really have."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
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
from memfit.planner.assumptions import Assumption, defaults_of
from memfit.planner.result import BatchWords
from memfit.recipe.precision import weights_dtype
from memfit.step.batch import BatchSpec, check_width, loaded_batch
from memfit.step.failures import explain
from memfit.step.ingredients import Forward, autocast_of, combine, forward_of, loss_of
from memfit.step.inputs import inputs_of, said_targets
from memfit.step.job import Job
from memfit.step.loop import (
    Loop,
    check_own_steps,
    forward_passes,
    no_collection,
    own_steps,
    training_loop,
)
from memfit.step.losses import Loss, Term
from memfit.step.outputs import logits_of
from memfit.step.prepare import prepare_model
from memfit.step.targets import gets_target, target_parameter, token_targets
from memfit.step.tensors import Arguments, TensorSpec, call_model
from memfit.step.usual import Known, usual_loss

__all__ = ["DEFAULT_CARD", "TRACED_BATCHES", "TrainingStep"]

#: The card whose rules hold when no card is named: the most common architecture.
DEFAULT_CARD = "rtx-3060"

#: The two micro-batches that are traced; every other one is arithmetic.
TRACED_BATCHES = (4, 8)

#: Samples of the forward that shows what a model returns: a number that few sizes have.
_SEEN_BATCH = 5

_META = torch.device("meta")

#: What is not modelled, as keys of :mod:`memfit.planner.assumptions`.
_KEYS = {
    "torch.compile": "compile", "cudnn.benchmark": "benchmark", "DataParallel": "data_parallel",
    "DistributedDataParallel": "ddp", "apex.amp": "apex",
}  # fmt: skip

_Seen = TypeVar("_Seen")


class TrainingStep:
    """The training step of a job, ready to be traced at any micro-batch.

    Args:
        job: what decides memory; its model is built on the meta device, its card is played.
        like: a step of the same model, whose targets hold here too.
        loop: whose steps are planned: the one of every tutorial, or the trainer's.
        watch: told of every trace that begins: its micro-batch, and the recorder at work.
        validates: a validation pass follows the steps, wherever there is one.

    Attributes:
        recipe: of the job.
        gpu: the card that is played.
        name: of the model.
        is_tokens: the model reads token numbers.
        batch: what a forward and its loss are given.
        validation: the same for the validation pass that follows the steps; None where none does.
        loss: ``(output, target) -> scalar``; None where a step of the user's own has it.
        traced_batches: from which all others follow.

    Raises:
        ModelError: the model cannot be built.
        StepError: the model does not run on the input.
    """

    def __init__(
        self,
        job: Job,
        *,
        like: TrainingStep | None = None,
        loop: Loop = training_loop,
        watch: Callable[[int, Recorder], None] | None = None,
        validates: bool = False,
    ) -> None:
        self.job, self.gpu = job, job.card or find_gpu(DEFAULT_CARD)
        recipe = self.recipe = job.recipe
        check_own_steps(job)
        shape, classes = recipe.input_shape, recipe.num_classes
        built = build(job.model, input_shape=shape, num_classes=classes)
        if built.task == "detection":
            raise UsageError(
                f"{built.name} takes lists of images and boxes, whose values decide sizes.",
                hint="memfit plan MODEL --boxes 8 lets PyTorch itself run it; memfit run takes "
                "your own script.",
            )
        if recipe.boxes is not None:
            raise UsageError(f"{built.name} takes no boxes; leave them out.")
        self.name, self.model = built.name, built.module
        self.unsupported: dict[str, str] = {}
        self.unknown_temporaries: set[str] = set()
        self.loop = loop
        self.traced_batches = TRACED_BATCHES
        self._watch = watch
        self._is_users = built.kind == "unknown"
        self.is_tokens = recipe.input_ids is not None or built.kind == "token"
        self.checkpointed_blocks = prepare_model(self.model, recipe)
        self._wrappers = built.wrappers
        self.unused: tuple[str, ...] = ()
        self.loss = loss_of(job)
        self.batch = self._batch_spec(built, like)
        self.validation = self._validation() if validates else None

    @property
    def samples(self) -> int | None:
        """Of the data that the recipe names; None where it names none."""
        return None if self.job.source is None else len(self.job.source.dataset.train)

    # -- preparation ---------------------------------------------------------------------------

    def _batch_spec(self, built: BuiltModel, like: TrainingStep | None) -> BatchSpec:
        recipe = self.recipe
        is_last = recipe.memory_format == "nhwc"
        if self.job.source is not None:
            shape = recipe.input_shape or built.default_input_shape
            return self._loaded_batch(self.job.but(input_shape=shape))
        if like is not None and like._floats is self._floats:
            self.loss, self.unused = like.loss, like.unused
            return replace(like.batch, channels_last=is_last)
        spec = BatchSpec(
            inputs_of(recipe, built),
            said_targets(recipe),
            compares_input="input" in recipe.target,
            channels_last=is_last,
        )
        if recipe.mode == "inference":
            return replace(spec, targets=(), compares_input=False)
        if recipe.step is not None:
            is_said = spec.targets or spec.compares_input
            return spec if is_said else replace(spec, targets=(TensorSpec((), torch.int64),))
        return self._seen(spec.inputs, lambda output: self._with_loss(spec, built, output))

    @property
    def _floats(self) -> torch.dtype:
        return weights_dtype(self.recipe.precision)

    def _with_loss(self, spec: BatchSpec, built: BuiltModel, output: Any) -> BatchSpec:
        """The batch with the targets that the loss wants of what the model was seen to return."""
        recipe, inputs = self.recipe, tuple(spec.inputs.of(TensorSpec))
        is_said = bool(spec.targets) or spec.compares_input
        name = None if self.loss is not None else target_parameter(self.model, output)
        given = spec.targets or token_targets(spec.inputs, output)
        if name is not None and given:
            self.loss = Loss((Term("none"),))
            return replace(spec, targets=given, target_name=name)
        if self.loss is None:
            classes = recipe.num_classes
            is_listed = built.task != "unknown" and classes != 1
            known = Known(inputs, classes, is_listed, gets_target(self.model, spec.inputs))
            smoothing = recipe.label_smoothing
            self.loss = usual_loss(output, _SEEN_BATCH, known, label_smoothing=smoothing)
        if not isinstance(self.loss, Loss):  # the user's own, of class numbers if not said
            return spec if is_said else replace(spec, targets=(TensorSpec((), torch.int64),))
        self.unused = self.loss.unused(output, _SEEN_BATCH)
        if is_said:
            return spec
        targets = self.loss.targets_of(output, _SEEN_BATCH, self._floats)
        if name is not None:
            self.loss = Loss((Term("none"),))
        is_of_values = len(targets) == 1 and targets[0].dtype.is_floating_point
        is_input = is_of_values and targets[0] in inputs
        return replace(
            spec,
            targets=() if is_input else targets,
            target_name=name,
            compares_input=is_input,
        )

    def _loaded_batch(self, job: Job) -> BatchSpec:
        """The loader's batch; shares of classes are as many as the model has outputs."""
        self.batch = loaded_batch(made := job.loader())
        if made.target.is_float and isinstance(self.loss, Loss):
            self._seen(self.batch.inputs, partial(check_width, made.target))
        if made.augmentation.mixes and (self.output_classes() or 0) > len(made.classes):
            return loaded_batch(job.but(num_classes=self.output_classes()).loader())
        return self.batch

    def _validation(self) -> BatchSpec | None:
        """The batch of the pass between epochs: where data has a split for it, or it is asked."""
        job, recipe = self.job, self.recipe
        if isinstance(job.own.step, type):
            return None  # whose steps end where they want
        data = None if job.source is None else job.source.dataset
        split = None if data is None else data.answered("val") or data.answered("test")
        if recipe.mode == "train" and split is not None:
            shape = next(self.batch.inputs.of(TensorSpec)).shape
            return loaded_batch(job.but(input_shape=shape).loader(split.name))
        is_asked = recipe.mode == "train" and recipe.eval_batch_size is not None
        return self.batch if is_asked else None

    def _seen(self, inputs: Arguments, see: Callable[[Any], _Seen]) -> _Seen:
        """Run forward once, unrecorded, to see what the model returns."""
        gpu = VirtualGPU(self.gpu, attention=self.recipe.attention, makes_up=False)
        with gpu, torch.no_grad(), self._named_errors(gpu):
            gpu.adopt(self.model)
            batch = inputs.map(TensorSpec, lambda spec: spec.make(_SEEN_BATCH, _META))
            with autocast_of(self.recipe, "cuda"):
                return see(call_model(self.model, batch))

    @property
    def parameter_count(self) -> int:
        """Parameters of the model."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample; of tokens, their number; of several inputs the first's."""
        return self.first_input.shape

    @property
    def first_input(self) -> TensorSpec:
        """Of what the forward is called with, the first tensor."""
        spec: TensorSpec = next(self.batch.inputs.of(TensorSpec))
        return spec

    def assumptions(self) -> Iterator[Assumption]:
        """What a trace of it takes for granted."""
        recipe = self.recipe
        if self._is_users and (defaults := defaults_of(self.job)):
            yield Assumption("defaults", {"defaults": ", ".join(defaults)})
        yield Assumption("second_step" if recipe.mode == "train" else "second_pass")
        if self.validation is not None:
            yield Assumption("validation", {"batch": _words(recipe.eval_batch_size)})
        if not recipe.cudnn_benchmark:
            yield Assumption("cudnn_heuristics")
        if self.is_tokens:
            yield Assumption("full_sequences")
        yield from self._loss_assumptions()
        if self.checkpointed_blocks:
            yield Assumption("checkpointed", {"blocks": str(self.checkpointed_blocks)})

    def not_modelled(self) -> Iterator[Assumption]:
        """What really happens and no trace shows."""
        recipe, asked = self.recipe, dict.fromkeys(self._wrappers)
        if recipe.compile:
            asked["torch.compile"] = None
        if recipe.cudnn_benchmark:
            asked["cudnn.benchmark"] = None
        if recipe.deterministic:
            asked["deterministic"] = None
        for name in asked:
            yield Assumption(f"without_{_KEYS.get(name, name)}")

    @property
    def batch_words(self) -> BatchWords:
        """What forward and loss are given."""
        targets = tuple(map(str, self.batch.targets))
        if self.batch.compares_input and self.batch.target_name is None:
            targets = ("the input itself",)
        return BatchWords(tuple(self.batch.inputs.words()), targets, self._loss_name)

    @property
    def _loss_name(self) -> str:
        if self.recipe.mode == "inference":
            return "none"
        if self.recipe.step is not None:
            return "your own step"
        if self.loss is None:  # of data, whose labels are classes
            return "cross-entropy"
        return str(self.loss) if isinstance(self.loss, Loss) else "your own"

    def _loss_assumptions(self) -> Iterator[Assumption]:
        if self.recipe.mode == "inference":
            return
        words = self.batch_words
        values = {"loss": words.loss, "target": " and ".join(words.targets) or "nothing"}
        key = "said_loss" if self.job.asked.loss is not None else "usual_loss"
        if words.loss.startswith("your own"):
            key = "own_loss" if self.recipe.step is None else "own_step"
            del values["loss"]
        elif isinstance(self.loss, Loss) and self.loss.is_models_own:
            key, values = "models_loss", {}
        yield Assumption(key, values)
        if self.unused:
            yield Assumption("unused_outputs", {"outputs": ", ".join(self.unused)})

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
        """The tape of some optimizer steps at a micro-batch, or of as many forward passes.

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
                evaluation = self._run(gpu, micro_batch, steps)
                tape = replace(gpu.tape, evaluation=evaluation)
        finally:
            self.model.zero_grad(set_to_none=True)
        self.unsupported |= gpu.unsupported
        self.unknown_temporaries |= gpu.unknown_temporaries
        return tape

    def _run(self, gpu: VirtualGPU, micro_batch: int, steps: int) -> int | None:
        """Run; returns the number of events before the validation pass, where there is one."""
        if self.recipe.mode != "train":
            forward = forward_of(self.job, self.model, _META, "cuda", loss=self.loss)
            self._pass(gpu, forward, self.batch, micro_batch, steps)
            return None
        if isinstance(self.job.own.step, type):
            forward = forward_of(self.job, self.model, _META, "cuda")
            for _ in own_steps(forward, self.batch, gpu.recorder, micro_batch, steps):
                pass
            return None
        scaler = GradScaler("meta", enabled=self.recipe.precision == "amp-fp16")
        made = combine(self.job, self.model, scaler, _META, "cuda", loss=self.loss)
        for _ in self.loop(made, self.batch.anew(), gpu.recorder, micro_batch, steps):
            pass
        if self.validation is None:
            return None
        begin = len(gpu.recorder.ledger.events)
        self._pass(gpu, made, self.validation, self.recipe.eval_batch_size or micro_batch, steps)
        return begin

    @staticmethod
    def _pass(gpu: VirtualGPU, made: Forward, batch: BatchSpec, size: int, passes: int) -> None:
        for _ in forward_passes(made, batch.anew(), gpu.recorder, size, passes):
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


def _words(eval_batch_size: int | None) -> str:
    return "the micro-batch" if eval_batch_size is None else str(eval_batch_size)
