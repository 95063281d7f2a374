"""Predictions against GPU memory that other people measured.

``python bench/accuracy.py`` needs the two tables of ``truth_tables.py``. One constant per GPU is
taken from the tables themselves, because neither says what else was on the card: the median of
measured minus predicted-reserved over the smallest batch of each model. Nothing else is fitted.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch

import memfit
from memfit.errors import MemfitError
from memfit.units import MIB
from truth_tables import (
    Measurement,
    read_gpumemnet,
    read_schedtune,
    summarize,
    summarize_by_family,
)

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
WORST = 15  # rows to list

Row = tuple[Measurement, int]  # a measurement and the predicted reserved bytes


def predict(
    rows: Iterable[Measurement], plan_of: Callable[[Measurement], memfit.Plan]
) -> list[Row]:
    """Predicted reserved bytes of every row; one plan for each model and GPU."""
    plans: dict[tuple[str, str], memfit.Plan | None] = {}
    predicted: list[Row] = []
    for row in rows:
        key = (row.model, row.gpu)
        if key not in plans:
            started = time.perf_counter()
            try:
                plans[key] = plan_of(row)
            except MemfitError as error:
                plans[key] = None
                print(f"  {row.model}: {error}", file=sys.stderr)
            print(f"  {row.model} {time.perf_counter() - started:.1f} s", file=sys.stderr)
        plan = plans[key]
        if plan is not None:
            predicted.append((row, plan.at(row.batch_size).peak_reserved_bytes))
    return predicted


def gpu_constants(predicted: list[Row]) -> dict[str, int]:
    """What a GPU holds outside of the allocator: one number each, from the smallest batches."""
    constants = {}
    for gpu in sorted({row.gpu for row, _ in predicted}):
        smallest: dict[str, Row] = {}
        for row, reserved in predicted:
            if row.gpu == gpu and (
                row.model not in smallest or row.batch_size < smallest[row.model][0].batch_size
            ):
                smallest[row.model] = (row, reserved)
        constants[gpu] = int(
            statistics.median(row.measured_bytes - reserved for row, reserved in smallest.values())
        )
    return constants


def report(name: str, rows: int, predicted: list[Row]) -> dict[str, object]:
    """Print one table's errors and return them for the record."""
    constants = gpu_constants(predicted)
    totals = [
        (row.model, reserved + constants[row.gpu], row.measured_bytes)
        for row, reserved in predicted
    ]
    summary = summarize((p, m) for _, p, m in totals)
    assert summary is not None
    print(f"\n{name}: {len(predicted)} of {rows} rows")
    print("  constant per GPU: ", {gpu: f"{c / MIB:.0f} MiB" for gpu, c in constants.items()})
    print(
        f"  error: median {summary.median:.2%}, 90th percentile {summary.p90:.2%}, "
        f"worst {summary.worst:.1%}, signed median {summary.signed_median:+.2%}"
    )
    for label, part in sorted(summarize_by_family(totals).items()):
        print(f"    {label:24s} {part.count:4d}  {part.median:7.2%}  {part.p90:7.2%}")
    offs = sorted(
        (
            (abs(p - m) / m, row, reserved)
            for (row, reserved), (_, p, m) in zip(predicted, totals, strict=True)
        ),
        key=lambda item: -item[0],
    )
    for error, row, reserved in offs[:WORST]:
        rest = row.measured_bytes - reserved
        print(
            f"    {error:6.1%} {row.model} batch {row.batch_size} on {row.gpu}: "
            f"measured {row.measured_bytes / MIB:.0f}, reserved {reserved / MIB:.0f}, "
            f"left {rest / MIB:.0f} MiB"
        )
    return {
        "rows": rows,
        "predicted": len(predicted),
        "constants_bytes": constants,
        "summary": asdict(summary),
        "families": {k: asdict(v) for k, v in summarize_by_family(totals).items()},
    }


def gpumemnet_plan(row: Measurement) -> memfit.Plan:
    """Float32, SGD with momentum (one state per parameter fits the table best)."""
    recipe = memfit.Recipe(
        model=f"timm:{row.model}", optimizer={"name": "sgd", "momentum": 0.9}, precision="fp32"
    )
    return memfit.plan(recipe, gpu="a100-40gb", verify=False)


def schedtune_plan(row: Measurement) -> memfit.Plan:
    """PyTorch of 2021: gradients are zeroed in place, the optimizer is a loop."""
    recipe = memfit.Recipe(
        model=f"torchvision:{row.model}",
        input_shape=(3, 224, 224),
        optimizer={"name": "sgd", "momentum": 0.9, "foreach": False},
        zero_grad="zero",
    )
    return memfit.plan(recipe, gpu=row.gpu, verify=False)


def main() -> int:
    """Run both tables."""
    warnings.filterwarnings("ignore")
    tables = {
        "gpumemnet": (read_gpumemnet(), gpumemnet_plan),
        "schedtune": (read_schedtune(), schedtune_plan),
    }
    record: dict[str, object] = {
        "date": date.today().isoformat(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    for name, (rows, plan_of) in tables.items():
        if not rows:
            print(f"{name}: table not found, skipped (see bench/truth_tables.py)")
            continue
        record[name] = report(name, len(rows), predict(rows, plan_of))
    if "gpumemnet" in record:
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
