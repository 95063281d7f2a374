"""What memfit and its peers predict for runs that somebody measured: errors, seconds, failures.

    python -m venv .venv-peers && .venv-peers/bin/pip install -e ".[models]"
    .venv-peers/bin/pip install -r bench/requirements-peers.txt
    .venv-peers/bin/python bench/peers.py --models 10

Every estimate runs in a process of its own, so a crash or a time-out costs one cell. The seconds
are those of one estimate, building the model included, importing torch and timm not. Needs the
table of measurements (see truth_tables.py); without it nothing is compared and the exit code is 0.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from peer_estimators import PEERS, Case, Peer
from truth_tables import ErrorSummary, Measurement, family, read_gpumemnet, summarize

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results" / "peers.json"
GIB = 1024**3

TYPICAL_BATCH = 32
# Imported once in the process that all estimates are forked from.
PRELOAD = ["torch", "timm", "torch.distributed._tools.mem_tracker", "torch.profiler"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One peer's answer for one case: bytes and seconds, or what went wrong."""

    case: Case
    predicted_bytes: int | None
    seconds: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """One peer over all cases; the summaries cover the cases that it answered.

    Attributes:
        peer: who.
        version: of its package here.
        cells: one for each case.
        summary: errors of its figures as they are.
        constant_bytes: the median of measured - predicted: the constant (context, libraries)
            that somebody who had measured these very runs would add to every figure.
        summary_with_constant: errors with that constant added. It is fitted to the cases that it
            is tested on, so it flatters; it shows what is left when only a constant is missing.
        median_seconds: of one estimate.
    """

    peer: Peer
    version: str | None
    cells: tuple[Cell, ...]
    summary: ErrorSummary | None
    constant_bytes: int | None
    summary_with_constant: ErrorSummary | None
    median_seconds: float | None

    @property
    def failures(self) -> tuple[Cell, ...]:
        """The cases without an answer."""
        return tuple(cell for cell in self.cells if cell.error is not None)


def choose(measurements: Iterable[Measurement], count: int) -> list[Case]:
    """One model per family at the batch size nearest 32, `count` of them spread over the sizes.

    The choice depends on the table alone, never on how well a peer does.
    """
    best: dict[str, Measurement] = {}
    for row in sorted(measurements, key=lambda row: row.model):
        rival = best.get(family(row.model))
        if rival is None or _distance(row) < _distance(rival):
            best[family(row.model)] = row
    ordered = sorted(best.values(), key=lambda row: row.measured_bytes)
    count = min(count, len(ordered))
    step = (len(ordered) - 1) / max(count - 1, 1)
    chosen = [ordered[round(index * step)] for index in range(count)]
    return [Case(row.model, row.batch_size, row.measured_bytes) for row in chosen]


def _distance(row: Measurement) -> int:
    return abs(row.batch_size - TYPICAL_BATCH)


class Estimators:
    """Starts one process per estimate, forked from a server that has torch imported.

    Args:
        limit_seconds: an estimate that takes longer is ended.
        memory_bytes: an estimate that allocates more host memory fails by itself.
    """

    def __init__(self, *, limit_seconds: float, memory_bytes: int) -> None:
        self.limit_seconds = limit_seconds
        self.memory_bytes = memory_bytes
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)

    def run(self, peer: Peer, case: Case) -> Cell:
        """One estimate."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_estimate, args=(sender, peer.name, case, self.memory_bytes)
        )
        process.start()
        sender.close()
        answered = receiver.poll(self.limit_seconds)
        try:
            predicted_bytes, seconds, error = receiver.recv() if answered else (None, None, None)
        except EOFError:
            process.join(5)  # for its exit code
            predicted_bytes, seconds, error = None, None, f"died (exit code {process.exitcode})"
        if answered:
            process.join(5)
        else:
            error = f"more than {self.limit_seconds:.0f} s"
        process.kill()
        process.join()
        return Cell(case, predicted_bytes, seconds, error)


def _estimate(sender: Connection, name: str, case: Case, memory_bytes: int) -> None:
    """In the child: (bytes, seconds, error) to `sender`; its own output goes nowhere."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    peer = next(peer for peer in PEERS if peer.name == name)
    start = time.perf_counter()
    try:
        predicted_bytes = peer.estimate(case)
        sender.send((predicted_bytes, time.perf_counter() - start, None))
    except BaseException as error:  # whatever a peer raises is one cell of the table
        sender.send((None, None, _reason(error, memory_bytes)))


def _reason(error: BaseException, memory_bytes: int) -> str:
    """One line; PyTorch's CPU allocator says "can't allocate memory" at our limit."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"more than {memory_bytes / GIB:.0f} GiB of host memory"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:120]


def row_of(peer: Peer, cells: Sequence[Cell]) -> Row:
    """A peer's summary over its cells."""
    answered = [cell for cell in cells if cell.predicted_bytes is not None]
    pairs = [(cell.predicted_bytes or 0, cell.case.measured_bytes) for cell in answered]
    constant = round(median(m - p for p, m in pairs)) if pairs else None
    seconds = [cell.seconds for cell in answered if cell.seconds is not None]
    return Row(
        peer=peer,
        version=_version(peer.package),
        cells=tuple(cells),
        summary=summarize(pairs),
        constant_bytes=constant,
        summary_with_constant=summarize((p + (constant or 0), m) for p, m in pairs),
        median_seconds=median(seconds) if seconds else None,
    )


def _version(package: str | None) -> str | None:
    try:
        return metadata.version(package) if package else None
    except metadata.PackageNotFoundError:
        return None


def table(rows: Sequence[Row], cases: Sequence[Case]) -> str:
    """The errors, what each figure covers, and the failures, as plain text."""
    lines = [
        f"{len(cases)} models, measured on a whole GPU (float32, SGD with momentum):",
        *(
            f"  {c.model:38} batch {c.batch_size:3}  {c.measured_bytes / GIB:6.2f} GiB"
            for c in cases
        ),
        "",
        f"{'peer':14}{'models':>7}{'median':>9}{'p90':>9}{'worst':>9}{'signed':>9}"
        f"{'constant':>11}{'+constant':>11}{'s each':>9}",
        *(_error_line(row) for row in rows),
        "",
        f"{'peer':14}{'version':10}{'counts':10}{'batch':7}{'optimizer':11}{'lifetimes':11}runs",
        *(_claim_line(row) for row in rows),
    ]
    failures = [line for row in rows for line in _failure_lines(row)]
    return "\n".join([*lines, *(["", "No answer:", *failures] if failures else [])])


def _failure_lines(row: Row) -> list[str]:
    """One line for each reason, with the models that it stopped."""
    models: defaultdict[str, list[str]] = defaultdict(list)
    for cell in row.failures:
        models[cell.error or ""].append(cell.case.model)
    lines = []
    for error, names in models.items():
        which = "all" if len(names) == len(row.cells) else ", ".join(names)
        lines.append(f"  {row.peer.name:14}{which}: {error}")
    return lines


def _error_line(row: Row) -> str:
    answered = f"{len(row.cells) - len(row.failures)}/{len(row.cells)}"
    shown, shifted = row.summary, row.summary_with_constant
    if shown is None or shifted is None:
        return f"{row.peer.name:14}{answered:>7}{'no answer':>12}"
    return (
        f"{row.peer.name:14}{answered:>7}{shown.median:>9.1%}{shown.p90:>9.1%}"
        f"{shown.worst:>9.1%}{shown.signed_median:>+9.1%}"
        f"{(row.constant_bytes or 0) / GIB:>+7.2f} GiB{shifted.median:>11.1%}"
        f"{row.median_seconds or 0:>9.2f}"
    )


def _claim_line(row: Row) -> str:
    peer = row.peer
    knows = {True: "yes", False: "no"}
    return (
        f"{peer.name:14}{row.version or '-':10}{peer.counts:10}{knows[peer.knows_batch]:7}"
        f"{knows[peer.knows_optimizer]:11}{knows[peer.knows_lifetimes]:11}{peer.runs}"
    )


def document(rows: Sequence[Row], cases: Sequence[Case]) -> dict[str, object]:
    """Everything as plain data, with the machine and the versions."""
    return {
        "schema_version": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "cpu_count": os.cpu_count(),
            "python": platform.python_version(),
            "torch": _version("torch"),
            "timm": _version("timm"),
        },
        "cases": [asdict(case) for case in cases],
        "peers": [_row_document(row) for row in rows],
    }


def _row_document(row: Row) -> dict[str, object]:
    claims = {k: v for k, v in asdict(row.peer).items() if k not in ("estimate", "name")}
    return {
        "name": row.peer.name,
        "version": row.version,
        **claims,
        "summary": row.summary and asdict(row.summary),
        "constant_bytes": row.constant_bytes,
        "summary_with_constant": row.summary_with_constant and asdict(row.summary_with_constant),
        "median_seconds": row.median_seconds,
        "cells": [
            {
                "model": cell.case.model,
                "predicted_bytes": cell.predicted_bytes,
                "seconds": None if cell.seconds is None else round(cell.seconds, 3),
                "error": cell.error,
            }
            for cell in row.cells
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=int, default=10, help="how many models (10)")
    parser.add_argument("--peers", nargs="+", choices=[p.name for p in PEERS], default=())
    options = parser.parse_args(arguments)
    cases = choose(read_gpumemnet(), options.models)
    if not cases:
        print("skipped: no table of measurements here (set MEMFIT_TRUTH to its folder)")
        return 0
    estimators = Estimators(limit_seconds=30.0, memory_bytes=12 * GIB)
    sys.path.append(str(FOLDER.parent / "src"))  # for the children, where memfit is not installed
    rows = []
    for peer in PEERS:
        if options.peers and peer.name not in options.peers:
            continue
        cells = []
        for case in cases:
            print(f"{peer.name}: {case.model}", file=sys.stderr)
            cells.append(estimators.run(peer, case))
        rows.append(row_of(peer, cells))
    print(table(rows, cases))
    RESULTS.write_text(json.dumps(document(rows, cases), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
