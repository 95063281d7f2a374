"""``memfit.plan``: from a model and a few words to a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memfit.cards.catalogue import GPU, local_gpu
from memfit.cards.catalogue import gpu as find_gpu
from memfit.memory.recording.recorder import Recorder
from memfit.planner.plan import Plan
from memfit.planner.tracing import TrainingStep
from memfit.step.job import Job, resolve
from memfit.step.loop import Loop, training_loop

__all__ = ["chosen_card", "plan", "plan_job"]


def plan(
    recipe: Any = None, *, gpu: str | GPU | None = None, verify: bool = True, **options: Any
) -> Plan:
    """Where every byte of GPU memory goes, and the batch that fits.

    Args:
        recipe: a model: a spec such as ``"torchvision:resnet50"``, an ``nn.Module`` or a callable
            that makes one; or a :class:`~memfit.Recipe`.
        gpu: a name in the catalogue, a size such as ``"11GiB"``, or a :class:`~memfit.GPU`; the
            local GPU with its free memory when there is one and none is named.
        verify: hold the arithmetic against a third trace at the recommended batch.
        **options: fields of :class:`~memfit.Recipe`: ``input_shape``, ``num_classes``,
            ``batch_size``, ``optimizer``, ``precision``, and so on; ``model``, ``data``,
            ``optimizer``, ``transform``, ``loss`` and ``step`` may be objects of yours.

    Returns:
        The plan: ``plan.max_batch_size``, ``plan.at(64).parts``, ``plan.to_dict()``.

    Raises:
        MemfitError: see :mod:`memfit.errors`.

    Example:
        >>> import memfit
        >>> plan = memfit.plan("mlp", input_shape=(1, 28, 28), gpu="11GiB")
        >>> plan.at(64).parts["batch"]
        201216
    """
    job = resolve(recipe, card=chosen_card(gpu), **options)
    return plan_job(job, verify=verify, validates=True)


def plan_job(
    job: Job,
    *,
    verify: bool = True,
    loop: Loop = training_loop,
    watch: Callable[[int, Recorder], None] | None = None,
    validates: bool = False,
) -> Plan:
    """Plan a job for its card, or for none.

    Args:
        job: what is planned.
        verify: hold the arithmetic at the recommended batch against a third trace.
        loop: whose steps are planned.
        watch: told of every trace that begins: its micro-batch, and the recorder at work.
        validates: the validation pass is planned beside training, wherever there is one.
    """
    plan = Plan(TrainingStep(job, loop=loop, watch=watch, validates=validates), job.card)
    if verify:
        plan.verify(plan.micro_batch)
    return plan


def chosen_card(gpu: str | GPU | None) -> GPU | None:
    """The card that is meant: the local GPU with its free memory where none is named.

    Args:
        gpu: a name, a size or a card.
    """
    if isinstance(gpu, str):
        return find_gpu(gpu)
    if gpu is None and (local := local_gpu()) is not None:
        card, free_bytes = local
        return card.with_free_bytes(free_bytes)
    return gpu
