"""From what the user passed as MODEL to a model on meta."""

from __future__ import annotations

import difflib
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from memfit.errors import ModelError, UnknownName, UsageError
from memfit.models.built import BuiltModel
from memfit.models.builtin import build_builtin, builtin_names
from memfit.models.meta import for_training, materialise_lazy, meta_twin, unwrapped
from memfit.models.optional import is_installed
from memfit.models.timm_models import build_timm, is_timm_name, timm_names
from memfit.models.torchvision_models import build_torchvision, torchvision_names
from memfit.models.transformers_models import build_transformers, transformers_names
from memfit.models.user_code import (
    construct_from_callable,
    construct_from_spec,
    example_beside,
)

__all__ = ["build", "build_for_training", "model_names"]

_LIBRARIES = {
    "torchvision": torchvision_names, "timm": timm_names, "transformers": transformers_names
}  # fmt: skip
_SOURCES = ("builtin", *_LIBRARIES)

# Building redirects parameters and the import path process-wide for a moment.
_BUILDING = threading.RLock()


def build(
    model: str | nn.Module | Callable[[], nn.Module],
    *,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
) -> BuiltModel:
    """Build a model with shapes only: no weights, no memory, no network, no random numbers drawn.

    Args:
        model: ``"resnet50"`` (sought in the built-ins, torchvision, timm), ``"torchvision:NAME"``,
            ``"timm:NAME"``, ``"transformers:NAME"`` or ``"transformers:NAME#TASK"``,
            ``"path/to/file.py:NAME"``, ``"package.module:NAME"``, a module (which is left
            untouched), or a function or class that yields one.
        input_shape: one sample, ``(C, H, W)`` for images, ``(L,)`` for token ids; the model's own
            when None.
        num_classes: the model's own when None. A module instance and a language model keep theirs.

    Returns:
        The module on the meta device, in training mode. A module instance that is in training mode
        keeps the modes of its parts, such as a batch norm frozen in evaluation mode.

    Raises:
        UnknownName: no model of this name; carries the nearest ones.
        UsageError: a shape or a number of classes that is none.
        ModelError: it exists and could not be built.
        UserCodeError: the user's own code raised.
        InputShapeError: this architecture cannot be built for ``input_shape``.

    >>> built = build("mlp")
    >>> sum(parameter.numel() for parameter in built.module.parameters())
    101770
    """
    if input_shape is not None and (not input_shape or any(size < 1 for size in input_shape)):
        raise UsageError(f"{input_shape} is no input shape.", hint="Write it like 3x224x224.")
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"{num_classes} is no number of classes.")
    with _BUILDING:
        if isinstance(model, str):
            built = _build_spec(model.strip(), input_shape, num_classes)
        elif isinstance(model, nn.Module):
            built = _from_user(model, None, input_shape, None)
        elif callable(model):
            module = construct_from_callable(model, input_shape, num_classes)
            built = _from_user(module, None, input_shape, num_classes)
        else:
            raise UsageError(f"A model is a name, a module or a function, not {model!r}.")
    if not built.module.training:
        built.module.train()
    return built


def build_for_training(
    model: str | nn.Module | Callable[[], nn.Module],
    *,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    seed: int = 0,
) -> BuiltModel:
    """Build a model with real weights on the CPU, initialised from ``seed``.

    Arguments, result and errors are those of :func:`build`; a module instance is used as it is.
    """
    with for_training(seed):
        return build(model, input_shape=input_shape, num_classes=num_classes)


def model_names(source: str | None = None) -> list[str]:
    """Full specifications of the models that can be named, sorted within each source.

    Args:
        source: ``"builtin"``, ``"torchvision"``, ``"timm"`` or ``"transformers"``; None for all.
            timm's are missing when it is not installed.
    """
    if source is not None and source not in _SOURCES:
        raise UnknownName("model source", source, _SOURCES)
    names = builtin_names() if source in (None, "builtin") else []
    for library, names_of in _LIBRARIES.items():
        if source in (None, library) and (library != "timm" or is_installed("timm")):
            names += [f"{library}:{name}" for name in names_of()]
    return names


def _build_spec(
    spec: str, input_shape: tuple[int, ...] | None, num_classes: int | None
) -> BuiltModel:
    source, colon, name = spec.partition(":")
    if not colon:
        source, name = _source_of(spec), spec
    if source == "builtin" and not colon:
        return build_builtin(name, input_shape, num_classes)
    if source == "torchvision" and name in torchvision_names():
        return build_torchvision(name, input_shape, num_classes)
    if source == "timm" and is_timm_name(name):
        return build_timm(name, input_shape, num_classes)
    if source == "transformers":
        return build_transformers(name, input_shape, num_classes)
    if source in _SOURCES:
        raise _unknown(spec)
    module = construct_from_spec(spec, input_shape, num_classes)
    built = _from_user(module, spec, input_shape, num_classes)
    return built if built.example else replace(built, example=example_beside(spec))


def _source_of(name: str) -> str:
    """Where a bare name is found first: the built-ins, torchvision, timm."""
    if name in builtin_names():
        return "builtin"
    if name in torchvision_names():
        return "torchvision"
    if is_installed("timm") and is_timm_name(name):
        return "timm"
    if name.endswith(".py"):
        missing = "" if Path(name).is_file() else " (and there is no such file)"
        raise ModelError(
            f"{name} does not say what to build{missing}.",
            hint=f"Write {name}:NAME, where NAME is a function, a class or a model in it.",
        )
    raise _unknown(name)


def _unknown(spec: str) -> UnknownName:
    """The nearest names of all sources, those of the source asked for first."""
    source, colon, bare = spec.rpartition(":")
    known = model_names()
    specs: dict[str, list[str]] = defaultdict(list)
    for full in known:
        specs[full.rpartition(":")[2].lower()].append(full)
    close = difflib.get_close_matches(bare.lower(), specs, n=4, cutoff=0.6)
    nearest = [full for name in close for full in specs[name]]
    nearest.sort(key=lambda full: not full.startswith(source + colon))
    hint = (
        f"Did you mean {' or '.join(nearest[:4])}?"
        if nearest
        else ("Give torchvision:NAME, timm:NAME, transformers:NAME or path/to/file.py:NAME.")
    )
    error = UnknownName("model", spec, known, hint=hint)
    error.nearest = nearest[:4]
    return error


def _from_user(
    module: nn.Module,
    name: str | None,
    input_shape: tuple[int, ...] | None,
    num_classes: int | None,
) -> BuiltModel:
    module, wrappers = unwrapped(module)
    twin = meta_twin(module)
    materialise_lazy(twin, input_shape)
    example = getattr(twin, "example_batch", None)
    return BuiltModel(
        twin, name or type(twin).__name__, input_shape, num_classes,
        example=example if callable(example) else None, wrappers=wrappers,
    )  # fmt: skip
