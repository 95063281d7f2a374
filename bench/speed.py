"""How long memfit takes: traces, further batches, whole commands, and a 7-billion-parameter model.

``python bench/speed.py`` prints each figure with the machine and writes bench/results/speed.json.
Commands run in fresh processes; the other figures are the best of some repetitions in one.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "speed.json"
#: Answered without torch: what is typed, and the exit code.
LIGHT = {
    ("--help",): 0,
    ("gpus",): 0,
    ("plan", "torchvision:resnet50", "--precision", "fp99"): 2,
    ("plan", "missing.toml"): 2,
}
#: Options of a plan of which another batch is asked.
BATCHES = {"": {}, " (AMP, AdamW)": {"precision": "amp-fp16", "optimizer": "adamw"}}
DECODER = "transformers:meta-llama/Llama-2-7b-hf"


def best_of(repetitions: int, run: Callable[[], object]) -> float:
    """Seconds of the quickest run."""
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def traces() -> dict[str, float]:
    """Trace one training step of two models after imports, and ask for further batches."""
    import memfit

    recipe = memfit.Recipe(model="torchvision:resnet50", optimizer="adamw")
    plan = memfit.plan(recipe, gpu="rtx-3060")
    fresh = iter(range(20, 60))
    huge = memfit.plan("timm:vit_huge_patch14_224", optimizer="adamw", gpu="h100", verify=False)
    return {
        "trace ResNet-50 (2 steps, AdamW)": best_of(5, lambda: plan.step.trace(8)),
        "trace ViT-H/14 (2 steps, AdamW)": best_of(3, lambda: huge.step.trace(8)),
        "another batch of ResNet-50": best_of(10, lambda: plan.at(next(fresh))),
    }


def command(*arguments: str, code: int = 0) -> float:
    """Seconds of a whole command in a fresh process that ends with a code, best of three."""
    line = [sys.executable, "-m", "memfit", *arguments]

    def run() -> None:
        assert subprocess.run(line, check=False, capture_output=True).returncode == code, line

    return best_of(3, run)


def cpu_seconds(*line: str) -> float:
    """CPU seconds of a fresh process, least of three."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *line], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


def ratios() -> dict[str, float]:
    """CPU seconds of plans, and of one more batch, as multiples of the import in the same run."""
    bare = cpu_seconds("-c", "import torch, torchvision")
    model, card = "torchvision:resnet50", ("--gpu", "rtx-3060")
    mixed = ("--precision", "amp-fp16", "--optimizer", "adamw")
    plans = {"with a card": card, "AMP, AdamW, with a card": (*mixed, *card), "AMP, AdamW": mixed}
    seconds = {name: cpu_seconds("-m", "memfit", "plan", model, *w) for name, w in plans.items()}
    seconds |= {f"another batch{name}": another_batch(**given) for name, given in BATCHES.items()}
    return {
        f"ResNet-50, {name}: times import torch, torchvision": value / bare
        for name, value in seconds.items()
    }


def another_batch(**options: str) -> float:
    """CPU seconds of one more batch of a plan, in a fresh process: the mean of 20."""
    given = {"gpu": "rtx-3060", **options}
    script = (
        f"import time, memfit; plan = memfit.plan('torchvision:resnet50', **{given!r}); "
        "plan.max_batch_size; started = time.process_time(); "
        "[plan.at(batch) for batch in range(21, 61, 2)]; "
        "print((time.process_time() - started) / 20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def decoder() -> dict[str, float]:
    """Plan a 7-billion-parameter decoder in a fresh process: seconds and peak memory."""
    script = (
        "import time, memfit; started = time.perf_counter(); "
        f"plan = memfit.plan({DECODER!r}, input_ids=512, optimizer='adamw', precision='bf16', "
        "gpu='h100'); plan.at(None); print(time.perf_counter() - started)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "plan a 7-billion-parameter decoder": float(done.stdout.split()[-1]),
        "its process at most, GiB": peak_kib / 1024**2,
    }


def main() -> int:
    """Measure, print, write."""
    figures = {
        **decoder(),
        **{f"memfit {' '.join(w)}": command(*w, code=code) for w, code in LIGHT.items()},
        "memfit plan torchvision:resnet50 --gpu rtx-3060": command(
            "plan", "torchvision:resnet50", "--gpu", "rtx-3060"
        ),
        **ratios(),
        **traces(),
    }
    import torch

    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}, torch {torch.__version__}")
    for name, value in figures.items():
        unit = "" if "GiB" in name or "times" in name else " s"
        print(f"  {name:60s} {value:8.3f}{unit}")
    record = {"date": date.today().isoformat(), "machine": machine, "torch": torch.__version__}
    RESULTS.write_text(json.dumps(record | {"figures": figures}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
