"""``memfit export``: a trained run's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from memfit.commands.shared.flags import OnOff, Switch
from memfit.commands.shared.output import write
from memfit.errors import ExitCode
from memfit.units import format_bytes

__all__ = ["export"]


def export(
    run: Path,
    target: Path,
    /,
    *,
    which: Literal["best", "last"] = "best",
    average: OnOff = True,
    force: Switch = False,
) -> int:
    """Write a run's weights, and nothing else, to a .safetensors or .pt file.

    Parameters
    ----------
    run:
        A run's folder.
    target:
        Ends in .safetensors or .pt.
    which:
        Checkpoint: best or last.
    average:
        The moving average of the weights, where the run kept one.
    force:
        Overwrite.
    """
    from memfit.trainer.run.export import export_weights
    from memfit.trainer.run.run_folder import RunFolder

    done = export_weights(RunFolder.open(run), target, force, which=which, average=average)
    kind = "averaged weights" if done.averaged else "weights"
    write(f"{done.path}: {kind}, {done.tensors} tensors, {format_bytes(done.size_bytes)}\n")
    return ExitCode.OK
