"""What plays the card for a script: PyTorch itself behind the stubs, or meta tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Protocol

from memfit.memory.tape.tape import Tape
from memfit.scripts.child.recording import PlacedRecorder, ScriptFollower, recorded, recorded_tape
from memfit.scripts.told.answer import Decided
from memfit.scripts.values.mode import Values
from memfit.torch_inside import observe_out_of_memory, when_cuda_starts
from memfit.virtual_cuda.inside import not_counted

__all__ = ["Engine", "PyTorchEngine"]


class Engine(Protocol):
    """Runs a script's operators, and knows what they allocated."""

    def running(
        self, place: Callable[[], str], denied: Callable[..., None]
    ) -> AbstractContextManager[None]:
        """Inside, the card is there.

        Args:
            place: says which of the user's lines is running.
            denied: is called when memory was asked for in vain.
        """

    def begin_backward(self, place: str) -> None:
        """A backward pass begins at a line of the user's."""

    def begin_step(self) -> None:
        """A step begins that no optimizer shows."""

    def tape(self) -> Tape | None:
        """What was recorded; None where nothing was."""

    @property
    def parameter_count(self) -> int:
        """Parameters of the models that ran on the card."""

    def values(self) -> tuple[Decided, ...]:
        """What left the card, each place once."""

    def missing(self, error: BaseException) -> str:
        """What this engine lacks where a script raised; empty where the script is to blame."""

    def notes(self) -> Iterator[str]:
        """What the answer leaves out."""


class PyTorchEngine:
    """PyTorch's own CUDA build, and its allocator.

    Args:
        is_recorded: keep a tape.
    """

    def __init__(self, *, is_recorded: bool) -> None:
        self._recorder = PlacedRecorder() if is_recorded else None
        self._follower: ScriptFollower | None = None
        self._values: Values | None = None

    @contextmanager
    def running(self, place: Callable[[], str], denied: Callable[..., None]) -> Iterator[None]:
        """Inside, small operators have values, and the allocator's history is kept."""
        when_cuda_starts(partial(observe_out_of_memory, denied))
        with ExitStack() as stack:
            self._values = stack.enter_context(Values(place))
            if self._recorder is not None:
                self._follower = stack.enter_context(recorded(self._recorder))
            yield

    def begin_backward(self, place: str) -> None:
        """Its operators run in a thread that knows no line."""
        if self._recorder is not None:
            self._recorder.backward_place = place

    def begin_step(self) -> None:
        """The tape's next step."""
        if self._recorder is not None:
            self._recorder.begin_step()

    def tape(self) -> Tape | None:
        """The allocator's history, joined with modules, parts and places."""
        return None if self._recorder is None else recorded_tape(self._recorder)

    @property
    def parameter_count(self) -> int:
        """0 where nothing is recorded."""
        return 0 if self._follower is None else self._follower.parameter_count

    def values(self) -> tuple[Decided, ...]:
        """Known ones, too."""
        return () if self._values is None else tuple(self._values.decided.values())

    def missing(self, _: BaseException) -> str:
        """It can do what PyTorch can."""
        return ""

    def notes(self) -> Iterator[str]:
        """Workspaces of libraries that nobody asks without a GPU."""
        for library in not_counted():
            yield f"Workspaces of {library} are not counted: their sizes are not published."
