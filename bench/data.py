"""The loader and the inspection against the usual way, on real images.

    python bench/data.py [--mnist DIR] [--cifar DIR|cifar10-jpeg.tar.gz] [--part NAME]

- ``mnist``: an epoch of MNIST against ``datasets.MNIST`` + ``ToTensor`` + ``Normalize`` +
  ``DataLoader``, batch 64, shuffled.
- ``cifar``: the first and the second pass over CIFAR-10 as JPEG files against ``ImageFolder`` +
  ``DataLoader``, with 0 and 2 workers.
- ``inspect``: ``memfit data`` on the 60,000 JPEGs: seconds and peak memory.
- ``rows``: a table of up to a million rows that name a few files: seconds and memory by count.

The compared runs alternate, and the ratio of each pair counts. Writes ``bench/results/data.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from idx_files import write_mnist
from memfit.data import loader
from memfit.data import open as open_data

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "bench" / "results" / "data.json"
BATCH = 64


def drained(batches: Iterable[Any]) -> float:
    """Seconds to take all batches."""
    start = time.perf_counter()
    count = 0
    for images, _ in batches:
        count += len(images)
    assert count > 1000, f"only {count} images came"
    return time.perf_counter() - start


def pairs(ours: Callable[[], float], usual: Callable[[], float], rounds: int) -> dict[str, Any]:
    """Alternate two measurements; the median of the ratios."""
    found = [(ours(), usual()) for _ in range(rounds)]
    return {
        "memfit_s": round(min(o for o, _ in found), 3),
        "usual_s": round(min(u for _, u in found), 3),
        "times_faster": round(statistics.median(u / o for o, u in found), 2),
        "ratios": [round(u / o, 2) for o, u in found],
    }


def mnist(folder: Path) -> dict[str, Any]:
    """An epoch from memory."""
    data = open_data("mnist", root=folder)
    made = loader(data, batch_size=BATCH)
    with tempfile.TemporaryDirectory() as place:
        write_mnist(Path(place), data)
        usual = datasets.MNIST(place, train=True, transform=_usual(made))
        theirs = DataLoader(usual, batch_size=BATCH, shuffle=True)
        return pairs(lambda: drained(made.epoch(0)), lambda: drained(theirs), 3)


def cifar(folder: Path) -> dict[str, Any]:
    """First and later passes over JPEG files."""
    data = open_data(folder)
    found: dict[str, Any] = {}
    for workers in (0, 2):
        made = loader(data, batch_size=BATCH, workers=workers)
        usual = datasets.ImageFolder(folder / "train", transform=_usual(made))
        theirs = DataLoader(usual, batch_size=BATCH, shuffle=True, num_workers=workers)

        def first(workers: int = workers) -> float:
            return drained(loader(data, batch_size=BATCH, workers=workers).epoch(0))

        def baseline(theirs: DataLoader[Any] = theirs) -> float:
            return drained(theirs)

        found[f"first pass, {workers} workers"] = pairs(first, baseline, 3)
    drained(made.epoch(0))
    found["later passes"] = pairs(lambda: drained(made.epoch(1)), baseline, 2)
    return found


def inspection(folder: Path) -> dict[str, Any]:
    """The command as a whole process."""
    seconds, peak = _command("data", str(folder), "--json")
    return {"images": 60_000, "seconds": round(seconds, 1), "peak_mib": round(peak / 2**20)}


def rows() -> dict[str, Any]:
    """A table whose rows name a few files again and again."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number in range(20):
            colour = (number * 12, 255 - number * 12, 90)
            Image.new("RGB", (48, 32), colour).save(folder / f"{number}.png")
        for count in (250_000, 500_000, 1_000_000):
            table = folder / f"{count}.csv"
            with table.open("w") as file:
                file.write("path,label\n")
                file.writelines(f"{i % 20}.png,{i % 7}\n" for i in range(count))
            seconds, peak = _command("data", str(table), "--json")
            found[f"{count:,}"] = {"seconds": round(seconds, 1), "peak_mib": round(peak / 2**20)}
    return found


def _usual(made: Any) -> Any:
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(made.mean, made.std)])


def _command(*arguments: str) -> tuple[float, int]:
    """Seconds and peak bytes of a memfit command."""
    code = (
        "import sys, os\n"
        "from memfit.cli import main\n"
        "sys.stdout = open(os.devnull, 'w')\n"
        f"code = main({list(arguments)!r})\n"
        "status = open('/proc/self/status').read()\n"  # ru_maxrss would be the parent's
        "print(int(status.split('VmHWM:')[1].split()[0]) * 1024, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return time.perf_counter() - start, int(done.stderr.split()[-1])


def _extracted(path: Path, place: str) -> Path:
    if path.is_dir():
        return path
    with tarfile.open(path) as archive:
        archive.extractall(place, filter="data")
    return Path(place)


def main() -> int:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, default=SHARED / "mnist")
    parser.add_argument("--cifar", type=Path, default=SHARED / "cifar10-jpeg.tar.gz")
    parser.add_argument("--part", choices=["mnist", "cifar", "inspect", "rows"])
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as place:
        parts: dict[str, tuple[Path | None, Callable[[], Any]]] = {
            "mnist": (chosen.mnist, lambda: mnist(chosen.mnist)),
            "cifar": (chosen.cifar, lambda: cifar(_extracted(chosen.cifar, place))),
            "inspect": (chosen.cifar, lambda: inspection(_extracted(chosen.cifar, place))),
            "rows": (None, rows),
        }
        for name, (needed, measure) in parts.items():
            if chosen.part not in (None, name):
                continue
            if needed is not None and not needed.exists():
                print(f"{name}: {needed} is not here, not measured", file=sys.stderr)
                continue
            record[name] = measure()
            print(name, json.dumps(record[name], indent=2))
    record |= {"date": date.today().isoformat(), "torch": torch.__version__}
    record["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads"
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
