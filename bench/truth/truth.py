"""Predictions against the records of real GPUs: ``make truth``.

Every record under ``records/`` is planned anew and held against what was measured. Prints the
tables and writes them to ``docs/accuracy.md``. Where there is no record of a GPU it says so, and
shows what stands in: the errors against other people's measurements (``bench/accuracy.py``).

    python bench/truth/truth.py [--accept] [--no-peers]

``--accept`` writes today's errors to ``accuracy-baseline.json``; the tests hold later ones to it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from memfit.errors import MemfitError
from memfit.measure.compare import Comparison, compare, plan_of
from memfit.measure.records import Record, load_records
from memfit.step.optimizers import optimizer_name
from truth_tables import ErrorSummary, summarize, truth_folder

FOLDER = Path(__file__).resolve().parent
BENCH = FOLDER.parent
RECORDS = FOLDER / "records"
BASELINE = FOLDER / "accuracy-baseline.json"
DOCUMENT = BENCH.parent / "docs" / "accuracy.md"
OTHERS = BENCH / "results" / "accuracy.json"

#: How far an error may move before the tests want an explanation: a tenth of a per cent.
TOLERANCE = 0.001
FIGURES = ("peak allocated", "peak reserved", "whole GPU")
_WITHIN = 0.05
_PEER_CASES = 10


@dataclass(frozen=True)
class Row:
    """One measured micro-batch with its prediction."""

    record: Record
    comparison: Comparison

    @property
    def name(self) -> str:
        """Where the measurement is: GPU, recipe and micro-batch."""
        return f"{self.record.target_key}/{self.record.name}/{self.comparison.batch_size}"

    def errors(self) -> dict[str, float]:
        """Signed relative errors by figure, of those that are held against predictions."""
        return {f.name: f.error for f in self.comparison.figures if f.name in FIGURES}


@dataclass(frozen=True)
class LimitRow:
    """The largest micro-batch, predicted and found."""

    record: Record
    predicted: int
    found: int

    @property
    def fits(self) -> bool:
        """The predicted one really runs."""
        return self.predicted <= self.found

    @property
    def is_near(self) -> bool:
        """It is within 5 % of the real one."""
        return abs(self.predicted - self.found) <= _WITHIN * self.found


@dataclass(frozen=True)
class Truth:
    """All predictions held against all records."""

    rows: tuple[Row, ...]
    limits: tuple[LimitRow, ...]
    not_planned: dict[str, str]
    left_out: int


def hold(records: Iterable[Record]) -> Truth:
    """Plan every record anew and compare.

    Args:
        records: of any device.
    """
    rows: list[Row] = []
    limits: list[LimitRow] = []
    not_planned: dict[str, str] = {}
    left_out = 0
    for record in records:
        try:
            plan = plan_of(record)
        except MemfitError as error:
            not_planned[record.name] = error.message
            continue
        counting = [m for m in record.measurements if m.counts]
        left_out += sum(m.status == "ok" and not m.counts for m in record.measurements)
        rows += [Row(record, compare(plan, m)) for m in counting]
        if record.limit is not None and record.limit.is_complete:
            predicted = plan.limits.on(record.card).max_batch_size
            limits.append(LimitRow(record, predicted, record.limit.max_batch_size))
    return Truth(tuple(rows), tuple(limits), not_planned, left_out)


# -- the baseline ----------------------------------------------------------------------------------


def baseline_of(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Errors by measurement and figure."""
    return {
        row.name: {figure: round(error, 6) for figure, error in row.errors().items()}
        for row in rows
    }


def changes(rows: Iterable[Row], accepted: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What moved away from the accepted errors, or is not among them, in sentences."""
    found = []
    for row in rows:
        before = accepted.get(row.name)
        if before is None:
            found.append(f"{row.name}: not in the baseline")
            continue
        for figure, error in row.errors().items():
            was = before.get(figure)
            if was is None or abs(error - was) > TOLERANCE:
                words = "unknown" if was is None else f"{was:+.2%}"
                found.append(f"{row.name}: {figure} was {words}, is {error:+.2%}")
    return found


def of_this_torch(rows: Iterable[Row]) -> list[Row]:
    """Rows measured with the torch that is installed: another may allocate something else."""
    return [row for row in rows if row.record.versions.get("torch") == _version("torch")]


def accepted_errors(path: Path = BASELINE) -> dict[str, dict[str, float]]:
    """The baseline's errors; none without a file."""
    if not path.is_file():
        return {}
    errors: dict[str, dict[str, float]] = json.loads(path.read_text())["errors"]
    return errors


def accept(rows: Iterable[Row], path: Path = BASELINE) -> None:
    """Make today's errors the baseline."""
    content = {"schema_version": 1, "date": _today(), "errors": baseline_of(rows)}
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


# -- the document ----------------------------------------------------------------------------------


def document(truth: Truth, peers: Sequence[str]) -> str:
    """Everything as Markdown.

    Args:
        truth: predictions against the records of GPUs.
        peers: lines about the peers on the same records.
    """
    lines = [
        "# Accuracy",
        "",
        f"Written by `make truth` on {_today()}, on {platform.system()} {platform.machine()} with "
        f"Python {platform.python_version()} and memfit {_version('memfit')}, "
        f"torch {_version('torch')}.",
        "",
    ]
    lines += _measured(truth) if truth.rows else _nothing_measured()
    lines += _goals(truth)
    lines += ["## Peers on the same records", "", *peers, ""]
    lines += _stand_in()
    lines += [
        "## Filling the record",
        "",
        "`memfit measure --suite --minutes 9` on a machine with an NVIDIA GPU, again and again "
        "until nothing is left; then `make truth`. See [CONTRIBUTING](../CONTRIBUTING.md).",
    ]
    return "\n".join(lines).rstrip() + "\n"


def _measured(truth: Truth) -> list[str]:
    cards = sorted({row.record.card.name for row in truth.rows})
    versions = sorted({str(row.record.versions.get("torch")) for row in truth.rows})
    dates = sorted({row.record.date[:10] for row in truth.rows})
    lines = [
        f"{len(truth.rows)} measurements of {len({r.record.name for r in truth.rows})} recipes on "
        f"{', '.join(cards)}; torch {', '.join(versions)}; {dates[0]} to {dates[-1]}. Errors are "
        "(predicted - measured) / measured.",
        "",
    ]
    if truth.left_out:
        lines += [f"{truth.left_out} left out: another process was on the GPU.", ""]
    for title, key in (
        ("", lambda _: "all"),
        ("GPU", lambda row: row.record.card.name),
        ("family", lambda row: row.record.family),
        ("precision", lambda row: str(row.record.recipe.get("precision", "fp32"))),
        ("optimizer", _optimizer_of),
    ):
        lines += _error_table(title, truth.rows, key)
    lines += _worst(truth.rows)
    for name, reason in truth.not_planned.items():
        lines.append(f"Not plannable: {name}: {reason}")
    return [*lines, ""]


def _optimizer_of(row: Row) -> str:
    spec = row.record.recipe.get("optimizer", "sgd")
    is_fused = isinstance(spec, dict) and spec.get("fused")
    return f"{optimizer_name(spec)}{' fused' if is_fused else ''}"


def _error_table(title: str, rows: Sequence[Row], key: Callable[[Row], str]) -> list[str]:
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    lines = [f"## By {title}" if title else "## Predicted against recorded", ""]
    lines += [
        f"| {title or 'records'} | figure | runs | median | p90 | p95 | worst | signed median |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in sorted(groups):
        for figure in FIGURES:
            summary = _summary(groups[name], figure)
            if summary is not None:
                lines.append(f"| {name} | {figure} | {_cells(summary)} |")
    return [*lines, ""]


def _summary(rows: Iterable[Row], figure: str) -> ErrorSummary | None:
    return summarize(
        (f.predicted_bytes, f.measured_bytes)
        for row in rows
        for f in row.comparison.figures
        if f.name == figure
    )


def _cells(s: ErrorSummary) -> str:
    shares = (s.median, s.p90, s.p95, s.worst)
    return f"{s.count} | {' | '.join(f'{x:.2%}' for x in shares)} | {s.signed_median:+.2%}"


def _worst(rows: Sequence[Row], most: int = 10) -> list[str]:
    found = [(f, row.name) for row in rows for f in row.comparison.figures if f.name in FIGURES]
    found.sort(key=lambda item: -abs(item[0].error))
    lines = ["## Worst", "", "| measurement | figure | predicted | measured | error |"]
    lines.append("|---|---|---:|---:|---:|")
    lines += [
        f"| {name} | {f.name} | {f.predicted_bytes:,} | {f.measured_bytes:,} | {f.error:+.2%} |"
        for f, name in found[:most]
    ]
    return [*lines, ""]


def _nothing_measured() -> list[str]:
    return [
        "**No GPU has been measured for this record yet.** Nothing on this page is a measurement "
        "of memfit's own. Not yet measured: peak allocated, peak reserved and whole-GPU use of any "
        "recipe, the CUDA context before and after its libraries load, workspaces of cuDNN and "
        "cuBLAS, and the largest micro-batch that really runs.",
        "",
    ]


def _goals(truth: Truth) -> list[str]:
    lines = ["## Goals", "", "| goal | result | |", "|---|---|---|"]
    lines += [
        f"| {words} | {'not yet measured' if got is None else got[0]} | "
        f"{'' if got is None or got[1] is None else 'met' if got[1] else '**missed**'} |"
        for words, got in _judged(truth)
    ]
    return [*lines, ""]


def _judged(truth: Truth) -> list[tuple[str, tuple[str, bool | None] | None]]:
    """Each goal in words, with the result and whether it is met; None where nothing is known."""
    allocated, reserved, gpu = (_summary(truth.rows, figure) for figure in FIGURES)
    least = min((row.errors().get("whole GPU", 0.0) for row in truth.rows), default=0.0)
    near = _share(truth.limits, lambda row: row.is_near and row.fits)
    fitting = _share(truth.limits, lambda row: row.fits)
    return [
        ("peak allocated: median at most 0.5 %", _at_most(allocated, "median", 0.005)),
        ("peak allocated: 95th percentile at most 2 %", _at_most(allocated, "p95", 0.02)),
        ("peak reserved: median at most 2 %", _at_most(reserved, "median", 0.02)),
        ("peak reserved: 95th percentile at most 6 %", _at_most(reserved, "p95", 0.06)),
        (
            "whole GPU: never more than 3 % too little",
            None if gpu is None else (f"{least:+.2%}", least >= -0.03),
        ),
        (
            "predicted largest batch fits: at least 99 % of recipes",
            None if fitting is None else (f"{fitting:.1%}", fitting >= 0.99),
        ),
        (
            "predicted largest batch fits and is within 5 % of the real one (no goal set)",
            None if near is None else (f"{near:.1%}", None),
        ),
    ]


def _at_most(
    summary: ErrorSummary | None, name: str, goal: float
) -> tuple[str, bool | None] | None:
    if summary is None:
        return None
    value: float = getattr(summary, name)
    return f"{value:.2%}", value <= goal


def _share(rows: Sequence[LimitRow], holds: Callable[[LimitRow], bool]) -> float | None:
    return sum(holds(row) for row in rows) / len(rows) if rows else None


def _stand_in() -> list[str]:
    """Errors against other people's measurements, as bench/accuracy.py recorded them."""
    lines = ["## Against other people's measurements", ""]
    if not OTHERS.is_file():
        return [*lines, "No results of `bench/accuracy.py` are here.", ""]
    found: dict[str, Any] = json.loads(OTHERS.read_text())
    here = "are here" if truth_folder() is not None else "are not on this machine"
    lines += [
        "Whole-GPU use that others measured; their software is not documented, so one constant for "
        "each GPU is taken from the tables themselves (see `bench/accuracy.py`). Figures of "
        f"{found['date']} with torch {found['torch']}; the tables {here}.",
        "",
        "| table | runs | median | p90 | p95 | worst | signed median |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, source in (
        ("gpumemnet", "GPUMemNet, timm (arXiv 2602.17817)"),
        ("schedtune", "SchedTune, torchvision (CCGrid 2022)"),
    ):
        if name in found:
            lines.append(f"| {source} | {_cells(ErrorSummary(**found[name]['summary']))} |")
    return [*lines, ""]


# -- peers -----------------------------------------------------------------------------------------


def peer_lines(records: Sequence[Record], most: int = _PEER_CASES) -> list[str]:
    """Each peer on records that it can be asked about, held against what its figure covers."""
    from peer_estimators import PEERS, Case
    from peers import GIB, Estimators

    chosen = [r for r in records if _is_for_peers(r)][:most]
    if not chosen:
        return ["Not compared: no record of float32 training with SGD and momentum is here."]
    measured_by = {
        "tensors": "peak_allocated_bytes", "reserved": "peak_reserved_bytes",
        "gpu": "gpu_used_bytes",
    }  # fmt: skip
    estimators = Estimators(limit_seconds=60.0, memory_bytes=12 * GIB)
    lines = [
        f"On {len(chosen)} recipes (float32, SGD with momentum, one micro-batch each), each peer "
        "against the figure that it claims.",
        "",
        "| peer | answers | median | p90 | p95 | worst | signed median |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for peer in PEERS:
        pairs = []
        for record in chosen:
            m = next(m for m in record.measurements if m.counts)
            truth = getattr(m, measured_by[peer.counts])
            if truth is None:
                continue
            cell = estimators.run(peer, Case(str(record.recipe["model"]), m.batch_size, truth))
            if cell.predicted_bytes is not None:
                pairs.append((cell.predicted_bytes, truth))
        summary = summarize(pairs)
        answer = "0 | not installed, or no answer | | | |" if summary is None else _cells(summary)
        lines.append(f"| {peer.name} ({peer.counts}) | {answer} |")
    return lines


def _is_for_peers(record: Record) -> bool:
    """The training that the estimators of peers describe."""
    wanted = {"optimizer": {"name": "sgd", "momentum": 0.9}}
    rest = {k: v for k, v in record.recipe.items() if k != "model"}
    model = str(record.recipe["model"])
    named = model.startswith(("torchvision:", "timm:"))
    return named and rest == wanted and any(m.counts for m in record.measurements)


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def main(arguments: Sequence[str] | None = None) -> int:
    """Hold predictions against the records, print and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="make these errors the baseline")
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--output", type=Path, default=DOCUMENT)
    options = parser.parse_args(arguments)
    try:
        records = [r for r in load_records(options.records).values() if r.is_of_gpu]
    except MemfitError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    truth = hold(records)
    peers = (
        ["Not compared: without a record there is nothing to compare on."]
        if not truth.rows
        else ["Left out (`--no-peers`)."]
        if options.no_peers
        else peer_lines(records)
    )
    text = document(truth, peers)
    print(text, end="")
    options.output.write_text(text)
    if options.accept:
        accept(truth.rows)
    found = changes(of_this_torch(truth.rows), accepted_errors())
    for change in found:
        print(f"changed: {change}", file=sys.stderr)
    if found:
        print("--accept makes these errors the baseline", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
