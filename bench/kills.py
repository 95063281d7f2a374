"""Kill a training run at random moments, resume it, and compare it with one left in peace.

The run augments in a worker process, keeps an average of the weights and writes a checkpoint every
few steps. It is killed (SIGKILL) again and again: one time in four up to 4 seconds after its start,
else up to 2 seconds after its first new step, while it trains, evaluates or writes. Once it has
finished, its last checkpoint and the metrics must equal those of an undisturbed run, to the bit;
then the next run begins, until there were enough kills.

Usage: python bench/kills.py [--kills 50] [--seed 0] [--epochs 60] [--to FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results" / "kills.json"
COMMAND = [sys.executable, "-m", "memfit", "train"]
RECIPE = [
    "--model", "cnn", "--data", "shapes,train=256,test=64,size=16", "--global-batch", "32",
    "--augment", "randaugment", "--augment", "crop", "--augment", "flip", "--augment", "mixup",
    "--workers", "1", "--checkpoint-every", "3", "--optimizer", "adamw", "--ema",
    "--clip-grad-norm", "1",
]  # fmt: skip
#: The longest wait before a kill, from the start, and from the first new step.
STARTING, TRAINING = 4.0, 2.0
KNOWN = {
    "run.json", "recipe.toml", "plan.json", "metrics.jsonl", "pace.jsonl", "skipped.txt",
    "summary.json", "checkpoints", "run.lock", "last.pt", "best.pt",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--to", type=Path, default=RESULTS)
    given = parser.parse_args()
    chance, began = random.Random(given.seed), time.perf_counter()
    recipe = [*RECIPE, "--epochs", str(given.epochs)]
    moments: Counter[str] = Counter()
    runs = 0
    with tempfile.TemporaryDirectory(prefix="memfit-kills-") as folder:
        root = Path(folder)
        start([*recipe, "--runs", str(root), "--name", "undisturbed"]).wait()
        expected = result_of(root / "undisturbed")
        while moments.total() < given.kills:
            runs += 1
            path = root / f"killed-{runs}"
            left = given.kills - moments.total()
            moments += train_with_kills(recipe, path, left, chance)
            differing = list(differences(expected, result_of(path)))
            print(f"{path.name}: {moments.total()} kills, {len(differing)} differences", flush=True)
            if differing:
                print("\n".join(differing[:20]))
                return 1
    result = {
        "kills": moments.total(),
        "killed_in": dict(moments),
        "runs": runs,
        "differences": 0,
        "steps_of_a_run": expected["step"],
        "seconds": round(time.perf_counter() - began, 1),
        "seed": given.seed,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    given.to.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    return 0


def train_with_kills(
    recipe: list[str], path: Path, most: int, chance: random.Random
) -> Counter[str]:
    """Begin a run and resume it after each kill until it has finished; where it was killed."""
    moments: Counter[str] = Counter()
    while True:
        steps = steps_of(path)
        if (path / "run.json").exists():
            process = start(["--resume", str(path)])
        else:  # killed before it had a folder: not counted
            process = start([*recipe, "--runs", str(path.parent), "--name", path.name])
        if moments.total() < most:
            wait(process, path, steps, chance)
            process.kill()
        code = process.wait()
        if code == 0:
            return moments
        if code != -signal.SIGKILL:
            raise SystemExit(f"{path} cannot be resumed:\n{said(path)}")
        if (path / "run.json").exists():
            moments[moment(path, steps)] += 1
            if json.loads((path / "run.json").read_bytes())["status"] == "finished":
                return moments  # killed on its way out


def wait(process: subprocess.Popen[bytes], path: Path, steps: int, chance: random.Random) -> None:
    """Until it shall be killed, or has ended."""
    seconds = chance.uniform(0, STARTING)
    if chance.random() >= 0.25:
        while process.poll() is None and steps_of(path) <= steps:
            time.sleep(0.01)
        seconds = chance.uniform(0, TRAINING)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """The command; what it says is kept beside the runs until the next one starts."""
    folder = Path(arguments[arguments.index("--runs") + 1]) if "--runs" in arguments else None
    folder = folder or Path(arguments[1]).parent
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def said(path: Path) -> str:
    return (path.parent / "log").read_text(encoding="utf-8")


def moment(path: Path, steps_before: int) -> str:
    """What a killed run was doing, as far as its folder tells."""
    if not all(map(known, path.rglob("*"))):
        return "writing a checkpoint"
    return "training" if steps_of(path) > steps_before else "starting"


def steps_of(path: Path) -> int:
    """The last step in the metrics."""
    file = path / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    whole = [line for line in lines[-2:] if line.endswith(b"\n")]
    return json.loads(whole[-1])["step"] if whole else 0


def known(file: Path) -> bool:
    """Whether it belongs into a run's folder; what is being written has another name."""
    return file.name in KNOWN or (file.name.startswith("step-") and file.suffix == ".pt")


def result_of(path: Path) -> dict[str, Any]:
    """The last checkpoint, and every line of the metrics."""
    facts = json.loads((path / "run.json").read_bytes())
    if facts["status"] != "finished":
        raise SystemExit(f"{path} has not finished:\n{said(path)}")
    state: dict[str, Any] = torch.load(path / "checkpoints" / "last.pt", weights_only=True)
    lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return state | {"metrics": [json.loads(line) for line in lines]}


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Paths of the values that are not the same to the bit."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [d for key in one for d in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, (list, tuple)) and type(one) is type(other) and len(one) == len(other):
        return [
            d
            for i, pair in enumerate(zip(one, other, strict=True))
            for d in differences(*pair, f"{where}/{i}")
        ]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
    else:
        same = type(one) is type(other) and one == other
    return [] if same else [where]


if __name__ == "__main__":
    sys.exit(main())
