"""The knob: what in a script's arguments says how many samples a batch has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Flag", "Knob", "KnobKind", "find_flag", "is_template", "with_batch"]

_TEMPLATE = "{batch}"
#: Last words of names that mean the training batch, without dashes, underscores and case.
_NAMES = {
    "b", "bs", "bsz", "batch", "batchsize", "minibatch", "minibatchsize", "microbatch",
    "microbatchsize", "trainbatch", "trainbatchsize", "batchsizetrain", "perdevicetrainbatchsize",
    "perdevicebatchsize", "pergputrainbatchsize", "pergpubatchsize", "batchsizepergpu",
    "batchsizeperdevice", "samplespergpu", "imagespergpu", "imsperbatch",
}  # fmt: skip
_JOINED = re.compile(r"((?:--?|\+{0,2}~?)[A-Za-z][\w.\-/@]*)=(\d+)")
_SHORT = re.compile(r"-b(\d+)")


class KnobKind(StrEnum):
    """Where a batch is set."""

    TEMPLATE = "template"  # ``{batch}`` in the arguments
    FLAG = "flag"
    LOADER = "loader"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Knob:
    """What sets a script's batch.

    Args:
        kind: where.
        name: such as ``"--batch-size"``.
        batch: what it is set to; None where nobody knows.
        loaders: numbers, in the order of making, of the loaders that fed the first backward.
    """

    kind: KnobKind = KnobKind.NONE
    name: str = ""
    batch: int | None = None
    loaders: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Flag:
    """A number in the arguments.

    Args:
        name: as it is written there.
        batch: the number.
        index: of the argument that holds it.
        prefix: of that argument, before the number.
    """

    name: str
    batch: int
    index: int
    prefix: str = ""


def is_template(arguments: Sequence[str]) -> bool:
    """Whether the arguments say ``{batch}``."""
    return any(_TEMPLATE in word for word in arguments)


def find_flag(arguments: Sequence[str]) -> Flag | None:
    """The first argument that is known to set the training batch.

    Example:
        >>> find_flag(["--lr", "0.1", "--batch-size", "64"])
        Flag(name='--batch-size', batch=64, index=3, prefix='')
        >>> find_flag(["train.batch_size=8"])
        Flag(name='train.batch_size', batch=8, index=0, prefix='train.batch_size=')
        >>> find_flag(["--test-batch-size", "64"]) is None
        True
    """
    for index, word in enumerate(arguments):
        if joined := _JOINED.fullmatch(word):
            if _means_batch(joined[1]):
                return Flag(joined[1], int(joined[2]), index, f"{joined[1]}=")
        elif short := _SHORT.fullmatch(word):
            return Flag("-b", int(short[1]), index, "-b")
        elif word.startswith("-") and _means_batch(word) and index + 1 < len(arguments):
            value = arguments[index + 1]
            if value.isdecimal():
                return Flag(word, int(value), index + 1)
    return None


def with_batch(arguments: Sequence[str], batch: int) -> tuple[str, ...]:
    """The arguments with another batch, where they have one."""
    if is_template(arguments):
        return tuple(word.replace(_TEMPLATE, str(batch)) for word in arguments)
    flag = find_flag(arguments)
    if flag is None:
        return tuple(arguments)
    words = list(arguments)
    words[flag.index] = f"{flag.prefix}{batch}"
    return tuple(words)


def _means_batch(name: str) -> bool:
    *groups, last = re.split(r"[./]", name.lstrip("-+~"))
    word = re.sub(r"[-_]", "", last).lower()
    is_other = any(re.search(r"val|test|eval", group.lower()) for group in groups)
    return word in _NAMES and not is_other
