"""Everything memfit raises on purpose.

::

    MemfitError                    exit code 1
    ├── UsageError                 2   the question itself is wrong
    │   └── UnknownName            2   a name that does not exist, with the nearest ones
    │       └── UnknownGPU         2   a card that the catalogue does not have
    ├── ModelError                 1   the model could not be built
    │   ├── UserCodeError          1   the user's own file raised, with file and line
    │   └── WeightsMismatch        1   weights of another model: which tensors differ
    ├── StepError                  1   the training step could not be traced
    │   ├── AmbiguousOutput        2   what the output is compared with is not known
    │   ├── InputShapeError        1   the model does not accept the input
    │   ├── NotTraceable           1   a value that only a real run knows was asked for
    │   ├── NothingRecorded        1   nothing of the training step was on the virtual GPU
    │   └── ScriptError            1   a script did not train: its own traceback, or why
    ├── DataError                  1   the data cannot be found, read or believed
    │   └── BadImage               1   one image cannot be read: the file and the reason
    ├── RunError                   1   the run folder cannot be made, opened or written
    │   ├── RunInUse               1   a live process writes to the run
    │   ├── OtherVersion           1   written by a memfit with another format
    │   ├── CannotRedo             1   memory ran out while a sharded model talked
    │   └── CheckpointError        1   a checkpoint cannot be written or read
    │       └── DamagedCheckpoint  1   truncated, altered, or no checkpoint at all
    ├── NonFiniteLoss              1   the loss became infinite or no number
    ├── NoGPU                      1   there is no NVIDIA driver or no GPU to ask
    ├── NoStubs                    1   PyTorch itself cannot run here without a GPU
    ├── DoesNotFit                 3   not even the smallest batch fits
    └── RankStopped                1   another rank failed, and says why
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from enum import IntEnum

__all__ = [
    "AmbiguousOutput",
    "BadImage",
    "CannotRedo",
    "CheckpointError",
    "DamagedCheckpoint",
    "DataError",
    "DoesNotFit",
    "ExitCode",
    "InputShapeError",
    "MemfitError",
    "ModelError",
    "NoGPU",
    "NoStubs",
    "NonFiniteLoss",
    "NotTraceable",
    "NothingRecorded",
    "OtherVersion",
    "RankStopped",
    "RunError",
    "RunInUse",
    "ScriptError",
    "StepError",
    "UnknownGPU",
    "UnknownName",
    "UsageError",
    "UserCodeError",
    "WeightsMismatch",
]


class ExitCode(IntEnum):
    """What a command tells the shell."""

    OK = 0
    ERROR = 1
    USAGE = 2
    DOES_NOT_FIT = 3
    INCOMPLETE = 4


class MemfitError(Exception):
    """Base of all errors that are the caller's to see: a message and an exit code.

    Args:
        message: what went wrong and where.
        hint: what to try, in one sentence; printed on a line of its own.
    """

    exit_code: ExitCode = ExitCode.ERROR
    #: Whether this rank is the one to tell it; None: nobody knows of other ranks yet.
    is_of_rank: bool | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(MemfitError, ValueError):
    """The question itself is wrong: a zero batch, a shape that is no shape."""

    exit_code = ExitCode.USAGE


class UnknownName(UsageError):
    """A name that does not exist, with the nearest ones that do.

    Args:
        kind: what was looked for, such as ``"GPU"`` or ``"optimizer"``.
        name: what was given.
        known: the names that exist.
        hint: replaces the suggestion when given.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], *, hint: str | None = None
    ) -> None:
        choices = sorted(set(known))
        self.nearest = difflib.get_close_matches(name.lower(), choices, n=4, cutoff=0.5)
        if hint is None:
            if self.nearest:
                hint = f"Did you mean {' or '.join(self.nearest)}?"
            elif 0 < len(choices) <= 12:
                hint = f"Known: {', '.join(choices)}."
        super().__init__(f"Unknown {kind} {name!r}.", hint=hint)


class UnknownGPU(UnknownName, KeyError):
    """A GPU that the catalogue does not have, with the nearest that it has."""


class ModelError(MemfitError):
    """The model could not be built."""


class UserCodeError(ModelError):
    """The user's own file raised; the message carries its error, file and line."""


class WeightsMismatch(ModelError):
    """Weights of another model: the message lists the tensors that differ."""


class StepError(MemfitError):
    """The training step could not be traced."""


class AmbiguousOutput(StepError):
    """The model's output can be meant in several ways.

    Args:
        message: what it returns.
        answers: losses that it may be trained with, and what each would mean.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, answers: Iterable[tuple[str, str]]) -> None:
        self.answers = tuple(answers)
        width = max((len(loss) for loss, _ in self.answers), default=0)
        lines = [f"  --loss {loss:{width}}  {meaning}" for loss, meaning in self.answers]
        super().__init__(message, hint="\n".join(["Say the loss, such as:", *lines]))


class InputShapeError(StepError):
    """The model does not accept the input: names the module, the expected and the given shape."""


class NotTraceable(StepError):
    """The step asks for a value that only a real run knows, such as ``loss.item()``."""


class NothingRecorded(StepError):
    """Nothing of the training step was on the virtual GPU."""


class ScriptError(StepError):
    """A script did not train.

    Args:
        message: how it ended.
        said: its own traceback, cut to its own frames, or the end of what it printed.
        hint: what was seen on the way.
    """

    def __init__(self, message: str, *, said: str = "", hint: str | None = None) -> None:
        super().__init__(f"{message}\n{said}".rstrip(), hint=hint)


class DataError(MemfitError):
    """The data cannot be found, read or believed."""


class BadImage(DataError):
    """One image cannot be read.

    Args:
        name: the file, or the place in an array, such as ``"train[17]"``.
        reason: why, in a few words, such as ``"truncated"``.
        hint: what to try.
    """

    def __init__(self, name: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{name}: {reason}.", hint=hint)
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str]]:
        """Worker processes send it home by its parts."""
        return (type(self), (self.name, self.reason))


class RunError(MemfitError):
    """The run folder cannot be made, opened or written."""


class RunInUse(RunError):
    """A live process writes to the run."""


class OtherVersion(RunError):
    """Written by a memfit whose run folders or checkpoints have another format."""


class CannotRedo(RunError):
    """Memory ran out while a sharded model talked: the other ranks wait, and cannot be told.

    Args:
        where: what was under way.
        size: of the micro-batch.
        smaller: what the next start takes; None as long as it is not known.
        hint: how to start.
    """

    def __init__(
        self, where: str, size: int, smaller: int | None = None, hint: str | None = None
    ) -> None:
        then = "" if smaller is None else f" The next start takes {smaller}."
        super().__init__(
            f"Memory ran out in {where}, with a micro-batch of {size}; a sharded run cannot do "
            f"that again.{then}",
            hint=hint,
        )
        self.where, self.size = where, size


class CheckpointError(RunError):
    """A checkpoint cannot be written or read: the path and the reason."""


class DamagedCheckpoint(CheckpointError):
    """Truncated, altered, or no checkpoint at all.

    Args:
        path: the file.
        reason: why, in a few words.
        hint: what to try.
    """

    def __init__(self, path: object, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path} is no usable checkpoint: {reason}.", hint=hint)
        self.reason = reason


class NonFiniteLoss(MemfitError):
    """The loss became infinite or no number.

    Args:
        step: the optimizer step that was not taken.
        loss: what it was.
        samples: names of the samples of the batch.
        weights_are_finite: whether the model is sound; else a gradient before broke it.
    """

    def __init__(
        self, step: int, loss: float, samples: Sequence[str], weights_are_finite: bool = True
    ) -> None:
        shown = ", ".join(samples[:8])
        more = f" and {len(samples) - 8} more" if len(samples) > 8 else ""
        super().__init__(
            f"The loss of step {step} is {loss}. Its batch: {shown}{more}.",
            hint=("The model is as it was before the step. " if weights_are_finite else
                  "A gradient of the step before was no number, and spoilt the weights; the last "
                  "checkpoint is sound. ")
            + "A smaller learning rate, a longer warm-up or clipping (--clip-grad-norm 1) usually "
            "helps; fp16 overflows where bf16 does not.",
        )  # fmt: skip
        self.step, self.samples = step, list(samples)
        self.weights_are_finite = weights_are_finite


class NoGPU(MemfitError):
    """There is no NVIDIA driver or no GPU to ask."""


class NoStubs(MemfitError):
    """PyTorch's CUDA build cannot run here without a GPU; the message says what is missing."""


class DoesNotFit(MemfitError):
    """Not even the smallest batch fits the device."""

    exit_code = ExitCode.DOES_NOT_FIT


class RankStopped(MemfitError):
    """Another rank failed, and says why; this one has nothing to add."""

    is_of_rank = False

    def __init__(self) -> None:
        super().__init__("Another rank failed.")
