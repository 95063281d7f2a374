"""The engine without CUDA: meta tensors, on any build of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memfit.cards.catalogue import GPU
from memfit.memory.recording.virtual_gpu import VirtualGPU
from memfit.memory.tape.tape import Tape
from memfit.scripts.child.recording import ScriptFollower
from memfit.scripts.told.answer import Decided
from memfit.step.failures import is_data_dependent

__all__ = ["MetaEngine"]


class _ScriptGPU(ScriptFollower, VirtualGPU):
    """A virtual GPU on which modules that prepare images on the CPU are no forward pass."""


class MetaEngine:
    """A GPU that computes nothing, and whose allocator is memfit's model of PyTorch's.

    Args:
        card: what is played.
    """

    def __init__(self, card: GPU) -> None:
        self._gpu = _ScriptGPU(card)

    @contextmanager
    def running(self, place: Callable[[], str], _denied: Callable[..., None]) -> Iterator[None]:
        """Inside, this thread has the card; its memory has no end, so none is denied."""
        self._gpu.recorder.place = place
        with self._gpu:
            yield

    def begin_backward(self, place: str) -> None:
        """Its operators run in this thread, where the line is known."""

    def begin_step(self) -> None:
        """Its recorder has seen that no optimizer is there."""

    def tape(self) -> Tape | None:
        """What was recorded."""
        tape = self._gpu.tape
        return tape if tape.allocations else None

    @property
    def parameter_count(self) -> int:
        """Of the models whose forward ran."""
        return self._gpu.parameter_count

    def values(self) -> tuple[Decided, ...]:
        """Those that were made up."""
        return tuple(
            Decided("number", made.place, "", made.value, is_made_up=True, count=made.times)
            for made in self._gpu.made_up
        )

    def missing(self, error: BaseException) -> str:
        """A value or a size that only a run knows, and which is too much to make up."""
        if not isinstance(error, Exception) or not is_data_dependent(error):
            return ""
        operator = self._gpu.recorder.last_operator
        return (
            f"{operator} asks for values, or for a size that they decide; meta tensors have none. "
            "PyTorch itself has, without a GPU, too: its CUDA build on Linux."
        )

    def notes(self) -> Iterator[str]:
        """It counts what a plan counts."""
        return iter(())
