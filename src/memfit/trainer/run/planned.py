"""From a job to the one that is trained: planned, and every open question answered."""

from __future__ import annotations

from memfit.data.loading.loader import DEFAULT_BATCH
from memfit.errors import UsageError
from memfit.planner.plan import Plan
from memfit.planner.planning import plan_job
from memfit.step.job import Job
from memfit.trainer.step.traced import trained_loop

__all__ = ["planned"]


def planned(job: Job, *, world_size: int = 1) -> tuple[Plan, Job]:
    """Plan a job and fill in what its data and its model decide.

    Args:
        job: names data; its card has its free memory, None on the CPU.
        world_size: ranks that each have a whole model.

    Returns:
        The plan, and the job with shape, classes, normalisation and global batch set.

    Raises:
        DataError: the labels do not fit the classes.
        UsageError: the recipe's parts do not go together.
    """
    recipe = job.recipe
    if recipe.mode != "train":
        raise UsageError(f"Mode {recipe.mode} trains nothing.", hint="Leave out --mode.")
    job.data.check_labels(recipe.num_classes)
    # the plan is of one micro-batch; how many of them make the global batch is found later
    one = job.but(global_batch=None, accumulation=1)
    plan = plan_job(one, verify=False, loop=trained_loop(world_size))
    made = job.loader()
    whole = (recipe.batch_size or DEFAULT_BATCH) * recipe.accumulation
    return plan, job.but(
        input_shape=made.shape,
        mean=made.mean,
        std=made.std,
        num_classes=_classes(plan, recipe.num_classes),
        global_batch=recipe.global_batch or whole,
    )


def _classes(plan: Plan, classes: int | None) -> int | None:
    """Scores that the model gives: as many as there are classes, or more.

    Raises:
        UsageError: there are fewer.
    """
    width = plan.step.output_classes()
    if width is None or classes is None:
        return classes
    if width < classes:
        raise UsageError(
            f"{plan.model_name} gives {width} scores, the data has {classes} classes.",
            hint="Let the model take num_classes, or give its last layer as many outputs.",
        )
    return width
