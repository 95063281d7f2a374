"""The records in use: an unexplained change of accuracy fails, and this shows that it can."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from memfit.cards.catalogue import gpu
from memfit.measure.records import Limit, Measurement, Record, load_records, save_record
from memfit.measure.session import Session
from memfit.measure.suite import Entry
from memfit.measure.target import Target

BENCH = Path(__file__).parents[2] / "bench"
_EVERY = 5  # all are planned by `make truth`


def load_truth() -> ModuleType:
    spec = importlib.util.spec_from_file_location("truth", BENCH / "truth" / "truth.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["truth"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def truth() -> Any:
    before = list(sys.path)
    yield load_truth()
    sys.path[:] = before
    sys.modules.pop("truth", None)


@pytest.fixture
def cpu_record(make_session: Callable[..., Session], entry: Entry) -> Record:
    """A record of the CPU under a virtual budget, made now: it is no GPU's."""
    return make_session().measure_suite([entry]).outcomes[-1].record


def as_of_gpu(record: Record, **figures: int) -> Record:
    """The same figures as if a GPU had given them, to try what is done with a GPU's record."""
    card = gpu("rtx-3060")
    measurements = tuple(replace(m, **figures) for m in record.measurements)
    return replace(record, target=Target("cuda", card).facts(), measurements=measurements)


def test_the_records_of_gpus_keep_their_errors(truth: Any) -> None:
    records = [r for r in load_records(BENCH / "truth" / "records").values() if r.is_of_gpu]
    rows = truth.of_this_torch(truth.hold(records[::_EVERY]).rows)
    assert truth.changes(rows, truth.accepted_errors()) == []


def test_all_records_here_are_of_gpus_and_where_they_belong() -> None:
    for path, record in load_records(BENCH / "truth" / "records").items():
        assert record.is_of_gpu
        assert path.parent.name == record.target_key
        assert path.stem == record.name


def test_the_same_prediction_is_no_change(truth: Any, cpu_record: Record) -> None:
    rows = truth.hold([cpu_record]).rows
    assert [row.comparison.batch_size for row in rows] == [4, 8, 16]
    accepted = truth.baseline_of(rows)
    assert truth.changes(rows, accepted) == []
    assert len(truth.changes(rows, {})) == 3


def test_a_changed_rule_is_found(
    truth: Any, cpu_record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = truth.baseline_of(truth.hold([cpu_record]).rows)
    monkeypatch.setattr(
        "memfit.memory.kernels.blas_workspaces.cublaslt_workspace_bytes",
        lambda *_, **__: 3 * 1024 * 1024,
    )
    monkeypatch.setattr(
        "memfit.memory.kernels.blas_workspaces.cublas_workspace_bytes",
        lambda *_, **__: 3 * 1024 * 1024,
    )
    found = truth.changes(truth.hold([cpu_record]).rows, accepted)
    assert any("peak allocated was" in change for change in found)


def test_a_changed_measurement_is_found(truth: Any, cpu_record: Record) -> None:
    accepted = truth.baseline_of(truth.hold([cpu_record]).rows)
    first = cpu_record.measurements[0]
    assert first.peak_reserved_bytes is not None
    other = replace(first, peak_reserved_bytes=first.peak_reserved_bytes * 101 // 100)
    rows = truth.hold([cpu_record.with_measurement(other)]).rows
    (change,) = truth.changes(rows, accepted)
    assert "/4: peak reserved was" in change


def test_figures_from_beside_other_processes_do_not_count(truth: Any, cpu_record: Record) -> None:
    beside = replace(cpu_record.measurements[0], others=("game (pid 9)",))
    held = truth.hold([cpu_record.with_measurement(beside)])
    assert len(held.rows) == 2
    assert held.left_out == 1


def run(truth: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    arguments = ["--records", str(folder / "records"), "--output", str(folder / "accuracy.md")]
    code = truth.main([*arguments, "--no-peers"])
    text = capsys.readouterr().out
    assert (folder / "accuracy.md").read_text() == text
    return code, text


def test_without_records_nothing_is_claimed(
    truth: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = run(truth, tmp_path, capsys)
    assert code == 0
    assert "No GPU has been measured" in text
    assert text.count("not yet measured") == 7
    assert " met " not in text
    monkeypatch.setattr(truth, "OTHERS", tmp_path / "none.json")
    monkeypatch.setenv("MEMFIT_TRUTH", str(tmp_path / "none"))
    assert "No results of `bench/accuracy.py` are here" in run(truth, tmp_path, capsys)[1]


def test_others_figures_stand_in_with_their_date(
    truth: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = json.loads((BENCH / "results" / "accuracy.json").read_text())
    text = run(truth, tmp_path, capsys)[1]
    assert f"Figures of {recorded['date']}" in text
    assert f"{recorded['gpumemnet']['summary']['median']:.2%}" in text


def test_records_of_the_cpu_are_left_out(
    truth: Any, tmp_path: Path, cpu_record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    save_record(tmp_path / "records" / "cpu-64mib" / "a.json", cpu_record)
    assert "No GPU has been measured" in run(truth, tmp_path, capsys)[1]


def test_goals_are_judged(
    truth: Any, tmp_path: Path, cpu_record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = as_of_gpu(cpu_record)
    (row, *_) = truth.hold([plain]).rows
    by_name = {f.name: f.predicted_bytes for f in row.comparison.figures}
    exact = Measurement(
        4, "ok", "", by_name["peak allocated"], by_name["peak reserved"],
        gpu_used_bytes=2 * by_name["peak reserved"] + 500 * 1024**2,
    )  # fmt: skip
    record = replace(plain, measurements=(exact,), limit=Limit(8, ((8, "ok"),)))
    save_record(tmp_path / "records" / "rtx-3060" / f"{record.name}.json", record)
    code, text = run(truth, tmp_path, capsys)
    assert code == 1  # it is in no baseline
    assert "| peak allocated: median at most 0.5 % | 0.00% | met |" in text
    assert "**missed**" in text
    assert "| predicted largest batch fits: at least 99 % of recipes | 0.0% | **missed** |" in text
    assert f"rtx-3060/{record.name}/4" in text
