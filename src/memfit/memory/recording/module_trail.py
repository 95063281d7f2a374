"""Which module is running: in forward the innermost, in backward the one whose node runs."""

from __future__ import annotations

from bisect import bisect_right

from memfit.torch_inside import (
    autograd_position,
    backward_task,
    in_backward,
    node_position,
    running_node,
)

__all__ = ["ModuleTrail"]


class _Spans:
    """From which autograd position on which module's nodes were made."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._modules: list[str] = []

    def begin(self, path: str) -> None:
        self._starts.append(autograd_position())
        self._modules.append(path)

    def at(self, position: int) -> str:
        index = bisect_right(self._starts, position) - 1
        return self._modules[index] if index >= 0 else ""


class ModuleTrail:
    """Follows modules as they begin and end.

    Autograd numbers the nodes of each thread, and a checkpoint's second forward runs in the
    device's own (``torch/csrc/autograd/engine.cpp``, and ``sequence_nr`` in
    ``aten/src/ATen/SequenceNumber.cpp``; torch 2.11 to 2.15): its nodes are kept apart. They run in
    a backward within the backward.

    Attributes:
        running: the path of each module that is running, outermost first.
        names: of the module that owns a parameter, by the parameter's ``id``.
    """

    def __init__(self) -> None:
        self.running: list[str] = []
        self.names: dict[int, str] = {}
        self.begin_step()

    def begin_step(self) -> None:
        """No node of an earlier step runs any more."""
        self._first, self._again = _Spans(), _Spans()
        self._outermost = -1  # the number of the backward that ``loss.backward()`` began

    def enter(self, path: str) -> None:
        """A module's forward begins."""
        self.running.append(path)
        self._begin_span(path)

    def leave(self) -> None:
        """The innermost module's forward ended."""
        self.running.pop()
        if self.running:
            self._begin_span(self.running[-1])

    def now(self) -> str:
        """The path of the module that is at work; empty outside of all."""
        if self.running:
            return self.running[-1]
        task = backward_task()
        if task < 0:
            self._outermost = -1
            return ""
        if self._outermost < 0:
            self._outermost = task
        node = running_node()
        if node is None:
            return ""
        variable = getattr(node, "variable", None)
        if variable is not None:  # AccumulateGrad
            return self.names.get(id(variable), "")
        spans = self._first if task == self._outermost else self._again
        return spans.at(node_position(node))

    def _begin_span(self, path: str) -> None:
        (self._again if in_backward() else self._first).begin(path)
