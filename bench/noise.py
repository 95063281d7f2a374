"""The gradient noise scale: how often its interval is right, and its value beside published ones.

    python bench/noise.py [--mnist DIR] [--cifar DIR] [--part coverage|mnist|epochs|published|cifar]

- ``coverage``: a quadratic loss whose noise scale is known, 200 steps: how many of 1,000 intervals
  of 95 % hold it.
- ``mnist``: MNIST, two convolutions without BatchNorm, SGD with learning rate 0.01, batch 128
  measured as 8 micro-batches of 16, the first epoch.
- ``epochs``: the same for five epochs: the noise scale grows as the gradient shrinks.
- ``published``: the published re-run of McCandlish et al. 2018 on MNIST
  (github.com/shreyansh26/An-Empirical-Model-of-Large-Batch-Training, "about 870"): its network
  (four strided convolutions, each with a residual block with BatchNorm), its learning rate 0.01
  and batch 128, and its way to measure. There the large batch is 20 batches **in sequence**, while
  the weights move on, and the small one is the last of them. Beside it the same network and
  batches with all 20 gradients taken at the weights before the first of them, which is what the
  formulas ask for.
- ``cifar``: a folder of CIFAR-10 as JPEG files, three strided convolutions with such blocks, SGD
  with momentum 0.9 and learning rate 0.05, batch 128 measured as 4 micro-batches of 32, eight
  epochs.

Writes ``bench/results/noise.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memfit.data import loader
from memfit.step.job import Job, resolve
from memfit.study.measuring.noise import NoiseMeasurement, measure_noise, noise_scale

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "bench" / "results" / "noise.json"
BATCH, LR, IN_SEQUENCE = 128, 0.01, 20
#: McCandlish et al. 2018, table 1: B_simple at the start and on average.
PAPER = {"mnist": {"start": 50, "average": 900}, "cifar10": {"start": 400, "average": 2000}}
RERUN = 870


def coverage(seeds: int = 1000, steps: int = 200, micro_batches: int = 8) -> dict[str, Any]:
    """Gradients normal around a mean of norm 1, with the trace of their covariance 100."""
    spread = np.linspace(0.5, 1.5, 20)
    spread *= np.sqrt(100 / (spread**2).sum())
    inside, values = 0, []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        noise = random.standard_normal((steps, micro_batches, 20)) * spread / np.sqrt(8)
        gradients = noise + 1 / np.sqrt(20)
        large = gradients.mean(axis=1)
        found = noise_scale(
            (gradients**2).sum(2).mean(1), (large**2).sum(1), 8, 8 * micro_batches,
            resamples=1000, seed=seed,
        )  # fmt: skip
        inside += found.low <= 100 <= found.high
        values.append((found.grad_norm_squared, found.trace))
    squared, trace = np.mean(values, axis=0)
    return {
        "seeds": seeds,
        "steps": steps,
        "inside_of_1000": round(1000 * inside / seeds),
        "grad_norm_squared_of_1": round(float(squared), 5),
        "trace_of_100": round(float(trace), 3),
    }


def small_cnn(channels: int, size: int) -> nn.Module:
    """Two convolutions and a linear layer, no BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * (size // 4) ** 2, 10),
    )  # fmt: skip


def measured(
    job: Job, images: int, *, seeds: int = 1, epochs: int = 1, micro_batch: int = 16,
    every: int = 1,
) -> list[dict[str, Any]]:  # fmt: skip
    """The first epochs, for several seeds."""
    rows = []
    for seed in range(seeds):
        start = time.perf_counter()
        found = measure_noise(
            job.but(seed=seed, epochs=epochs), steps=epochs * images // BATCH,
            micro_batch=micro_batch, micro_batches=BATCH // micro_batch, every=every,
        )  # fmt: skip
        rows.append(summary(found) | {"seconds": round(time.perf_counter() - start, 1)})
        print(rows[-1], file=sys.stderr)
    return rows


def summary(found: NoiseMeasurement) -> dict[str, Any]:
    values = [point.noise.value for point in found]
    known = [value for value in values if value is not None]
    whole = found.overall.noise
    return {
        "start": rounded(values[0]),
        "end": rounded(values[-1]),
        "mean_over_points": rounded(statistics.fmean(known)) if known else None,
        "points": [rounded(value) for value in values],
        "unknown_points": len(values) - len(known),
        "overall": rounded(whole.value),
        "interval": [rounded(whole.low), rounded(whole.high)],
        "last_loss": round(statistics.fmean(found.losses[-20:]), 4),
    }


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


# -- the published re-run --------------------------------------------------------------------------


class Residual(nn.Module):
    """Two convolutions with BatchNorm around a shortcut; the one that is made last comes first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add what the layers find."""
        last, first = self.parts
        return x + last(first(x))


def halving(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride=2, padding=1)


def blocks(*widths: int) -> nn.Sequential:
    pairs = pairwise(widths)
    return nn.Sequential(*(layer for a, b in pairs for layer in (halving(a, b), Residual(b))))


def published_network() -> nn.Module:
    return nn.Sequential(*blocks(1, 8, 16, 32, 16), halving(16, 10), nn.Flatten())


def residual_network() -> nn.Module:
    """For 3x32x32, of the same blocks."""
    return nn.Sequential(*blocks(3, 16, 32, 64), nn.Flatten(), nn.Linear(64 * 16, 10))


def gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    loss = F.cross_entropy(model(images), labels)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


@torch.no_grad()
def descend(model: nn.Module, step: Tensor) -> None:
    sizes = [parameter.numel() for parameter in model.parameters()]
    for parameter, part in zip(model.parameters(), step.split(sizes), strict=True):
        parameter.sub_(part.view_as(parameter), alpha=LR)


def published(folder: Path, seeds: Sequence[int] = (1, 2, 3)) -> list[dict[str, Any]]:
    """Both ways to measure, along the same training; its own seed is 1, its order the files'."""
    rows = []
    for seed in seeds:
        data = loader("mnist", root=str(folder), batch_size=BATCH, mean=(0.1307,), std=(0.3081,))
        data.order = lambda _epoch: np.arange(60_000)
        torch.manual_seed(seed)
        model = published_network()
        moving, still = [], []
        batches = whole_batches(data)
        while len(group := list(islice(batches, IN_SEQUENCE))) == IN_SEQUENCE:
            at_start = torch.stack([gradient(model, *batch) for batch in group])
            on_the_way = []
            for batch in group:
                on_the_way.append(gradient(model, *batch))
                descend(model, on_the_way[-1])
            way = torch.stack(on_the_way)
            moving.append((square(way[-1]), square(way.mean(0))))
            still.append(((at_start**2).sum(1).mean().item(), square(at_start.mean(0))))
        rows.append({
            "seed": seed,
            "in_sequence_as_published": rounded(smoothed_ratio(moving)),
            "in_sequence_ratio_of_means": rounded(ratio(moving)),
            "at_the_same_weights": as_published(still),
        })  # fmt: skip
        print(rows[-1], file=sys.stderr)
    return rows


def whole_batches(data: Any) -> Iterator[tuple[Tensor, Tensor]]:
    return (batch for batch in data.epoch(0) if len(batch[0]) == BATCH)


def square(vector: Tensor) -> float:
    return float((vector.double() ** 2).sum())


def terms(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """The noise and the gradient of each pair, ``tr Σ`` and ``|G|²``."""
    small_batch, large_batch = BATCH, BATCH * IN_SEQUENCE
    traces = [(s - g) / (1 / small_batch - 1 / large_batch) for s, g in pairs]
    squares = [(large_batch * g - small_batch * s) / (large_batch - small_batch) for s, g in pairs]
    return traces, squares


def smoothed_ratio(pairs: list[tuple[float, float]], keep: float = 0.99) -> float:
    """As published: the ratio of exponential means, averaged over all times it was taken."""
    trace = norm = 0.0
    ratios = []
    for one, other in zip(*terms(pairs), strict=True):
        trace, norm = keep * trace + (1 - keep) * one, keep * norm + (1 - keep) * other
        ratios.append(trace / norm)
    return statistics.fmean(ratios)


def ratio(pairs: list[tuple[float, float]]) -> float:
    traces, squares = terms(pairs)
    return sum(traces) / sum(squares)


def as_published(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    found = noise_scale(*zip(*pairs, strict=True), BATCH, BATCH * IN_SEQUENCE)
    each = [t / s for t, s in zip(*terms(pairs), strict=True)]
    return {
        "smoothed_as_published": rounded(smoothed_ratio(pairs)),
        "overall": rounded(found.value),
        "interval": [rounded(found.low), rounded(found.high)],
        "mean_of_each_large_batch": rounded(statistics.fmean(each)),
        "start": rounded(each[0]),
        "end": rounded(each[-1]),
    }


def main() -> int:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, default=SHARED / "mnist")
    parser.add_argument("--cifar", type=Path, help="a folder with train/ and test/")
    parser.add_argument("--part", choices=["coverage", "mnist", "epochs", "published", "cifar"])
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    common = {"schedule": "constant", "warmup": 0.0, "global_batch": BATCH}
    if chosen.part in (None, "coverage"):
        record["coverage"] = coverage()
    for part, work in (
        ("mnist", lambda: measured(
            resolve(model=lambda: small_cnn(1, 28), data="mnist", root=str(chosen.mnist),
                   lr=LR, **common), 60_000, seeds=3)),
        ("epochs", lambda: measured(
            resolve(model=lambda: small_cnn(1, 28), data="mnist", root=str(chosen.mnist),
                   lr=LR, **common), 60_000, epochs=5)),
        ("published", lambda: published(chosen.mnist)),
    ):  # fmt: skip
        if chosen.part in (None, part):
            if chosen.mnist.exists():
                record[part] = {"published": RERUN, "paper": PAPER["mnist"], "seeds": work()}
            else:
                print(f"{part}: {chosen.mnist} is not here, not measured", file=sys.stderr)
    if chosen.part in (None, "cifar"):
        if chosen.cifar is not None and chosen.cifar.exists():
            job = resolve(
                model=residual_network, data=str(chosen.cifar), lr=0.05,
                optimizer={"name": "sgd", "momentum": 0.9}, **common,
            )  # fmt: skip
            images = len(job.data.dataset.train)
            rows = measured(job, images, epochs=8, micro_batch=32, every=4)
            record["cifar"] = {"images": images, "paper": PAPER["cifar10"], "seeds": rows}
        else:
            print("cifar: no folder (--cifar), not measured", file=sys.stderr)
    record |= {"date": date.today().isoformat(), "torch": torch.__version__}
    print(json.dumps(record, indent=2))
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
