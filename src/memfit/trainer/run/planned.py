"""From a job to the one that is trained: planned, and every open question answered."""

from __future__ import annotations

from memfit.data.loading.loader import DEFAULT_BATCH
from memfit.errors import UsageError
from memfit.planner.plan import Plan
from memfit.planner.planning import plan_job
from memfit.step.job import Job

__all__ = ["planned"]


def planned(job: Job, *, keeps_gradients: bool = False) -> tuple[Plan, Job]:
    """Plan a job and fill in what its data and its model decide.

    Args:
        job: names data; its card has its free memory, None on the CPU.
        keeps_gradients: they stay in buckets from step to step, as on several ranks.

    Returns:
        The plan, and the job with shape, classes, normalisation and global batch set.

    Raises:
        DataError: the labels do not fit the classes.
        UsageError: the recipe's parts do not go together.
    """
    recipe = job.recipe
    job.data.check_labels(recipe.num_classes)
    # the plan is of one micro-batch; how many of them make the global batch is found later
    kept = "zero" if keeps_gradients else recipe.zero_grad
    plan = plan_job(job.but(global_batch=None, accumulation=1, zero_grad=kept), verify=False)
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
