"""The micro-batches of a run: by its plan, on all ranks the same, smaller after a failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from memfit.data.loading.loader import Loader
from memfit.errors import CannotRedo, DoesNotFit, MemfitError
from memfit.planner.plan import Plan
from memfit.step.ingredients import Ingredients
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.ranks.shard import plan_of_shards
from memfit.trainer.run.run_folder import RunFolder
from memfit.trainer.step.devices import RunDevice
from memfit.trainer.step.micro_batches import sizes_that_fit

__all__ = ["micro_batches_of", "smaller_next_time"]

#: In the run's folder: what the next start of a sharded run takes at most.
_WORD: Literal["micro_batch.json"] = "micro_batch.json"


def micro_batches_of(
    plan: Plan,
    ingredients: Ingredients,
    loader: Loader,
    *,
    folder: RunFolder,
    place: RunDevice,
    ranks: Ranks,
) -> tuple[Plan, list[int]]:
    """Sizes to train with, largest first, and the plan that holds for them.

    Args:
        plan: of the recipe.
        ingredients: what trains; the plan of a sharded model is that of one rank's shards.
        loader: of the training data.
        folder: may hold word of an earlier start.
        place: where the run computes.
        ranks: all take the same sizes.
    """
    share = -(-min(loader.batch_size, len(loader.split)) // ranks.world_size)
    planned = plan
    if ingredients.is_sharded and plan.gpu is not None:
        planned = plan_of_shards(plan, ingredients.model, ranks.world_size)
    sizes = sizes_that_fit(planned, share, place.memory_bytes)
    if sizes[0] < share:  # gradients then stay through the next forward
        plan = plan.accumulating()
        sizes = sizes_that_fit(plan, share, place.memory_bytes)
    largest = min(ranks.gather(sizes[0]))
    if ingredients.is_sharded and (folder.path / _WORD).exists():
        word = folder.read_json(_WORD)
        if word["world_size"] == ranks.world_size:
            largest = min(largest, word["largest"])
    return plan, ranks.from_first([size for size in sizes if size <= largest] or [largest])


def smaller_next_time(
    error: CannotRedo, *, folder: RunFolder, sizes: Sequence[int], ranks: Ranks
) -> MemfitError:
    """Leave word for the next start of a sharded run: whoever failed writes it."""
    smaller = next((size for size in sizes if size < error.size), None)
    if smaller is None:
        return DoesNotFit(f"Memory ran out in {error.where}, with a micro-batch of 1.")
    folder.write_json(_WORD, {"largest": smaller, "world_size": ranks.world_size})
    hint = f"Go on with --resume {folder.path}; torchrun --max-restarts 10 does it by itself."
    return CannotRedo(error.where, error.size, smaller, hint)
