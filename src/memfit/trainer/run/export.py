"""A run's weights as a file for the rest of the world."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor

from memfit.errors import CheckpointError, RunError, UsageError
from memfit.files.durable import replacing, why_not_written
from memfit.trainer.run.run_folder import RunFolder
from memfit.trainer.weights.checkpoint import content_bytes, load_checkpoint
from memfit.trainer.weights.weights import unwrap

__all__ = ["ExportedWeights", "export_weights", "without_shared"]


@dataclass(frozen=True, slots=True)
class ExportedWeights:
    """What was written.

    Args:
        path: the file.
        checkpoint: where the weights come from.
        averaged: they are the moving average.
        tensors: how many.
        size_bytes: of the file.
        shared: names left out of a ``.safetensors`` file because they are another name's tensor.
    """

    path: Path
    checkpoint: Path
    averaged: bool
    tensors: int
    size_bytes: int
    shared: Mapping[str, str]


def export_weights(
    run: RunFolder,
    target: Path,
    force: bool = False,
    *,
    which: Literal["best", "last"] = "best",
    average: bool = True,
    on_damaged: Callable[[Path, str], None] | None = None,
) -> ExportedWeights:
    """Write the model's weights, and nothing else, to ``.safetensors`` or ``.pt``.

    ``.pt`` is the plain state dict. In ``.safetensors`` a tensor with several names is kept under
    one, the others are in the metadata: ``safetensors.torch.load_model`` and
    :func:`memfit.trainer.weights.weights.load_weights` put them back.

    Args:
        run: finished or not.
        target: ends in ``.safetensors`` or ``.pt``.
        force: overwrite.
        which: checkpoint; the last one where no best one is known.
        average: the moving average of the weights, where the run kept one.
        on_damaged: told the path and the reason of each newer checkpoint passed over.

    Raises:
        UsageError: the target's ending is neither, or it is a folder.
        RunError: the target exists, or cannot be written.
        CheckpointError: there is no usable checkpoint, or no model in it.
    """
    try:
        _check_target(target, force, run.path)
    except OSError as error:
        raise RunError(f"Cannot write {target}: {error.strerror}.") from None
    checkpoint, content = _chosen(run, which, on_damaged)
    averaged = average and bool(content.get("model_average"))
    weights = _model_weights(checkpoint, content, averaged)
    try:
        with replacing(target) as file:
            tensors, shared = _write(file, weights, target.suffix)
        size_bytes = target.stat().st_size
    except OSError as error:
        reason = why_not_written(error, target.parent, content_bytes(weights))
        raise RunError(f"Cannot write {target}: {reason}.") from None
    return ExportedWeights(target, checkpoint, averaged, tensors, size_bytes, shared)


def without_shared(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors that share no memory, and for each name dropped the name that holds its tensor.

    As safetensors 0.8 ``safetensors/torch.py``, ``save_model``: of several names for one tensor
    the first in alphabetical order stays. A part of another tensor becomes a copy.
    """
    kept: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    holders: dict[Any, str] = {}
    storages: set[int] = set()
    for name in sorted(weights):
        tensor = weights[name]
        storage = tensor.untyped_storage().data_ptr()
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in holders:
            dropped[name] = holders[place]
            continue
        holders[place] = name
        kept[name] = tensor.clone() if storage in storages else tensor
        kept[name] = kept[name].contiguous()
        storages.add(storage)
    return {name: kept[name] for name in weights if name in kept}, dropped


def _check_target(target: Path, force: bool, run: Path) -> None:
    if target.resolve().is_relative_to((run / "checkpoints").resolve()):
        raise UsageError(
            f"{target} lies among the run's checkpoints: those are what it resumes from.",
            hint="Write the weights elsewhere.",
        )
    if target.suffix not in (".safetensors", ".pt"):
        raise UsageError(
            f"{target} ends in {target.suffix or 'nothing'}.", hint="Name it .safetensors or .pt."
        )
    if target.is_dir():
        raise UsageError(f"{target} is a folder.")
    if target.exists() and not force:
        raise RunError(f"{target} exists.", hint="Overwrite it with --force.")
    if not target.parent.is_dir():
        raise RunError(f"There is no folder {target.parent} to write {target.name} into.")


def _chosen(
    run: RunFolder, which: Literal["best", "last"], on_damaged: Callable[[Path, str], None] | None
) -> tuple[Path, dict[str, Any]]:
    best = run.checkpoints.best_path
    if which == "best" and best.exists():
        return best, load_checkpoint(best)
    return run.checkpoints.newest(on_damaged)


def _model_weights(path: Path, content: dict[str, Any], averaged: bool) -> dict[str, Tensor]:
    """The model's tensors; what the average lacks (buffers, mostly) is the model's own."""
    weights = unwrap(content.get("model"))
    if averaged:
        weights |= unwrap(content["model_average"])
    if not weights:
        raise CheckpointError(f"{path} holds no model.")
    return weights


def _write(file: BinaryIO, weights: dict[str, Tensor], suffix: str) -> tuple[int, dict[str, str]]:
    if suffix == ".pt":
        whole = io.BytesIO()  # written into directly, a full disk would lose its reason in C++
        torch.save(weights, whole)
        file.write(whole.getbuffer())
        return len(weights), {}
    import safetensors.torch

    kept, dropped = without_shared(weights)
    # "format" is what transformers asks for
    file.write(safetensors.torch.save(kept, {"format": "pt", **dropped}))
    return len(kept), dropped
