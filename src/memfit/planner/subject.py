"""What a plan is of: a recipe's training step, or a script; anything that gives tapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from memfit.cards.catalogue import GPU
from memfit.memory.tape.tape import Tape
from memfit.planner.assumptions import Assumption
from memfit.planner.result import BatchWords
from memfit.recipe.recipe import Recipe

__all__ = ["Subject"]


class Subject(Protocol):
    """Something that trains, and whose tape can be had at some micro-batches."""

    @property
    def recipe(self) -> Recipe:
        """Micro-batch, allocator options and safety; of a script, nothing else is known."""

    @property
    def name(self) -> str:
        """How it is called."""

    @property
    def gpu(self) -> GPU:
        """The card that is played."""

    @property
    def parameter_count(self) -> int:
        """Parameters of the model."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample; of tokens, their number; empty where it is not known."""

    @property
    def is_tokens(self) -> bool:
        """Whether the model reads tokens."""

    @property
    def batch_words(self) -> BatchWords | None:
        """What forward and loss are given; None where only a run knows."""

    @property
    def samples(self) -> int | None:
        """Of the training set; None where it is not known."""

    @property
    def traced_batches(self) -> Sequence[int]:
        """Two micro-batches from which all others follow; only one where nothing sets it."""

    @property
    def unsupported(self) -> dict[str, str]:
        """Operators that could not be accounted for, with the reason."""

    @property
    def unknown_temporaries(self) -> set[str]:
        """Operators that are taken to need nothing beside their outputs."""

    def not_modelled(self) -> Iterator[Assumption]:
        """What it does that the figures do not have."""

    def trace(self, micro_batch: int) -> Tape:
        """The tape at a micro-batch.

        Raises:
            StepError: it does not run.
        """

    def assumptions(self) -> Iterator[Assumption]:
        """What it takes for granted."""
