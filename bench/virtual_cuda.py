"""Hold plans against PyTorch itself: its own CUDA build, training on a card that is not there.

Every recipe of the suite runs as many steps as a plan traces, at its smallest batch, behind the
stub libraries of ``memfit.virtual_cuda``: PyTorch's own allocator counts, cuDNN's own heuristics
choose. The plan of the same recipe should have the same peaks; ``tests/oracle`` holds it to 0.1 %
of what is allocated and 1 % of what is reserved.

    python bench/virtual_cuda.py [--only NAME ...]     # writes bench/results/virtual_cuda.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from memfit.cards.catalogue import gpu
from memfit.measure.process import Process, run_in_turn
from memfit.measure.steps import RECORDED_STEPS
from memfit.measure.suite import Entry, load_suite
from memfit.measure.target import Target
from memfit.planner.planning import plan_job
from memfit.step.job import resolve

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "results" / "virtual_cuda.json"
CARD = gpu("rtx-3060")
ALLOCATED_WITHIN, RESERVED_WITHIN = 0.001, 0.01


@dataclass(frozen=True, slots=True)
class Peaks:
    """The most bytes that PyTorch's allocator gives out, and holds."""

    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    """One recipe.

    Args:
        name: in the suite.
        batch_size: the smallest of its micro-batches.
        pytorch: what PyTorch counted behind the stubs.
        plan: what memfit says without running anything.
    """

    name: str
    batch_size: int
    pytorch: Peaks
    plan: Peaks

    @property
    def errors(self) -> tuple[float, float]:
        """Signed, relative: of what is allocated and of what is reserved."""
        plan, real = self.plan, self.pytorch
        return (
            plan.allocated_bytes / real.allocated_bytes - 1,
            plan.reserved_bytes / real.reserved_bytes - 1,
        )

    @property
    def is_close(self) -> bool:
        """Whether both are within what the tests allow."""
        allocated, reserved = self.errors
        return abs(allocated) <= ALLOCATED_WITHIN and abs(reserved) <= RESERVED_WITHIN


def entries() -> list[Entry]:
    """The recipes of the suite that run behind the stubs.

    Expandable segments need CUDA's virtual memory management, which the stubs do not have.
    """
    suite = load_suite(BENCH / "truth" / "suite.toml")
    return [entry for entry in suite if not entry.recipe.allocator]


def measured(chosen: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """What PyTorch itself says of each recipe, by name; all in one process.

    Raises:
        NoStubs: PyTorch itself does not run here without a GPU.
    """
    target = Target("virtual", CARD)
    processes = [
        Process(entry.recipe, target, entry.batch_sizes[0], steps=RECORDED_STEPS)
        for entry in chosen
    ]
    names = [entry.name for entry in chosen]
    return dict(zip(names, run_in_turn(processes), strict=True))


def hold(entry: Entry, answer: dict[str, Any]) -> Row:
    """A recipe's plan beside what was measured of it.

    Args:
        entry: the recipe.
        answer: of :func:`measured`, with status ``ok``.
    """
    batch_size = entry.batch_sizes[0]
    here = plan_job(resolve(entry.recipe, card=CARD), verify=False).at(batch_size)
    return Row(
        entry.name,
        batch_size,
        Peaks(answer["peak_allocated_bytes"], answer["peak_reserved_bytes"]),
        Peaks(here.peak_allocated_bytes, here.peak_reserved_bytes),
    )


# -- the report -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these recipes; writes no file")
    only = parser.parse_args(arguments).only
    warnings.filterwarnings("ignore")
    began = time.monotonic()
    chosen = [entry for entry in entries() if not only or entry.name in only]
    answers = measured(chosen)
    print(f"{'recipe':36} {'batch':>5} {'allocated':>14} {'plan':>9} {'reserved':>14} {'plan':>9}")
    rows = []
    for entry in chosen:
        answer = answers[entry.name]
        if answer["status"] != "ok":
            print(f"{entry.name:36} {answer['status']}: {answer['message']}")
            continue
        rows.append(hold(entry, answer))
        print(_line(rows[-1]), flush=True)
    close = sum(row.is_close for row in rows)
    print(f"\n{close} of {len(chosen)} within 0.1 % allocated and 1 % reserved")
    if not only:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(_report(rows, time.monotonic() - began), indent=1) + "\n")
    return 0 if close == len(chosen) else 1


def _line(row: Row) -> str:
    allocated, reserved = row.errors
    return (
        f"{row.name:36} {row.batch_size:5} {row.pytorch.allocated_bytes:14,} {allocated:+9.3%} "
        f"{row.pytorch.reserved_bytes:14,} {reserved:+9.3%}{'' if row.is_close else '  !'}"
    )


def _report(rows: Sequence[Row], seconds: float) -> dict[str, Any]:
    return {
        "machine": {
            "platform": platform.platform(),
            "cpu_count": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "date": datetime.now(UTC).date().isoformat(),
        },
        "card": CARD.name,
        "seconds": round(seconds),
        "recipes": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
