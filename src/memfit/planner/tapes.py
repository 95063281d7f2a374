"""The tapes of a training step at any micro-batch: two are traced, the others are arithmetic."""

from __future__ import annotations

from functools import cached_property

from memfit.errors import StepError
from memfit.memory.tape.tape import AffineTape, NotAffine, Tape, max_live_bytes
from memfit.planner.subject import Subject
from memfit.recipe.fields import MAX_BATCH

__all__ = ["Tapes"]

#: Where each batch needs a trace of its own, no larger one is tried.
_MAX_TRACED_BATCH = 4096


class Tapes:
    """What was traced of a step, and what follows from it.

    Args:
        subject: ready to be traced.

    Attributes:
        affine: the tape for every batch but one; None where each batch is traced.
        not_affine_because: why it is None.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._direct = {batch: subject.trace(batch) for batch in subject.traced_batches}
        self.affine: AffineTape | None = None
        self.not_affine_because = ""
        self._asked_last: tuple[int, list[int]] = (0, [])
        if len(self._direct) > 1:
            try:
                self.affine = self._fitted(*sorted(self._direct))
            except NotAffine as difference:
                self.not_affine_because = str(difference)

    def _fitted(self, small: int, large: int) -> AffineTape:
        """The tape of every batch; where a size may grow faster than it, of further traces.

        Raises:
            NotAffine: there is none.
        """
        affine = AffineTape.fit(dict(sorted(self._direct.items())))
        if not affine.may_bend:
            return affine
        third, fourth = 2 * large - small, 3 * large - 2 * small
        self._direct[third] = self._subject.trace(third)
        if not affine.matches(self._direct[third], third):
            affine = AffineTape.fit(dict(sorted(self._direct.items())))
            self._direct[fourth] = self._subject.trace(fourth)
            if not affine.matches(self._direct[fourth], fourth):
                raise NotAffine("sizes grow neither with the batch nor with its square")
        return affine

    @property
    def traced(self) -> dict[int, Tape]:
        """The tapes that hold as they are: of a batch of one, or of all batches traced so far."""
        if self.affine is None:
            return dict(self._direct)
        return {} if self._single is None else {1: self._single}

    @property
    def last_batch(self) -> int:
        """The largest micro-batch that is tried."""
        return _MAX_TRACED_BATCH if self.affine is None else MAX_BATCH

    def at(self, batch_size: int) -> tuple[Tape, list[int]]:
        """The events, and the requested bytes of every allocation at a micro-batch."""
        if self.affine is not None and batch_size not in self._direct:
            if batch_size == 1 and self._single is not None:
                return self._single, self._single.sizes_bytes
            if self._asked_last[0] != batch_size:  # who asks for sizes often asks again
                self._asked_last = batch_size, self.affine.sizes_bytes(batch_size)
            return self.affine.tape, self._asked_last[1]
        if batch_size not in self._direct:
            self._direct[batch_size] = self._subject.trace(batch_size)
        tape = self._direct[batch_size]
        return tape, tape.sizes_bytes

    def least_bytes(self, batch_size: int) -> int:
        """The most requested bytes alive at once: less than any allocator can do with.

        What a library chooses is left out, so that it is not asked.
        """
        if self.affine is not None:
            sizes = self.affine.least_sizes_bytes(batch_size)
            return max_live_bytes(sizes, self.affine.tape.events)
        return self.at(batch_size)[0].peak_requested_bytes

    def verify(self, batch_size: int) -> bool:
        """Hold the arithmetic against a direct trace; without it from now on if they differ.

        Raises:
            StepError: the asked batch of one does not run (batch norm needs two values).
        """
        if self.affine is None:
            return False
        if batch_size == 1:  # a trace already, see at
            if self._single is None and self._subject.recipe.batch_size == 1:
                self._subject.trace(1)
            return True
        tape = self._direct[batch_size] = self._subject.trace(batch_size)
        if self.affine.matches(tape, batch_size):
            return True
        self.not_affine_because = f"the trace at batch {batch_size} differs from the arithmetic"
        self.affine = None
        return False

    @cached_property
    def _single(self) -> Tape | None:
        """A batch of one is traced: where a dimension is one, torch views what it else copies."""
        try:
            return self._subject.trace(1)
        except StepError:
            return None  # batch norm refuses one value for each channel
