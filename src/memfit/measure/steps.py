"""The measured process: real training steps, with the loop that a plan traces."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memfit.measure.device import Device, MeasuredScaler
from memfit.measure.history import workspaces_of
from memfit.measure.sequence import pack_tape
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import replay
from memfit.memory.recording.follower import Follower
from memfit.models import BuiltModel, build_for_training
from memfit.planner.tracing import TrainingStep
from memfit.step.batch import BatchSpec
from memfit.step.ingredients import combine, forward_of
from memfit.step.job import Job
from memfit.step.loop import Watcher, forward_passes, no_collection, training_loop
from memfit.step.prepare import prepare_model
from memfit.step.tensors import TensorSpec
from memfit.trainer.step.backends import backends_of
from memfit.trainer.step.devices import MemoryPeaks

__all__ = ["RECORDED_STEPS", "Subject", "measure_plain", "measure_recorded"]

_UNTIMED_STEPS = 2
#: As many as a plan traces.
RECORDED_STEPS = 2


@dataclass
class Subject:
    """What is trained, before it is on the device.

    Args:
        job: what decides memory.
        model: with real weights, prepared, on the CPU.
        batch: what the loader hands over.
        vocabulary: tokens lie below it.
        loss: as the plan has it.
    """

    job: Job
    model: nn.Module
    batch: BatchSpec
    vocabulary: int
    loss: Any

    @classmethod
    def of(cls, job: Job) -> Subject:
        """Build the model twice: its shapes say what the batch is, its weights are trained.

        Raises:
            MemfitError: the job cannot be trained.
        """
        step, recipe = TrainingStep(job), job.recipe
        built = build_for_training(
            job.model,
            input_shape=recipe.input_shape,
            num_classes=recipe.num_classes,
            seed=recipe.seed,
        )
        prepare_model(built.module, recipe)
        return cls(job, built.module, step.batch, _vocabulary(built), step.loss)


def _vocabulary(built: BuiltModel) -> int:
    """Token numbers must be ones that the first embedding has."""
    if built.vocab_size is not None:
        return built.vocab_size
    embeddings = (m for m in built.module.modules() if isinstance(m, nn.Embedding))
    return next((embedding.num_embeddings for embedding in embeddings), 1)


def measure_plain(subject: Subject, device: Device, micro_batch: int, steps: int) -> dict[str, Any]:
    """Peaks, memory of the whole GPU and the time of a step, as a user's process has them.

    The first step makes the optimizer's state, the second is the first with it; times are of the
    rest.

    Args:
        subject: what is trained.
        device: where.
        micro_batch: samples of one forward and backward.
        steps: how many.

    Returns:
        Fields of :class:`memfit.measure.records.Measurement`.
    """
    device.start()
    bare = device.use()
    watcher, batches = device.watcher(), _HostBatches(subject, micro_batch)
    peaks: list[MemoryPeaks] = []
    with device.running(), no_collection(), _backends(subject, device):
        device.move(subject.model)
        device.tick()
        for _ in _loop(subject, device, batches, watcher, steps):
            device.tick()
            peaks.append(device.peaks)
            device.reset_peaks()
            at_end = device.peaks.reserved_bytes
        use = device.use()
        seconds = device.seconds()[_UNTIMED_STEPS:]
    most_reserved = max(p.reserved_bytes for p in peaks)
    own = None if use is None else use.own_bytes
    context = None if own is None else own - at_end
    return {
        "peak_allocated_bytes": max(p.allocated_bytes for p in peaks),
        "peak_reserved_bytes": most_reserved,
        "steady_allocated_bytes": peaks[-1].allocated_bytes,
        "steady_reserved_bytes": peaks[-1].reserved_bytes,
        "bare_context_bytes": None if bare is None else bare.own_bytes,
        "context_bytes": context,
        "gpu_used_bytes": None if context is None else context + most_reserved,
        "gpu_idle_bytes": None if use is None or use.before is None else use.before.used_bytes,
        "others": [] if use is None else list(use.others),
        "step_seconds": statistics.median(seconds) if seconds else None,
        "retries": device.retries,
        "versions": device.versions(),
    }


def measure_recorded(subject: Subject, device: Device, micro_batch: int) -> dict[str, Any]:
    """What the peak is made of, by part, and the sequence of the allocator.

    Args:
        subject: what is trained.
        device: where.
        micro_batch: samples of one forward and backward.

    Returns:
        Fields of :class:`memfit.measure.records.Measurement`, and ``sequence``.
    """
    device.start()
    recorder = device.recorder()
    follower = Follower(recorder)
    with device.running(), no_collection(), _backends(subject, device):
        device.move(subject.model)
        batches = _HostBatches(subject, micro_batch)
        follower.adopt(subject.model)
        with follower.hooks(), recorder:
            for _ in _loop(subject, device, batches, recorder, RECORDED_STEPS):
                pass
        follower.tag_gradients()
        tape = device.tape(recorder)
    timeline = replay(tape, settings=AllocatorSettings.parse(subject.job.recipe.allocator))
    peak = timeline.peak
    return {
        "parts": {str(part): size for part, size in peak.parts.items()},
        "recorded_allocated_bytes": peak.allocated_bytes,
        "replayed_reserved_bytes": timeline.peak_reserved_bytes,
        "workspaces": [asdict(workspace) for workspace in workspaces_of(tape)],
        "sequence": pack_tape(tape),
    }


def _backends(subject: Subject, device: Device) -> AbstractContextManager[None]:
    """The recipe's switches; the allocator's options are in the environment since the start."""
    return backends_of(subject.job.recipe.but(allocator=""), device.device)


def _loop(
    subject: Subject, device: Device, batches: _HostBatches, watcher: Watcher, steps: int
) -> Iterator[None]:
    if subject.job.recipe.mode != "train":
        forward = forward_of(subject.job, subject.model, device.device, loss=subject.loss)
        return forward_passes(forward, batches, watcher, batches.micro_batch, steps)
    is_scaled = subject.job.recipe.precision == "amp-fp16"
    scaler = MeasuredScaler(device.device.type, enabled=is_scaled)
    made = combine(subject.job, subject.model, scaler, device.device, loss=subject.loss)
    return training_loop(made, batches, watcher, batches.micro_batch, steps)


class _HostBatches:
    """Values on the CPU that each step brings to the device, as a loader would.

    Pixels are uniform; tokens too, because the kernel of an embedding's gradient sorts them;
    labels are zero, because no kernel's memory depends on them.
    """

    def __init__(self, subject: Subject, micro_batch: int) -> None:
        spec = self._spec = subject.batch
        self.micro_batch = micro_batch
        generator = torch.Generator().manual_seed(subject.job.recipe.seed)
        if spec.loader is not None:
            self._blank = spec.loader.blank(micro_batch, "cpu")
            for part in (self._blank, self._blank.neighbours):
                if part is not None:
                    part.labels.zero_()
            return

        def drawn(spec: TensorSpec) -> Tensor:
            shape = spec.whole(micro_batch)
            if spec.dtype.is_floating_point:
                return torch.rand(shape, generator=generator).to(spec.dtype)
            most = 2 if spec.dtype is torch.bool else subject.vocabulary
            return torch.randint(most, shape, generator=generator).to(spec.dtype)

        self._inputs = spec.inputs.map(TensorSpec, drawn)
        self._targets = [
            torch.zeros(target.whole(micro_batch), dtype=target.dtype) for target in spec.targets
        ]

    def make(self, _micro_batch: int, device: torch.device) -> tuple[Any, Any]:
        """Inputs and target on the device."""
        if self._spec.loader is not None:
            return self._spec.loader.prepare(self._blank, device)
        inputs = self._inputs.map(Tensor, lambda tensor: tensor.to(device, copy=True))
        inputs = self._spec.formatted(inputs)
        targets = tuple(target.to(device, copy=True) for target in self._targets)
        return self._spec.handed(inputs, targets)
