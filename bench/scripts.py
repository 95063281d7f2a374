"""Training scripts as people write them, by hand and with the trainers of libraries, unmodified.

    python -m venv .venv-scripts && .venv-scripts/bin/pip install -e ".[models]"
    .venv-scripts/bin/pip install -r bench/requirements-scripts.txt
    .venv-scripts/bin/python bench/scripts.py

Each goes through ``memfit run`` three times, as a user types it: on PyTorch itself, on meta
tensors, and with ``--batch auto``, which finds the largest batch and trains with it. The scripts
are ours (``bench/scripts``, ``tests/scripts/samples``): weights are random, data are made up,
nothing is downloaded. What ran replaces its line in ``bench/results/scripts.json``; a script whose
library is not here is named, and keeps its line.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "results" / "scripts.json"
SAMPLES = BENCH.parent / "tests" / "scripts" / "samples"
CARD = "rtx-3060"
GIB = 1024**3

#: What is asked of the table.
STEPS, REACHED = 3, 0.95
MOST_SECONDS, MOST_RESIDENT_BYTES = 60.0, 2 * GIB
ALLOCATED_WITHIN = 0.001


@dataclass(frozen=True, slots=True)
class Case:
    """A script.

    Args:
        path: of the file.
        arguments: of the script.
        options: of ``memfit run``.
        library: whose trainer it uses; empty where it is plain PyTorch.
        is_classifier: it trains a classifier of images, whose process has a limit of memory.
    """

    path: Path
    arguments: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    library: str = ""
    is_classifier: bool = False

    @property
    def name(self) -> str:
        """Of the file, without its ending."""
        return self.path.stem


def _own(name: str, *arguments: str, **more: Any) -> Case:
    return Case(BENCH / "scripts" / f"{name}.py", arguments, **more)


def _sample(name: str, *arguments: str, **more: Any) -> Case:
    return Case(SAMPLES / f"{name}.py", arguments, **more)


CASES = (
    _own("lightning_classifier", library="lightning", is_classifier=True),
    _own("transformers_trainer", library="transformers"),
    _own("accelerate_loop", library="accelerate"),
    _own("ultralytics_detect", library="ultralytics"),
    _own("smp_segment", library="segmentation_models_pytorch"),
    _own("monai_segment", library="monai"),
    _own("timm_finetune", "-b", "16", library="timm", is_classifier=True),
    _sample("mnist_like", options=("--fake-data",), is_classifier=True),
    _own("vae", options=("--fake-data",)),
    _own("cifar", options=("--fake-data",), is_classifier=True),
    _own("imagenet_dummy", "-a", "resnet50", "-b", "64", is_classifier=True),
    _sample("folders", "photos", options=("--fake-data",), is_classifier=True),
    _own("reference_amp", "--amp", "--model-ema", is_classifier=True),
    _own("language_model", "--batch_size", "20"),
    _sample("gpt_like", "--batch_size=8"),
    _own("detection"),
    _own("diffusion"),
    _sample("gan"),
    _sample("by_hand"),
    _sample("ddp", options=("--ranks", "8")),
)


@dataclass(frozen=True, slots=True)
class Ran:
    """What one ``memfit run`` came to.

    Args:
        plan: its JSON; None where it ended with an error.
        why: the error, in a line.
        wall_seconds: from start to end, all runs of the script that it makes.
        cpu_seconds: of all its processes.
        resident_bytes: the most that one of its processes held.
    """

    plan: dict[str, Any] | None
    why: str
    wall_seconds: float
    cpu_seconds: float
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class Peak:
    """The most bytes that the allocator gives out, and holds, at the script's own batch."""

    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    """A script's line of the table; of PyTorch itself where nothing else is said.

    Args:
        name: of the script.
        library: whose trainer it uses; empty where it is plain PyTorch.
        versions: of PyTorch and of the library.
        date: of the run.
        load: of the machine in its last minute; a quiet one has less than its two cores.
        is_classifier: it trains a classifier of images.
        steps: that it reached.
        why: it did not train.
        wall_seconds: of ``memfit run`` at the script's own batch.
        cpu_seconds: of all its processes.
        resident_bytes: the most that one of its processes held.
        peak: None where it did not train.
        meta: the same on meta tensors.
        why_not_meta: in the words of that engine.
        largest_batch: found for the card, at most as many as the data set has where it was run.
        is_proved: PyTorch trained with that batch within the card's memory; None where it was not
            asked.
        why_not_largest: none was found or run.
        auto_seconds: of ``memfit run --batch auto``.
    """

    name: str
    library: str
    versions: dict[str, str]
    date: str
    load: float
    is_classifier: bool
    steps: int
    why: str
    wall_seconds: float
    cpu_seconds: float
    resident_bytes: int
    peak: Peak | None = None
    meta: Peak | None = None
    why_not_meta: str = ""
    largest_batch: int | None = None
    is_proved: bool | None = None
    why_not_largest: str = ""
    auto_seconds: float | None = None

    @property
    def is_reached(self) -> bool:
        """Whether it came to its third step."""
        return self.steps >= STEPS

    @property
    def difference(self) -> float | None:
        """Of meta tensors from PyTorch in what is allocated, relative; None without both."""
        if self.peak is None or self.meta is None:
            return None
        return self.meta.allocated_bytes / self.peak.allocated_bytes - 1


def run(case: Case, *options: str) -> Ran:
    """Run ``memfit run`` on a script, in a folder where nothing else lies.

    Args:
        case: the script.
        options: of ``memfit run``, beside the case's own.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        shutil.copy(case.path, folder)
        command = [
            sys.executable, "-m", "memfit", "run", "--json", "--gpu", CARD, *case.options, *options,
            case.path.name, *case.arguments,
        ]  # fmt: skip
        begin = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(), text=True,
            stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        assert process.stdout is not None
        printed = process.stdout.read()
        _, _, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        errors.seek(0)
        said = errors.read()
    plan = json.loads(printed) if printed else None
    why = next((line for line in said.splitlines() if line.startswith("error: ")), said[-200:])
    cpu_seconds = usage.ru_utime + usage.ru_stime
    why = "" if plan else why.removeprefix("error: ")
    return Ran(plan, why, seconds, cpu_seconds, usage.ru_maxrss * 1024)


def _environment() -> dict[str, str]:
    """With the memfit of this checkout, where none is installed."""
    paths = [str(BENCH.parent / "src"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def row_of(case: Case, *, is_quick: bool = False) -> Row:
    """A script on both engines, and its largest batch.

    Args:
        case: the script.
        is_quick: the largest batch is worked out, and not run.
    """
    real = run(case)
    versions = {name: metadata.version(name) for name in ("torch", case.library) if name}
    row = Row(
        case.name, case.library, versions, str(datetime.now(UTC).date()),
        round(os.getloadavg()[0], 1), case.is_classifier,
        steps=0 if real.plan is None else len(real.plan["script"]["steps"]), why=real.why,
        wall_seconds=round(real.wall_seconds, 1), cpu_seconds=round(real.cpu_seconds, 1),
        resident_bytes=real.resident_bytes, peak=_peak(real),
    )  # fmt: skip
    if real.plan is None:
        return row
    meta = run(case, "--engine", "meta", "--quick")
    row = replace(
        row, meta=_peak(meta), why_not_meta=meta.why, largest_batch=real.plan["max_batch_size"],
        why_not_largest=real.plan["script"]["why_fixed"],
    )  # fmt: skip
    return row if is_quick or row.largest_batch is None else _proved(case, row)


def _proved(case: Case, row: Row) -> Row:
    """With the largest batch as PyTorch took it."""
    auto = run(case, "--batch", "auto")
    if auto.plan is None:
        return replace(row, is_proved=False, why_not_largest=auto.why)
    proof = auto.plan["script"]["proof"]
    return replace(
        row, largest_batch=proof["batch_size"], is_proved=proof["fits"],
        auto_seconds=round(auto.wall_seconds, 1),
    )  # fmt: skip


def _peak(ran: Ran) -> Peak | None:
    if ran.plan is None:
        return None
    at = ran.plan["at"]
    return Peak(at["peak_allocated_bytes"], at["peak_reserved_bytes"])


def is_here(case: Case) -> bool:
    """Whether the library that the script uses is installed."""
    return not case.library or importlib.util.find_spec(case.library) is not None


# -- the report -----------------------------------------------------------------------------------


def missed(rows: Sequence[Row]) -> Iterator[str]:
    """What the table should hold and does not, a sentence each."""
    reached = sum(row.is_reached for row in rows)
    if reached < REACHED * len(rows):
        yield f"{reached} of {len(rows)} scripts reach step {STEPS}"
    for row in rows:
        if row.wall_seconds > MOST_SECONDS:
            yield f"{row.name} takes {row.wall_seconds:.0f} s"
        if row.is_classifier and row.resident_bytes > MOST_RESIDENT_BYTES:
            yield f"{row.name} holds {row.resident_bytes / GIB:.2f} GiB resident"
        if row.difference is not None and abs(row.difference) > ALLOCATED_WITHIN:
            yield f"{row.name}: the engines differ by {row.difference:+.2%} allocated"
        if row.is_proved is False:
            yield f"{row.name}: batch {row.largest_batch:,} was found and does not run"


def table(rows: Sequence[Row]) -> str:
    """The scripts, what they lack, and the bars, as plain text."""
    lines = [
        f"{'script':22}{'steps':>6}{'wall s':>8}{'CPU s':>7}{'res. GiB':>9}{'allocated':>15}"
        f"{'reserved':>15}{'meta':>9}{'batch':>8}  proved  load",
        *map(_line, rows),
    ]
    notes = [
        f"  {row.name}: {what}{why}"
        for row in rows
        for what, why in (
            ("", row.why),
            ("on meta tensors: ", row.why_not_meta),
            ("largest batch: ", row.why_not_largest),
        )
        if why
    ]
    reached = sum(row.is_reached for row in rows)
    return "\n".join(
        [
            *lines,
            *(["", "Not everything:", *notes] if notes else []),
            "",
            f"{reached} of {len(rows)} reach step {STEPS} (at least {REACHED:.0%}); at most "
            f"{MOST_SECONDS:.0f} s each, {MOST_RESIDENT_BYTES / GIB:.0f} GiB resident for image "
            f"classifiers, engines within {ALLOCATED_WITHIN:.1%} allocated.",
            *(f"  missed: {sentence}" for sentence in missed(rows)),
        ]
    )


def _line(row: Row) -> str:
    start = (
        f"{row.name:22}{row.steps:6}{row.wall_seconds:8.1f}{row.cpu_seconds:7.1f}"
        f"{row.resident_bytes / GIB:9.2f}"
    )
    if row.peak is None:
        return f"{start}  did not train{'':41}{row.load:6.1f}"
    meta = "-" if row.difference is None else f"{row.difference:+.3%}"
    batch = "-" if row.largest_batch is None else f"{row.largest_batch:,}"
    proved = {None: "-", True: "yes", False: "no"}[row.is_proved]
    largest = f"{batch:>8}{proved:>8}{row.load:6.1f}"
    return f"{start}{row.peak.allocated_bytes:15,}{row.peak.reserved_bytes:15,}{meta:>9}{largest}"


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything as plain data, with the machine."""
    return {
        "schema_version": 1,
        "machine": {
            "platform": platform.platform(),
            "cpu_count": os.cpu_count(),
            "python": platform.python_version(),
        },
        "card": CARD,
        "scripts": [asdict(row) for row in rows],
    }


def stored() -> list[Row]:
    """The lines of the file."""
    if not RESULTS.exists():
        return []
    peaks = ("peak", "meta")
    return [
        Row(**(row | {name: row[name] and Peak(**row[name]) for name in peaks}))
        for row in json.loads(RESULTS.read_text())["scripts"]
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write each line as it comes, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [case.name for case in CASES]
    parser.add_argument("--only", nargs="+", choices=names, help="these")
    parser.add_argument("--quick", action="store_true", help="do not run the largest batch")
    parser.add_argument("--table", action="store_true", help="run nothing, print what is stored")
    options = parser.parse_args(arguments)
    chosen = [case for case in CASES if case.name in (options.only or names)]
    if options.table:
        chosen = []
    for case in filter(is_here, chosen):
        print(f"running {case.name}", file=sys.stderr)
        new = row_of(case, is_quick=options.quick)
        known = {row.name: row for row in stored()} | {case.name: new}
        rows = [known[name] for name in names if name in known]
        RESULTS.write_text(json.dumps(document(rows), indent=1) + "\n")
    rows = stored()
    print(table(rows))
    absent = [case.name for case in chosen if not is_here(case)]
    if absent:
        print(f"Not run, see bench/requirements-scripts.txt: {', '.join(absent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
