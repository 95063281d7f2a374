"""What came of a script: how it ended, its steps, its tape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from memfit.memory.tape.evaluation import Evaluation
from memfit.memory.tape.tape import Tape
from memfit.scripts.told.job import EngineName
from memfit.scripts.told.knob import Knob, KnobKind
from memfit.scripts.told.rows import rows_of, tape_of

__all__ = ["Answer", "Decided", "Kept", "Protection", "Status", "Step"]


class Status(StrEnum):
    """How a script ended."""

    STOPPED = "stopped"  # by memfit: its steps looked alike, or were as many as asked
    ENDED = "ended"  # by itself, after training
    NO_TRAINING = "no_training"  # by itself, without a backward pass
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"  # an exception of its own
    EXITED = "exited"  # with an exit code that is not 0
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"  # the process was killed by a signal

    @property
    def is_trained(self) -> bool:
        """Whether the steps are those of a training that went well."""
        return self in (Status.STOPPED, Status.ENDED)


class Protection(StrEnum):
    """What kept a script's hands off the disk and the network."""

    NAMESPACES = "namespaces"  # the kernel: an overlay over every file system, no network
    PYTHON = "python"  # functions of Python that write or connect; compiled code is not held


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step, from the end of the one before; bytes as the allocator counts them.

    Args:
        allocated_bytes: the most in live blocks.
        reserved_bytes: the most in segments.
        allocations: how many there were.
        optimizer: number of the optimizer, in the order of stepping; -1 where there is none.
    """

    allocated_bytes: int
    reserved_bytes: int
    allocations: int
    optimizer: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that a script wrote or deleted, had it been let.

    Args:
        path: relative to the working folder where it lies inside.
        size_bytes: of what was written.
        is_deleted: the file is still there.
    """

    path: str
    size_bytes: int
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Decided:
    """A value of the GPU by which a size followed, or which Python read and may have decided by.

    Args:
        what: it became a ``"number"`` of Python, a ``"size"`` or a ``"copy"`` on the host.
        place: the user's file and line.
        operator: such as ``"aten.nonzero"``.
        value: the first time: the number, or shapes.
        is_made_up: some time it came from operators that computed nothing.
        count: how often it did at that place.
    """

    what: str
    place: str
    operator: str
    value: str
    is_made_up: bool
    count: int = 1


@dataclass(frozen=True)
class Answer:
    """What came of a script.

    Args:
        status: how it ended.
        message: in one sentence.
        steps: in their order.
        evaluations: in their order.
        knob: what sets the batch.
        place: the user's file and line where it ended or ran out of memory.
        traceback: of the script's own error.
        notes: what was done otherwise than the script says.
        values: what left the GPU, each place once.
        denied: lines at which an allocation failed for want of memory.
        is_benchmarked: the script turned ``cudnn.benchmark`` on.
        allocator: its options, as ``PYTORCH_ALLOC_CONF`` writes them.
        parameters: elements of the models' parameters.
        samples: of the data set that fed the first backward pass; 0 where nobody knows.
        kept: files that were kept from the disk.
        protection: what held.
        tape: of the whole run: the allocator's sequence, joined with parts, modules, phases and the
            user's lines; None where none was asked for or the process did not live to tell.
        exit_code: of the script.
        seconds: that the process took.
        memory_bytes: the most that it held resident.
        output: the end of what it printed.
        engine: what played the card.
    """

    status: Status
    message: str = ""
    steps: tuple[Step, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    knob: Knob = field(default_factory=Knob)
    place: str = ""
    traceback: str = ""
    notes: tuple[str, ...] = ()
    values: tuple[Decided, ...] = ()
    denied: tuple[str, ...] = ()
    is_benchmarked: bool = False
    allocator: str = ""
    parameters: int = 0
    samples: int = 0
    kept: tuple[Kept, ...] = ()
    protection: Protection = Protection.PYTHON
    tape: Tape | None = None
    exit_code: int = 0
    seconds: float = 0.0
    memory_bytes: int = 0
    output: str = ""
    engine: EngineName = "pytorch"

    @property
    def _seen(self) -> tuple[Step | Evaluation, ...]:
        return (*self.steps, *self.evaluations)

    @property
    def peak_allocated_bytes(self) -> int:
        """The most in live blocks, over steps and evaluations."""
        return max((row.allocated_bytes for row in self._seen), default=0)

    @property
    def peak_reserved_bytes(self) -> int:
        """The most in segments, over steps and evaluations."""
        return max((row.reserved_bytes for row in self._seen), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        own["tape"] = None if self.tape is None else rows_of(self.tape)
        for name in ("steps", "evaluations", "values", "kept"):
            own[name] = [asdict(row) for row in own[name]]
        return own | {"knob": asdict(self.knob)}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Answer:
        """What :meth:`to_dict` wrote, through JSON; what is missing is as usual."""
        return cls(**{name: _READ.get(name, _same)(value) for name, value in values.items()})


def _same(value: Any) -> Any:
    return value


def _rows(kind: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda rows: tuple(kind(**row) for row in rows)


_READ: dict[str, Callable[[Any], Any]] = {
    "status": Status,
    "steps": _rows(Step),
    "evaluations": _rows(Evaluation),
    "values": _rows(Decided),
    "kept": _rows(Kept),
    "knob": lambda row: Knob(
        KnobKind(row["kind"]), row["name"], row["batch"], tuple(row["loaders"])
    ),
    "notes": tuple,
    "denied": tuple,
    "protection": Protection,
    "tape": lambda row: None if row is None else tape_of(row),
}
