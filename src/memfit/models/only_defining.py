"""A user's file defines a model; what would train or write is stopped before it does.

The text is read first (:mod:`memfit.models.reading`). What it cannot show, since it comes from a
library or is made up while it runs, is stopped when it happens.
"""

from __future__ import annotations

import argparse
import builtins
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import currentframe
from pathlib import Path
from typing import Any

import torch

from memfit.errors import UsageError
from memfit.models.reading import first_deed
from memfit.places import is_users, place_of
from memfit.torch_inside import replaced

__all__ = ["only_building", "only_defining", "refuse_deeds"]


def refuse_deeds(path: Path, attribute: str, roots: tuple[Path, ...]) -> None:
    """Refuse a file that does more than define when it is imported, or whose builder trains.

    Args:
        path: the file.
        attribute: what is built from it.
        roots: folders from which it imports modules of its own.

    Raises:
        UsageError: names the line, and what it does.
    """
    deed = first_deed(path, attribute, roots)
    if deed is not None:
        raise _refusal(f"{deed.path.name}, line {deed.line}", deed.does)


@contextmanager
def only_building() -> Iterator[None]:
    """Inside, nothing trains.

    Raises:
        UsageError: a backward pass began.
    """
    with replaced([(torch.autograd, "backward", _stopping("trains"))]):
        yield


@contextmanager
def only_defining() -> Iterator[None]:
    """Inside, nothing trains, asks for arguments or writes a file; libraries may keep caches.

    Raises:
        UsageError: it would have.
    """
    parse, write = argparse.ArgumentParser.parse_known_args, builtins.open

    def parse_given(parser: Any, args: Any = None, *more: Any) -> Any:
        if args is None:
            _stopping("parses arguments")()
        return parse(parser, args, *more)

    def read(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        frame = currentframe()
        asker = frame and frame.f_back and frame.f_back.f_back  # behind what checks the thread
        if set("wax+") & set(mode) and asker and is_users(asker.f_code.co_filename):
            _stopping("writes to the disk")()
        return write(file, mode, *more, **options)

    stopped = [
        (argparse.ArgumentParser, "parse_known_args", parse_given),
        (builtins, "open", read),
        (torch, "save", _stopping("writes to the disk")),
    ]
    with only_building(), replaced(stopped):
        yield


def _stopping(does: str) -> Callable[..., Any]:
    def stop(*_: Any, **__: Any) -> Any:
        place = place_of(currentframe()) or "A library"
        raise _refusal(place.replace(":", ", line "), does)

    return stop


def _refusal(place: str, does: str) -> UsageError:
    file = place.partition(",")[0]
    return UsageError(
        f"{place}, {does}: memfit imports what defines a model, and never trains to plan.",
        hint=f"memfit run {file} takes a script as it is; or put what is no definition under "
        'if __name__ == "__main__":',
    )
