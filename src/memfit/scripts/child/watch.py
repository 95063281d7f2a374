"""Watch a script train: its steps and evaluations, their peaks, and when it has shown enough."""

from __future__ import annotations

import importlib
import inspect
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import nn

from memfit.memory.recording.follower import hooked
from memfit.memory.tape.evaluation import Evaluation
from memfit.places import place_of
from memfit.scripts.child.alike import is_alike
from memfit.scripts.child.engine import Engine
from memfit.scripts.child.loaders import watch_loaders
from memfit.scripts.child.recording import allocations_so_far
from memfit.scripts.told.answer import Step
from memfit.scripts.told.job import ScriptJob
from memfit.scripts.told.knob import Knob, KnobKind
from memfit.torch_inside import in_backward

__all__ = ["Enough", "Watch"]

_optimizers: Any = importlib.import_module("torch.optim.optimizer")  # hidden by torch.optim


#: Batches that libraries take from a loader before they train on the one in hand.
_MOST_PREFETCHED = 2


class Enough(BaseException):
    """Ends a script that has shown what it does; ``except Exception`` lets it pass."""


class Watch:
    """Sees what a script does.

    A step ends with ``optimizer.step()``, or where there is no optimizer with the backward pass
    after it. When enough was seen, the loader that feeds the loop ends, so that the script goes on
    to its evaluation; the backward pass of the next epoch ends it all.

    Args:
        job: how far to run.
        engine: is told where steps begin.
        told: is given the steps so far, each time there is one more.

    Attributes:
        steps: so far.
        evaluations: so far; the last may still be running.
        is_enough: the steps are over.
        backwards: how many backward passes began.
        notes: what was done otherwise than the script says.
        denied: lines at which an allocation failed for want of memory.
    """

    def __init__(
        self,
        job: ScriptJob,
        engine: Engine,
        told: Callable[[list[Step]], None] = lambda _: None,
    ) -> None:
        self.job = job
        self.steps: list[Step] = []
        self.evaluations: list[Evaluation] = []
        self.is_enough = False
        self.backwards = 0
        self._backward_place = ""
        self.notes: dict[str, None] = {}  # each once, in order
        self.denied: dict[str, None] = {}
        self._engine = engine
        self._told = told
        self._peak = (0, 0)  # of the step so far
        self._allocations = 0  # at the end of the last step
        self._is_evaluating = False
        self._depth = 0  # of modules
        self._optimizers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._loaders: dict[int, tuple[int | None, int | None]] = {}  # batch, samples
        self._fed: dict[int, weakref.ref[Any]] = {}  # by loader, since the last evaluation
        self._feeders: dict[int, weakref.ref[Any]] = {}  # of the first backward pass
        self._ending: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ended: set[int] = set()  # their numbers
        self._is_next_epoch = False
        self._left = _MOST_PREFETCHED
        self._given: weakref.WeakKeyDictionary[Any, list[int]] = weakref.WeakKeyDictionary()

    # -- what it hangs on ----------------------------------------------------------------------

    def install(self) -> Any:
        """Watch this process; a context in which modules and optimizers are hooked, too."""
        watch_loaders(self)
        self._watch_backward()
        make = _optimizers.Optimizer.__init__
        optimizers = self._optimizers

        @wraps(make)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            make(self, *args, **kwargs)
            optimizers.add(self)

        _optimizers.Optimizer.__init__ = init
        return hooked(
            self._before_module, self._after_module, lambda *_: None, self._after_optimizer
        )

    def _watch_backward(self) -> None:
        for name in ("backward", "grad"):
            setattr(torch.autograd, name, self._watched(getattr(torch.autograd, name)))

    def _watched(self, backward: Any) -> Any:
        @wraps(backward)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if not in_backward():
                self._before_backward(place_of(inspect.currentframe()))
            return backward(*args, **kwargs)

        return watched

    # -- steps ---------------------------------------------------------------------------------

    def _before_backward(self, place: str) -> None:
        if self.is_enough:
            self._left -= 1
            if self._is_next_epoch or self._left < 0:
                raise Enough
            return
        self._engine.begin_backward(place)
        self._backward_place = place
        if self.backwards == 0:
            self._feeders = dict(self._fed)
        elif not self._optimizers and not self._numbers:
            self._end_step(-1)
            self._engine.begin_step()
        self._end_evaluation()
        self.backwards += 1

    def _after_optimizer(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        number = self._numbers.setdefault(optimizer, len(self._numbers))
        self._optimizers.discard(optimizer)
        if not self.is_enough:
            self._end_step(number)

    def _end_step(self, optimizer: int) -> None:
        self._end_evaluation()
        self._cut()
        count = allocations_so_far()
        self.steps.append(Step(*self._peak, count - self._allocations, optimizer))
        self._peak, self._allocations = (0, 0), count
        self._told(self.steps)
        job, number = self.job, len(self.steps)
        if job.steps is None:
            known = len(self._numbers) + len(self._optimizers)
            self.is_enough = is_alike(self.steps, known) or number >= job.most_steps
        else:
            self.is_enough = number >= job.steps
        if self.is_enough:
            self._ending = weakref.WeakSet(
                iterator for fed in self._fed.values() if (iterator := fed()) is not None
            )
            if not self._ending:
                raise Enough

    def _cut(self) -> tuple[int, int]:
        """The peaks since the last cut; they are part of the step's."""
        if not torch.cuda.is_initialized():
            return 0, 0
        peaks = torch.cuda.max_memory_allocated(0), torch.cuda.max_memory_reserved(0)
        torch.cuda.reset_peak_memory_stats(0)
        if not self._is_evaluating:
            self._peak = max(self._peak[0], peaks[0]), max(self._peak[1], peaks[1])
        return peaks

    def was_denied(self, *_: Any) -> None:
        """Memory was asked for in vain; the script may go on."""
        self.denied[self.place()] = None

    def place(self) -> str:
        """The user's line that is running, or that began the backward pass which is."""
        return place_of(inspect.currentframe()) or self._backward_place

    # -- evaluation ----------------------------------------------------------------------------

    def _before_module(self, module: nn.Module, _inputs: Any) -> None:
        if self._depth == 0 and not in_backward():
            is_evaluation = not torch.is_grad_enabled() and not module.training
            if is_evaluation:
                self._evaluate(place_of(inspect.currentframe()))
            elif torch.is_grad_enabled():
                self._end_evaluation()
        self._depth += 1

    def _after_module(self, *_: Any) -> None:
        self._depth = max(self._depth - 1, 0)

    def _evaluate(self, place: str) -> None:
        if not self._is_evaluating:
            self._cut()
            self._is_evaluating = True
            self.evaluations.append(Evaluation(self._when(), 0, 0, 0, place))
            self._evaluated_from = allocations_so_far()
        last = self.evaluations[-1]
        self.evaluations[-1] = replace(last, forwards=last.forwards + 1)
        if self.backwards == 0:
            self._fed.clear()
        for given in self._given.values():
            given[1] += 1

    def _when(self) -> str:
        if self.backwards == 0:
            return "before"
        return "after" if self.is_enough else "between"

    def _end_evaluation(self) -> None:
        if not self._is_evaluating:
            return
        allocated, reserved = self._cut()
        self._is_evaluating = False
        self._allocations += allocations_so_far() - self._evaluated_from
        last = self.evaluations[-1]
        self.evaluations[-1] = replace(last, allocated_bytes=allocated, reserved_bytes=reserved)

    def end(self) -> None:
        """The script is over: what runs still is closed."""
        self._end_evaluation()

    # -- loaders -------------------------------------------------------------------------------

    def batch_of(self, number: int) -> int | None:
        """The batch for a loader; None leaves it as it is."""
        return self.job.batch if number in self.job.loaders else None

    def made(self, number: int, batch: int | None, samples: int | None) -> None:
        """A loader was made."""
        self._loaders[number] = batch, samples

    def is_over(self, iterator: Any, number: int) -> bool:
        """Whether an iterator ends here: its loop or its evaluation has shown enough."""
        if iterator in self._ending:  # once: the next epoch begins, and is seen to
            self._ending.discard(iterator)
            self._ended.add(number)
            return True
        batches, forwards, backwards = self._given.get(iterator, (0, 0, self.backwards))
        most = self.job.evaluation_batches
        if batches >= most and forwards >= most and backwards == self.backwards:
            self.notes[f"Evaluation was cut after {most} batches of a loader."] = None
            self._given.pop(iterator, None)  # another evaluation may go on with it
            return True
        return False

    def gave(self, iterator: Any, number: int) -> None:
        """A batch was handed out."""
        given = self._given.setdefault(iterator, [0, 0, self.backwards])
        given[0] += 1
        self._is_next_epoch |= number in self._ended
        self._fed[number] = weakref.ref(iterator)

    @property
    def samples(self) -> int:
        """Of the data set that fed the first backward pass; 0 where nobody knows."""
        known = (self._loaders.get(number, (None, None))[1] for number in self._feeders)
        return next((samples for samples in known if samples), 0)

    @property
    def knob(self) -> Knob:
        """The loaders that fed the first backward pass, if any."""
        for number in self._feeders:
            batch, _ = self._loaders.get(number, (None, None))
            if batch is not None:
                if 0 < self.samples < batch:
                    text = f"The data set has {self.samples} samples, fewer than a batch."
                    self.notes[text] = None
                return Knob(KnobKind.LOADER, "DataLoader", batch, tuple(self._feeders))
        return Knob(KnobKind.NONE)
