"""Speed and noise for a study: measured once, then read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from memfit.progress import TimeLeft
from memfit.step.job import Job
from memfit.study.folder import StudyFolder

if TYPE_CHECKING:
    from memfit.study.measuring.noise import NoisePoint
    from memfit.study.measuring.throughput import Throughput

__all__ = ["measured_noise", "measured_speed"]

_REPEATS = 5
#: Micro-batches of each step whose gradients are measured, and steps that are measured at most.
_MICRO_BATCHES, _MEASURED_STEPS = 8, 200


def measured_speed(
    folder: StudyFolder,
    job: Job,
    batch_sizes: Sequence[int],
    seconds_each: float,
    device: str,
    pace: TimeLeft,
) -> tuple[Throughput, ...]:
    """Samples/s of every batch size, all measured together: no drift between them.

    Args:
        folder: of the study.
        job: of the study.
        batch_sizes: global.
        seconds_each: for each of the repeats of each batch size.
        device: as for :func:`memfit.train`.
        pace: of the whole study.
    """
    from memfit.study.measuring.throughput import Throughput, measure_throughput

    known = folder.read("throughput.json")
    if known is not None:
        points = {p["batch_size"]: p for p in known["points"]}
        if all(batch in points for batch in batch_sizes):
            return tuple(
                Throughput(**points[b] | {"seconds": tuple(points[b]["seconds"])})
                for b in batch_sizes
            )
    expected = seconds_each * _REPEATS * len(batch_sizes)
    pace.expect("speed", expected)
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        pace.work("speed", expected * (done - told) / max(1, total))
        told = done

    found = measure_throughput(
        job.but(batch_size=None, global_batch=None, accumulation=1),
        batch_sizes,
        seconds_each=seconds_each,
        repeats=_REPEATS,
        device=device,
        progress=progress,
    )
    folder.write(
        "throughput.json", {"schema_version": 1, "points": [asdict(point) for point in found]}
    )
    return tuple(found)


def measured_noise(
    folder: StudyFolder,
    job: Job,
    steps: int,
    batch: int,
    device: str,
    by_layer: bool,
    pace: TimeLeft,
) -> tuple[tuple[NoisePoint, ...], tuple[str, ...]]:
    """The noise scale while the recipe trains, and what to know about it.

    Args:
        folder: of the study.
        job: with the learning rate and the batch to measure at.
        steps: of the training.
        batch: global.
        device: as for :func:`memfit.train`.
        by_layer: groups of layers, too.
        pace: of the whole study.
    """
    from memfit.study.measuring.noise import NoisePoint, NoiseScale, measure_noise

    made = {"batch": batch, "steps": steps, "lr": job.recipe.lr, "by_layer": by_layer}
    known = folder.read("noise.json")
    if known is not None and known["made"] == made:
        points = [
            NoisePoint(
                p["step"],
                p["epoch"],
                NoiseScale(**p["noise"]),
                p["layers"] and {k: NoiseScale(**v) for k, v in p["layers"].items()},
            )
            for p in known["points"]
        ]
        return tuple(points), tuple(known["notes"])
    parts = max(d for d in range(1, _MICRO_BATCHES + 1) if batch % d == 0)
    if parts < 2:
        return (), (f"The noise scale was not measured: a batch of {batch} cannot be divided.",)
    found = measure_noise(
        job,
        steps=steps,
        micro_batch=batch // parts,
        micro_batches=parts,
        every=max(1, steps // _MEASURED_STEPS),
        device=device,
        by_layer=by_layer,
    )
    notes = found.notes
    content = {"schema_version": 1, "made": made, "points": [asdict(p) for p in found]}
    folder.write("noise.json", content | {"notes": notes})
    pace.expect("gradient noise", 0.0)
    return tuple(found), notes
