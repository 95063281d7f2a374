"""The bench of scripts: what it runs is whole, and its table says what is stored and missed."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def load_bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_scripts", ROOT / "bench" / "scripts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_scripts"] = module
    spec.loader.exec_module(module)
    return module


bench = load_bench()


@pytest.mark.parametrize("case", bench.CASES, ids=lambda case: case.name)
def test_a_script_compiles_and_fetches_nothing(case: Any) -> None:
    source = case.path.read_text(encoding="utf-8")
    compile(source, case.path.name, "exec")
    assert not any(word in source for word in ("http", "from_pretrained", "pretrained=True"))
    assert "download=True" not in source or "--fake-data" in case.options


def test_every_script_of_the_folder_is_run_once() -> None:
    paths = [case.path for case in bench.CASES]
    assert len(set(paths)) == len(paths) == 20
    assert set((ROOT / "bench" / "scripts").glob("*.py")) <= set(paths)


def test_every_library_is_pinned() -> None:
    pinned = (ROOT / "bench" / "requirements-scripts.txt").read_text()
    pinned += (ROOT / "constraints.txt").read_text()
    names = {line.partition("==")[0] for line in pinned.splitlines()}
    assert {case.library for case in bench.CASES if case.library} <= names


def test_the_table_has_every_stored_line() -> None:
    rows = bench.stored()
    assert {row.name for row in rows} <= {case.name for case in bench.CASES}
    assert len(rows) > 0
    shown = bench.table(rows).splitlines()
    for row in rows:
        (line,) = (line for line in shown if line.startswith(f"{row.name} "))
        assert line.split()[1] == str(row.steps)
        if row.peak is not None:
            assert f"{row.peak.allocated_bytes:,}" in line


def test_each_bar_that_is_missed_is_named() -> None:
    peak = bench.Peak(10**9, 2 * 10**9)
    good = bench.Row(
        "cifar", "", {"torch": "2.15.0"}, "2026-11-29", 0.5, True, 3, "", 59.0, 40.0, 2**30,
        peak, peak, "", 32, True, "", 90.0,
    )  # fmt: skip
    assert list(bench.missed([good])) == []
    bad = {
        "0 of 1 scripts reach step 3": {"steps": 2},
        "cifar takes 61 s": {"wall_seconds": 61.0},
        "cifar holds 2.50 GiB resident": {"resident_bytes": 5 * 2**29},
        "cifar: the engines differ by +0.20% allocated": {"meta": bench.Peak(1_002_000_000, 1)},
        "cifar: batch 32 was found and does not run": {"is_proved": False},
    }
    for sentence, change in bad.items():
        assert list(bench.missed([replace(good, **change)])) == [sentence]
