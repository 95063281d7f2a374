"""Weights from a local file, and what of them a model takes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memfit.errors import ModelError, WeightsMismatch
from memfit.trainer.weights.checkpoint import unpickling_reason

__all__ = ["AppliedWeights", "apply_weights", "load_weights", "unwrap"]

#: Where files keep the weights, best first: averaged weights before the last ones (memfit's own
#: key; ``state_dict_ema`` and ``model_ema`` as in timm 1.0 ``timm/models/_helpers.py``).
_WRAPPERS = (
    "model_average", "state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model",
)  # fmt: skip
#: Put before each name by DistributedDataParallel and AveragedModel, and by torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
#: Not weights, and filled in by BatchNorm where old files lack it
#: (torch 2.15, ``torch/nn/modules/batchnorm.py``, ``_NormBase._load_from_state_dict``).
_FILLED_IN = "num_batches_tracked"
_LISTED = 10


@dataclass(frozen=True, slots=True)
class AppliedWeights:
    """What a model took from a file; each a list of names in the model's order.

    Args:
        loaded: set from the file.
        missing: in the model only; as they were before.
        unexpected: in the file only.
        reshaped: of another shape in the file; as they were before.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read weights from ``.safetensors`` or anything that ``torch.save`` wrote, onto the CPU.

    Wrappers (``{"state_dict": …}``, ``{"model": …}``, a checkpoint of memfit) and the prefixes of
    DistributedDataParallel and torch.compile are taken off. No code in the file is run.

    Raises:
        ModelError: no such file, damaged, or no weights in it.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise ModelError(f"Cannot read weights from {path}: {error.strerror}.") from None
    content = _from_safetensors(path) if path.suffix == ".safetensors" else _from_torch(path)
    weights = unwrap(content)
    if not weights:
        raise ModelError(
            f"{path} holds no weights.", hint="Write it with torch.save(model.state_dict(), path)."
        )
    return weights


def unwrap(content: Any) -> dict[str, Tensor]:
    """The tensors by name in a state dict, however wrapped; empty when there are none."""
    wrapped = _mapping_within(content)
    while wrapped is not None:
        content, wrapped = wrapped, _mapping_within(wrapped)
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    # torch.optim.swa_utils.AveragedModel keeps its count beside the prefixed names
    if any(name.startswith("module.") for name in tensors):
        tensors.pop("n_averaged", None)
    return _without_prefixes(tensors)


def apply_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, allow_head_mismatch: bool
) -> AppliedWeights:
    """Copy weights into a model; all of them, or (fine-tuning) all but the classifier's head.

    The head is what ``model.get_classifier()`` names (timm), else the model's last layer; auxiliary
    heads with the same numbers of classes count with it.

    Args:
        model: keeps its dtype and device.
        weights: by name in the model.
        allow_head_mismatch: leave a head as it is that is missing or has other classes.

    Raises:
        WeightsMismatch: names or shapes differ; lists them. The model is as it was.
    """
    own = model.state_dict()
    missing = [n for n in own if n not in weights and n.rpartition(".")[2] != _FILLED_IN]
    unexpected = [name for name in weights if name not in own]
    reshaped = [n for n in own if n in weights and own[n].shape != weights[n].shape]
    differing = {*missing, *unexpected, *reshaped}
    if differing:
        head = _head_names(model, own, weights) if allow_head_mismatch else set()
        if differing - head:
            raise _mismatch(own, weights, missing, unexpected, reshaped, allow_head_mismatch)
    loaded = [name for name in own if name in weights and name not in reshaped]
    model.load_state_dict({name: weights[name] for name in loaded}, strict=False)
    return AppliedWeights(tuple(loaded), tuple(missing), tuple(unexpected), tuple(reshaped))


def _from_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript files, which then fail anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever a strange file leads it to
        raise ModelError(
            f"{path} cannot be read as weights: {unpickling_reason(error)}.",
            hint="It is damaged, or holds more than tensors. Files with code in them are never "
            "run: write one with torch.save(model.state_dict(), path).",
        ) from None


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            aliases = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        reason = str(error).rstrip(".")
        raise ModelError(f"{path} cannot be read as weights: {reason}.") from None
    # safetensors.torch.save_model notes which names of a shared tensor it dropped
    shared = {name: tensors[kept] for name, kept in aliases.items() if kept in tensors}
    return shared | tensors


def _mapping_within(content: Any) -> Mapping[str, Any] | None:
    if not isinstance(content, Mapping):
        return None
    inside = (content.get(name) for name in _WRAPPERS)
    return next((entry for entry in inside if isinstance(entry, Mapping) and entry), None)


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            cut = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
            return _without_prefixes(cut)
    return tensors


def _head_names(
    model: nn.Module, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> set[str]:
    """Names, in the model and in the file, whose difference is only one of classes."""
    modules = _head_modules(model)
    names = {name for name in own if name.rpartition(".")[0] in modules}
    if not names & weights.keys():
        # the file's head has another name, or only one of them has a head: the file's last layer
        last = {name.rpartition(".")[0] for name in list(weights)[-1:]}
        others = {name for name in weights if name.rpartition(".")[0] in last}
        names |= set() if others & own.keys() else others
    names -= {n for n in names if n in own and n in weights and not _only_classes(own, weights, n)}
    classes = {(own[n].shape[0], weights[n].shape[0]) for n in names if n in own and n in weights}
    return names | {
        name
        for name in own
        if name in weights
        and _only_classes(own, weights, name)
        and (own[name].shape[0], weights[name].shape[0]) in classes
    }


def _head_modules(model: nn.Module) -> set[str]:
    named = {module: name for name, module in model.named_modules()}
    classifier = getattr(model, "get_classifier", None)
    if callable(classifier):
        found = classifier()
        heads = found if isinstance(found, (tuple, list)) else (found,)
        return {
            named[head] for head in heads if head in named and not isinstance(head, nn.Identity)
        }
    layers = [
        name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    return set(layers[-1:])


def _only_classes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], name: str) -> bool:
    ours, theirs = own[name].shape, weights[name].shape
    return len(ours) == len(theirs) > 0 and ours[1:] == theirs[1:]


def _mismatch(
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    reshaped: list[str],
    head_allowed: bool,
) -> WeightsMismatch:
    lines = [
        *(f"{n}: {_shape(weights[n])} in the file, {_shape(own[n])} here" for n in reshaped),
        *(f"{n}: not in the file, {_shape(own[n])} here" for n in missing),
        *(f"{n}: {_shape(weights[n])} in the file, not here" for n in unexpected),
    ]
    left_out = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    shared = sum(name in own and own[name].shape == weights[name].shape for name in weights)
    hint = "Build the model that the weights are from: the same name, classes and channels."
    if head_allowed:
        hint = "Only the classifier's head may differ. " + hint
    return WeightsMismatch(
        f"The weights are of another model: {len(lines)} tensors differ, {shared} agree.\n"
        + "\n".join(f"  {line}" for line in lines[:_LISTED] + left_out),
        hint=hint,
    )


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"
