"""Names that a request may use; every one that is not on a list is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfit.errors import UnknownName

__all__ = ["KnownNames", "listed"]

_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class KnownNames:
    """What can be asked for.

    Args:
        models: full names by kind: ``builtin``, ``torchvision``, ``timm``, ``transformers``, and
            ``named`` on the command line.
        optimizers: names that a recipe knows.
        datasets: named on the command line, generated, or on this disk.
        torch_version: of the workers.
    """

    models: Mapping[str, Sequence[str]]
    optimizers: Sequence[str]
    datasets: Sequence[str]
    torch_version: str

    @classmethod
    def of(cls, hello: Mapping[str, Any], models: Sequence[str], data: Sequence[str]) -> KnownNames:
        """What a worker knows, and what the person who started the server named."""
        datasets = dict.fromkeys((*data, "shapes", *hello["datasets"]))
        return cls(
            {"named": models, **hello["models"]},
            hello["optimizers"],
            list(datasets),
            hello["torch_version"],
        )

    def model(self, name: str) -> str:
        """The full name of a model: as it is listed, or without its library's name.

        Raises:
            UnknownName: it is not listed; nothing is looked up or imported.
        """
        listed_names = {full for names in self.models.values() for full in names}
        if name in listed_names:
            return name
        for library in ("torchvision", "timm"):
            if f"{library}:{name}" in listed_names:
                return f"{library}:{name}"
        raise UnknownName("model", _short(name), listed_names, hint=_hint(name))

    def written(self, name: str) -> tuple[int, int] | None:
        """When the file of a model of one's own was last written, and its size.

        Whoever edits it and asks again gets a new plan. None for all other models.
        """
        path, colon, _ = name.rpartition(":")
        if not colon or name not in self.models["named"]:
            return None
        try:
            state = Path(path).stat()
        except OSError:
            return None  # a module, or gone: the worker says so
        return state.st_mtime_ns, state.st_size


def listed(kind: str, name: str, names: Iterable[str]) -> str:
    """A name that is on a list.

    Raises:
        UnknownName: it is not.
    """
    known = list(names)
    if name not in known:
        raise UnknownName(kind, _short(name), known)
    return name


def _hint(name: str) -> str | None:
    """Code is only for the person at the terminal to name."""
    if name.partition(":")[0] in ("torchvision", "timm", "transformers") or ":" not in name:
        return None
    return "Models of your own are named when the server starts: memfit serve path/to/file.py:build"


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…"
