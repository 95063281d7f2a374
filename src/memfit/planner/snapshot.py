"""A plan as a memory snapshot, as if its step had run on a GPU."""

from __future__ import annotations

from memfit.memory.snapshot.writer import snapshot_bytes
from memfit.planner.plan import Plan

__all__ = ["plan_snapshot"]


def plan_snapshot(
    plan: Plan, batch_size: int | None = None, *, capacity_bytes: int | None = None
) -> bytes:
    """The snapshot file of a plan at a micro-batch, for PyTorch's viewer and ``memfit explain``.

    Args:
        plan: of any recipe.
        batch_size: the micro-batch; the plan's own when None.
        capacity_bytes: what the device can give; without it nothing runs out.
    """
    batch = plan.at(batch_size).batch_size
    tape, sizes = plan.tape_at(batch)
    shapes = None
    affine = plan.tapes.affine
    if affine is not None and tape is affine.tape:
        shapes = [line.at(batch) for line in affine.shapes]
    elif tape.sizes_bytes == sizes:
        shapes = [list(allocation.shape) for allocation in tape.allocations]
    return snapshot_bytes(tape, sizes, plan.settings, capacity_bytes=capacity_bytes, shapes=shapes)
