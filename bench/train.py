"""What memfit's training costs against loops written by hand, on the same machine in one run.

    python bench/train.py [--mnist DIR] [--part overhead|mnist]

- ``overhead``: the built-in cnn on data in memory, batch 64, SGD: memfit's whole step (planning of
  micro-batches, transaction, metrics) against a bare PyTorch loop over the same tensors. Steps
  alternate in blocks, and the ratio of each pair of blocks counts.
- ``mnist``: an epoch of the course's multilayer perceptron, from start to end, against the
  course's own loop (per-sample ``ToTensor`` and ``Normalize``, ``DataLoader``, batch 64), and the
  test accuracy of both after it.

Writes ``bench/results/train.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from idx_files import write_mnist
from memfit.data import open as open_data
from memfit.data.loading.loader import Loader
from memfit.models import build_for_training
from memfit.step.job import resolve
from memfit.trainer.recovery.recover import recover
from memfit.trainer.step.evaluation import evaluate
from memfit.trainer.step.ingredients import prepare_ingredients
from memfit.trainer.step.micro_batches import even_sizes
from memfit.trainer.step.training import Training

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "bench" / "results" / "train.json"
BATCH, LR = 64, 0.1
CPU = torch.device("cpu")


def overhead(blocks: int = 15, steps: int = 20) -> dict[str, Any]:
    """Milliseconds of a step, ours and bare, and the median ratio of neighbouring blocks."""
    job = resolve("cnn", data="shapes,train=4096,test=64", global_batch=BATCH, lr=LR)
    made, ingredients = job.loader(), prepare_ingredients(job, CPU)
    training = Training(ingredients, made, 10_000, even_sizes(BATCH))
    ours = _forever(made.batches)

    model = build_for_training("cnn", input_shape=made.shape, num_classes=8).module
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    images, labels = _whole(made)
    order = _forever(lambda epoch: _slices(made.order(epoch)))

    def bare_step() -> float:
        indices = next(order)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[indices]), labels[indices])
        loss.backward()
        optimizer.step()
        return loss.item()

    def our_step() -> float:
        return training.take_step(next(ours)).loss

    pairs = []
    for number in range(blocks + 2):
        first, second = (our_step, bare_step) if number % 2 else (bare_step, our_step)
        times = {first: _seconds(first, steps), second: _seconds(second, steps)}
        if number >= 2:  # the first two warm up
            pairs.append((times[our_step] / steps, times[bare_step] / steps))
    return {
        "memfit_ms": round(min(o for o, _ in pairs) * 1e3, 3),
        "bare_ms": round(min(b for _, b in pairs) * 1e3, 3),
        "overhead": round(statistics.median(o / b for o, b in pairs) - 1, 4),
        "blocks": len(pairs),
    }


def mnist(folder: Path) -> dict[str, Any]:
    """An epoch from start to end, both ways."""
    data = open_data("mnist", root=folder)
    return {
        "memfit": (ours := _our_epoch(data)),
        "course": (theirs := _course_epoch(data)),
        "times_faster": round(theirs["seconds"] / ours["seconds"], 2),
    }


def _our_epoch(data: Any) -> dict[str, float]:
    job = resolve("mlp", data=data, global_batch=BATCH, lr=LR, schedule="constant")
    made, test = job.loader(), job.loader("test")
    ingredients = prepare_ingredients(job, CPU)
    training = Training(ingredients, made, len(made), even_sizes(BATCH))
    start = time.perf_counter()
    for batch in made.batches(0):
        training.take_step(batch)
    seconds = time.perf_counter() - start
    accuracy = evaluate(ingredients, test, recover(256)).accuracy
    return {"seconds": round(seconds, 3), "accuracy": accuracy}


def _course_epoch(data: Any) -> dict[str, float]:
    usual = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    with tempfile.TemporaryDirectory() as place:
        write_mnist(Path(place), data)
        train = datasets.MNIST(place, train=True, transform=usual)
        test = datasets.MNIST(place, train=False, transform=usual)
        model = build_for_training("mlp", input_shape=(1, 28, 28), num_classes=10).module
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        criterion = nn.CrossEntropyLoss()
        start = time.perf_counter()
        for images, labels in DataLoader(train, batch_size=BATCH, shuffle=True):
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - start
        right = 0
        with torch.no_grad():
            for images, labels in DataLoader(test, batch_size=1000):
                right += int((model(images).argmax(1) == labels).sum())
    return {"seconds": round(seconds, 3), "accuracy": right / len(test)}


def _whole(made: Loader) -> tuple[Tensor, Tensor]:
    """All images and labels by sample number, ready for the model."""
    parts = list(made.batches(0))
    indices = torch.cat([torch.from_numpy(part.indices) for part in parts])
    prepared = [made.prepare(part) for part in parts]
    back = indices.argsort()
    images, labels = (torch.cat(tensors)[back] for tensors in zip(*prepared, strict=True))
    return images, labels


def _slices(order: Any) -> Iterator[Tensor]:
    return iter(torch.from_numpy(order).split(BATCH))


def _forever(batches: Callable[[int], Any]) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from batches(epoch)
        epoch += 1


def _seconds(step: Callable[[], float], steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - start


def main() -> int:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, default=SHARED / "mnist")
    parser.add_argument("--part", choices=["overhead", "mnist"])
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if chosen.part in (None, "overhead"):
        record["overhead"] = overhead()
    if chosen.part in (None, "mnist"):
        if chosen.mnist.exists():
            record["mnist"] = mnist(chosen.mnist)
        else:
            print(f"mnist: {chosen.mnist} is not here, not measured", file=sys.stderr)
    record |= {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(record, indent=2))
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
