"""A training step as a transaction: out of memory leaves no trace but a smaller micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from memfit.errors import UsageError
from memfit.step.losses import checked_loss
from memfit.torch_inside import AnyBatchNorm
from memfit.trainer.recovery.before_step import Buffers, Gradients, RandomState
from memfit.trainer.recovery.optimizer_state import allocate_state
from memfit.trainer.recovery.out_of_memory import (
    OutOfMemoryKept,
    release,
    release_accelerator_cache,
)
from memfit.trainer.recovery.sizes import MicroBatchEvent, Sizes, Where

#: Of a :class:`Fitting`, beside its size.
_STATE = ("steps", "wait", "clean_steps", "is_trial")

_MEAN_OF_SLICE = 'Return the mean over the samples of the slice: reduction="mean".'

__all__ = ["Fitting", "MicroBatchEvent", "batch_dependent_layers", "even_slices", "fit_micro_batch"]


@dataclass(frozen=True, slots=True)
class _Failure:
    """Memory ran out: all that is kept of the error."""

    where: Where
    message: str


def fit_micro_batch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    sizes: int | Sequence[int],
    *,
    scale: Callable[[Tensor], Tensor] | None = None,
    grow_after: int | None = 200,
    on_event: Callable[[MicroBatchEvent], None] | None = None,
    agree: Callable[[bool], bool] | None = None,
    release_cache: Callable[[], None] = release_accelerator_cache,
) -> Fitting:
    """Make the backward of your own loop survive out-of-memory.

    Args:
        model: its buffers are restored when a step is redone.
        optimizer: its parameters' gradients, with the model's, are restored. Its state is made
            before the first micro-batch, so that its step cannot be the one that fails.
        sizes: micro-batches to use, largest first; one number is halved down to 1.
        scale: applied to each micro-batch's loss before its backward (``scaler.scale``).
        grow_after: clean steps before the next larger size is tried again; doubled each time
            that fails. None: never.
        on_event: is told when the micro-batch changes.
        agree: on several ranks, whether any failed, from whether this one did (an all-reduce of
            one flag). It is called once an attempt, on every rank; all shrink together.
        release_cache: gives cached memory back (``budget.empty_cache`` under a
            :class:`~memfit.memory.recording.cpu_budget.CpuBudget`).

    Raises:
        UsageError: the sizes are not positive and descending, or ``grow_after`` is below 1.

    Example:
        >>> import memfit, torch
        >>> model, criterion = torch.nn.Linear(8, 2), torch.nn.CrossEntropyLoss()
        >>> optimizer = torch.optim.AdamW(model.parameters())
        >>> loader = [(torch.randn(64, 8), torch.zeros(64, dtype=torch.long))]
        >>> fitting = memfit.fit_micro_batch(model, optimizer, sizes=(64, 24, 8))
        >>> for x, y in loader:  # the global batch, on the host or the device
        ...     optimizer.zero_grad()
        ...     loss = fitting.backward(len(x), lambda part: criterion(model(x[part]), y[part]))
        ...     optimizer.step()
        >>> fitting.size, fitting.events
        (64, [])
    """
    return Fitting(
        model, optimizer, Sizes(sizes, on_event),
        scale=scale, grow_after=grow_after, agree=agree, release_cache=release_cache,
    )  # fmt: skip


class Fitting:
    """The transactional step that :func:`fit_micro_batch` makes.

    Attributes:
        note: set once when a batch is split although the model has batch-dependent layers.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        sizes: Sizes,
        *,
        scale: Callable[[Tensor], Tensor] | None,
        grow_after: int | None,
        agree: Callable[[bool], bool] | None,
        release_cache: Callable[[], None],
    ) -> None:
        if grow_after is not None and grow_after < 1:
            raise UsageError(f"grow_after={grow_after}: give a number of steps, or None for never.")
        self.note: str | None = None
        self._model = model
        self._optimizer = optimizer
        self._sizes = sizes
        self._scale = scale
        self._agree = agree
        self._release_cache = release_cache
        self._buffers = Buffers(model)
        self._known: list[Tensor] = []
        self._known_count = -1
        self._gradients: Gradients | None = None
        self._random: RandomState | None = None
        self._where: Where = "forward"
        self._has_state = False
        self._steps = 0
        self._wait = grow_after  # clean steps before growing
        self._clean_steps = 0
        self._is_trial = False  # the size was grown into and has not held yet

    @property
    def size(self) -> int:
        """The most samples in a micro-batch now."""
        return self._sizes.now

    @property
    def shadows(self) -> list[Tensor]:
        """What is kept on the device to undo a step: a copy of each of the model's buffers."""
        return self._buffers.shadows

    @property
    def events(self) -> list[MicroBatchEvent]:
        """Every change of the size, in order."""
        return self._sizes.events

    def backward(
        self,
        count: int,
        compute_loss: Callable[[slice], Tensor],
        *,
        largest: int | None = None,
        with_empty: bool = False,
        are_cleared: bool = False,
    ) -> Tensor:
        """Forward and backward of ``count`` samples, in as many micro-batches as are needed.

        Gradients are those of the mean over all samples, added to what ``parameter.grad`` holds.
        When memory runs out, gradients, buffers, and PyTorch's random state (not Python's or
        NumPy's) are put back, the size shrinks, and the same samples are done again. Other errors
        pass through as they are.

        Micro-batches differ by one sample at most, so that no single sample is left over for a
        BatchNorm to refuse.

        Args:
            count: samples in the batch; on several ranks some may have none.
            compute_loss: from a slice of ``range(count)``, the mean loss over it (one number). It
                may be called again for the same samples, and must not talk to other ranks.
            largest: on several ranks, the most samples that any of them has; all make as many
                micro-batches as those need.
            with_empty: where a rank has fewer, it is called with empty slices, too, for models
                that talk to other ranks in every forward; their loss must have no gradient.
            are_cleared: gradients are None or zeros, which else the device is asked for.

        Returns:
            The mean loss over the batch: a detached tensor without dimensions.

        Raises:
            DoesNotFit: the smallest size does not fit, everything is as before the call; or the
                optimizer's state does not, at the first call.
            StepError: the loss is not one number.
            UsageError: ``count`` is below 1 (without ``agree``).
        """
        if count < 1 and self._agree is None:
            raise UsageError(f"A batch of {count} samples has no gradient.")
        self.allocate_state()
        parameters = self._parameters()
        self._gradients = Gradients(parameters, are_cleared)
        self._random = RandomState({parameter.device for parameter in parameters})
        self._buffers.save()
        while True:
            outcome = self._attempt(count, compute_loss, largest or count, with_empty)
            failure = self._failure(outcome)
            if failure is None:
                assert isinstance(outcome, Tensor)
                self._note_clean_step(largest or count)
                return outcome
            del outcome
            self.undo()
            torch.clear_autocast_cache()
            release(self._release_cache)
            self._shrink(count, failure)

    def allocate_state(self) -> None:
        """Make the optimizer's state now; else the first :meth:`backward` does.

        Raises:
            DoesNotFit: it does not fit.
        """
        if not self._has_state:
            allocate_state(self._optimizer)
            self._has_state = True

    def undo(self) -> None:
        """Put gradients, buffers and random state back to before the last :meth:`backward`."""
        if self._gradients is not None and self._random is not None:
            self._gradients.restore()
            self._buffers.restore()
            self._random.restore()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to change its sizes at the same steps."""
        state = {name: getattr(self, f"_{name}") for name in _STATE}
        return state | {"size": self.size, "largest": self._sizes.all[0]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on as :meth:`state_dict` says; a size that is none of ours becomes the next below.

        Nothing larger than its largest size is tried: where there is more memory now, the steps
        would not be the same.
        """
        self._sizes.leave_out_above(state.get("largest", self._sizes.all[0]))
        self._sizes.take_at_most(state["size"])
        for name in _STATE:
            setattr(self, f"_{name}", state[name])

    def _parameters(self) -> list[Tensor]:
        """Of model and optimizer; looked up again when the optimizer was given more."""
        groups = self._optimizer.param_groups
        count = sum(len(group["params"]) for group in groups)
        if count != self._known_count:
            of_optimizer = (parameter for group in groups for parameter in group["params"])
            self._known = list(dict.fromkeys([*self._model.parameters(), *of_optimizer]))
            self._known_count = count
        return self._known

    # -- one attempt ---------------------------------------------------------------------------

    def _attempt(
        self, count: int, compute_loss: Callable[[slice], Tensor], largest: int, with_empty: bool
    ) -> Tensor | _Failure:
        """Do all samples; the error and all that it holds is gone on return."""
        total: Tensor | None = None
        parts = even_slices(count, self.size, -(-largest // self.size))
        if not with_empty:
            parts = [part for part in parts if part.stop > part.start]
        if len(parts) > 1 and self.note is None:
            self._note_batch_dependence()
        with OutOfMemoryKept() as kept:
            for part in parts:
                total = _added(total, self._micro_batch(part, count, compute_loss))
            return torch.zeros(()) if total is None else total
        return _Failure(self._where, kept.message or "")

    def _micro_batch(
        self, part: slice, count: int, compute_loss: Callable[[slice], Tensor]
    ) -> Tensor:
        """The part's share of the mean loss, after its backward."""
        self._where = "forward"
        loss = checked_loss(compute_loss(part), _MEAN_OF_SLICE)
        share = part.stop - part.start
        if share != count and share:
            loss = loss * (share / count)
        self._where = "backward"
        (loss if self._scale is None else self._scale(loss)).backward()
        return loss.detach().reshape(())

    def _failure(self, outcome: Tensor | _Failure) -> _Failure | None:
        """What failed here, or on another rank."""
        own = outcome if isinstance(outcome, _Failure) else None
        if self._agree is not None and self._agree(own is not None) and own is None:
            return _Failure("another rank", "another rank ran out of memory")
        return own

    # -- the size ------------------------------------------------------------------------------

    def _shrink(self, count: int, failure: _Failure) -> None:
        """A smaller size; a batch that was smaller than the size itself tells more (one rank)."""
        failed = self.size if self._agree is not None else min(self.size, count)
        self._clean_steps = 0
        if self._is_trial and self._wait is not None:
            self._wait *= 2
        self._is_trial = False
        self._sizes.shrink(failed, self._steps, failure.where, failure.message)

    def _note_clean_step(self, count: int) -> None:
        """Count it, and try the next larger size when there were enough."""
        self._steps += 1
        self._clean_steps = self._clean_steps + 1 if self._sizes.can_grow else 0
        if count >= self.size:
            self._is_trial = False
        if self._wait is not None and self._clean_steps >= self._wait and self._sizes.can_grow:
            self._sizes.grow(self._steps)
            self._clean_steps = 0
            self._is_trial = True

    def _note_batch_dependence(self) -> None:
        layers = batch_dependent_layers(self._model)
        if layers:
            more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
            self.note = (
                f"{layers[0]}{more}: BatchNorm takes its statistics from the micro-batch "
                f"({self.size}), so accumulating is not the same as one large batch."
            )


def _added(total: Tensor | None, loss: Tensor) -> Tensor:
    """The sum; no variable keeps a micro-batch's loss through the next one."""
    return loss if total is None else total + loss


def even_slices(count: int, size: int, number: int | None = None) -> list[slice]:
    """As few slices of ``range(count)`` as hold ``size`` at most, or ``number``; larger ones first.

    Example:
        >>> even_slices(9, 4)
        [slice(0, 3, None), slice(3, 6, None), slice(6, 9, None)]
    """
    number = number or max(1, -(-count // size))
    least, larger = divmod(count, number)
    starts = [i * least + min(i, larger) for i in range(number + 1)]
    return [slice(a, b) for a, b in pairwise(starts)]


def batch_dependent_layers(model: nn.Module) -> list[str]:
    """Paths of the layers for which a sample's output depends on the others in its micro-batch.

    Args:
        model: its BatchNorm layers count while they train, or when they keep no statistics.
    """
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, AnyBatchNorm)
        and (module.training or (module.running_mean is None and module.running_var is None))
    ]
