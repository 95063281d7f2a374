"""The trainer's own steps on the virtual GPU: what a run adds to the usual loop is planned, too.

Beside model, gradients and optimizer state a run keeps a shadow of each buffer, to undo a step;
several ranks keep their gradients in buckets, and buffers flat to send them. The optimizer's state
is there before the first step, and neither batch nor output outlive their micro-batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from memfit.memory.recording.recorder import Recorder
from memfit.step.batch import BatchSpec
from memfit.step.ingredients import Ingredients
from memfit.step.loop import Loop
from memfit.trainer.ranks.ranks import PlannedRanks, Ranks
from memfit.trainer.recovery.before_step import RandomState
from memfit.trainer.step.training import Training

__all__ = ["trained_loop"]


def trained_loop(world_size: int = 1) -> Loop:
    """The loop of a run, for its plan.

    Args:
        world_size: ranks that each have a whole model.
    """
    ranks = PlannedRanks(world_size) if world_size > 1 else Ranks()

    def steps_of(
        made: Ingredients, spec: BatchSpec, recorder: Recorder, micro_batch: int, steps: int
    ) -> Iterator[None]:
        assert spec.loader is not None, "a run has data"
        loader = copy.copy(spec.loader)
        loader.host = recorder.host
        random = RandomState(())
        training = Training(made, loader, steps, [micro_batch], ranks=ranks)
        training.tell(recorder)
        # a third micro-batch is like the second
        samples = min(made.recipe.accumulation, 2) * micro_batch
        batch = loader.blank(samples, made.device)
        try:
            for _ in range(steps):
                training.take_step(batch)
                yield
        finally:
            random.restore()

    return steps_of
