"""What users give as Python objects: it travels beside the recipe, which only names it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any

__all__ = ["Own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A user's own objects, each for the field of a recipe that has its name.

    Args:
        model: an ``nn.Module``, or a callable that makes one.
        data: an opened ``memfit.data.Dataset``, or an object with ``__len__`` and
            ``__getitem__``; or a ``Path``, which is never a named set.
        optimizer: takes the parameters that train, returns a ``torch.optim.Optimizer``.
        transform: done to each uint8 image ``(C, H, W)`` in a worker.
        loss: ``(output, target) -> scalar``.
        step: ``(model, inputs, targets) -> loss``; or a class that does whole steps itself, with as
            many models and optimizers as it likes: made of the model, then called with inputs and
            targets.
    """

    model: Any = None
    data: Any = None
    optimizer: Any = None
    transform: Any = None
    loss: Any = None
    step: Any = None

    def given(self) -> dict[str, Any]:
        """Those that there are, by field."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def split(cls, values: Mapping[str, Any]) -> tuple[dict[str, Any], Own]:
        """Fields of a recipe with every object's name in its place, and the objects.

        >>> plain, own = Own.split({"model": print, "optimizer": "adamw"})
        >>> plain
        {'model': 'print', 'optimizer': 'adamw'}
        >>> own.model
        <built-in function print>
        """
        names = [field.name for field in fields(cls)]
        given = {name: values[name] for name in names if not _is_plain(values.get(name))}
        return {**values, **{name: _name_of(value) for name, value in given.items()}}, cls(**given)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, Mapping, NoneType))


def _name_of(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    for attribute in ("__qualname__", "name"):  # of a function or class; of a data set
        if isinstance(name := getattr(value, attribute, None), str):
            return name
    return type(value).__qualname__
