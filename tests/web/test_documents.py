"""Studies and runs as documents: what is on the disk, read without disturbing who writes it."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memfit.errors import OtherVersion, RunError
from memfit.page.documents.run import run_document, run_names
from memfit.page.documents.study import study_document, study_names
from memfit.trainer.run.run_folder import RunFolder

DOCS = Path(__file__).parents[2] / "docs"

# -- runs ------------------------------------------------------------------------------------------


def step(number: int) -> dict[str, Any]:
    return {
        "step": number, "event": "step", "epoch": 0, "loss": 1 / number, "learning_rate": 0.1,
        "micro_batch": 8,
    }  # fmt: skip


@pytest.fixture
def running(tmp_path: Path) -> Any:
    """A run that this process writes."""
    with RunFolder.create(tmp_path / "runs", "one", command=["memfit", "train"]) as run:
        run.write_recipe({"model": "mlp", "global_batch": 64, "steps": 10})
        yield run


def test_a_run_that_has_just_begun(running: RunFolder) -> None:
    found = run_document(running.path)
    assert (found["name"], found["status"], found["rows"]) == ("one", "running", [])
    assert found["recipe"] == {"model": "mlp", "global_batch": 64, "steps": 10}
    assert (found["plan"], found["summary"], found["pace"]) == (None, None, None)
    json.dumps(found, allow_nan=False)


def test_a_growing_run_gives_what_is_new(running: RunFolder) -> None:
    for number in (1, 2, 3):
        running.metrics.append(step(number))
    first = run_document(running.path)
    assert [row["step"] for row in first["rows"]] == [1, 2, 3]
    running.metrics.append(step(4))
    then = run_document(running.path, after=first["row_count"])
    assert (then["first_row"], [row["step"] for row in then["rows"]]) == (3, [4])
    assert run_document(running.path, after=4)["rows"] == []


def test_a_half_written_line_is_left_for_the_next_time(running: RunFolder) -> None:
    running.metrics.append(step(1))
    with running.metrics.path.open("a") as file:
        file.write('{"step": 2, "ev')
    assert [row["step"] for row in run_document(running.path)["rows"]] == [1]
    with running.metrics.path.open("a") as file:
        file.write('ent": "step"}\n')
    assert [row["step"] for row in run_document(running.path, after=1)["rows"]] == [2]


def test_rows_that_were_taken_back_are_all_given_again(running: RunFolder) -> None:
    for number in range(1, 6):
        running.metrics.append(step(number))
    running.metrics.rewind(2)
    found = run_document(running.path, after=5)
    assert (found["first_row"], [row["step"] for row in found["rows"]]) == (0, [1, 2])


def test_reading_changes_nothing_and_lets_the_writer_write(running: RunFolder) -> None:
    running.metrics.append(step(1))
    before = {path: path.stat().st_mtime_ns for path in running.path.rglob("*")}
    run_document(running.path)
    assert {path: path.stat().st_mtime_ns for path in running.path.rglob("*")} == before
    running.metrics.append(step(2))


def test_a_run_whose_process_is_gone_was_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; "
        "from memfit.trainer.run.run_folder import RunFolder; "
        "RunFolder.create(Path(sys.argv[1]), 'gone'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert run_document(tmp_path / "gone")["status"] == "killed"
    lock = tmp_path / "gone" / "run.lock"
    lock.write_text("\nprocess 1 on another-machine\n")  # nobody here can tell
    assert run_document(tmp_path / "gone")["status"] == "running"
    lock.write_text(f"\nprocess {os.getpid()} on {os.uname().nodename}\n")
    assert run_document(tmp_path / "gone")["status"] == "running"


def test_a_finished_run_keeps_its_end(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "done") as run:
        run.write_json("summary.json", {"step": 3, "evaluation": {
            "accuracy": 0.5, "loss": math.inf, "samples": 8, "confusion": [[1] * 999] * 999,
        }})  # fmt: skip
        run.set_status("finished")
    found = run_document(tmp_path / "done")
    assert found["status"] == "finished"
    assert found["summary"]["evaluation"] == {"accuracy": 0.5, "loss": None, "samples": 8}


def test_what_is_no_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nothing"):
        with pytest.raises(RunError):
            run_document(tmp_path / name)
    with RunFolder.create(tmp_path, "bad") as run:
        pass
    (run.path / "recipe.toml").write_text("this is = = no TOML")
    with pytest.raises(RunError, match=r"recipe\.toml is damaged"):
        run_document(run.path)
    facts = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(facts | {"schema_version": 99}))
    with pytest.raises(OtherVersion):
        run_document(run.path)


@pytest.mark.parametrize("more", [{}, {"status": 5}, {"status": "finished", "resumed": 5}])
def test_a_run_without_a_status_is_damaged(tmp_path: Path, more: dict[str, Any]) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"schema_version": 1} | more))
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        run_document(tmp_path)


def test_names_begin_with_the_newest(tmp_path: Path) -> None:
    assert run_names(tmp_path / "missing") == []
    for age, name in enumerate(("old", "newer", "newest")):
        with RunFolder.create(tmp_path, name) as run:
            os.utime(run.path / "run.json", (1000 + age, 1000 + age))
    (tmp_path / "no run").mkdir()
    assert run_names(tmp_path) == ["newest", "newer", "old"]


# -- studies ---------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The study of the documentation."""
    folder = tmp_path / "studies" / "demo"
    folder.mkdir(parents=True)
    shutil.copy(DOCS / "batch-size" / "study.json", folder)
    (folder / "settings.json").write_text("{}")
    return folder


def test_a_study_is_what_it_measured(study: Path) -> None:
    found, known = study_document(study), json.loads((study / "study.json").read_text())
    assert (found["name"], found["is_finished"]) == ("demo", True)
    for name in ("sizes", "memory", "throughput", "noise", "recommendation"):
        assert found[name] == known[name]
    json.dumps(found, allow_nan=False)


def test_fitted_curves_are_the_fits(study: Path) -> None:
    from memfit.study.science.rate_rule import RateRule
    from memfit.study.science.tradeoff import CriticalBatch, TradeOff

    found = study_document(study)
    fit, rule = found["tradeoff"], found["rate_rule"]
    tradeoff = TradeOff(**fit | {"critical": CriticalBatch(**fit["critical"])})
    rates = RateRule(**{name: value for name, value in rule.items() if name != "verdict"})
    ends = [found["sizes"][place]["batch_size"] for place in (0, -1)]
    for name, curve in (("steps", tradeoff.steps), ("rate", rates.rate)):
        points = found["curves"][name]
        assert [points[0][0], points[-1][0]] == pytest.approx(ends)
        for batch, value in points:
            assert value == pytest.approx(curve(batch))


def test_a_study_without_an_end_counts_its_trials(study: Path) -> None:
    (study / "study.json").unlink()
    (study / "runs" / "b00016").mkdir(parents=True)
    (study / "runs" / "b00016" / "trial.json").write_text("{}")
    assert study_document(study) == {
        "schema_version": 1, "kind": "study", "name": "demo", "is_finished": False, "trials": 1,
    }  # fmt: skip


def test_what_is_no_study_says_so(study: Path) -> None:
    with pytest.raises(RunError, match="no study"):
        study_document(study.parent / "other")
    (study / "study.json").write_text('{"schema_version": 99}')
    with pytest.raises(RunError, match="another version"):
        study_document(study)
    for damaged in ("[1]", "{", ""):
        (study / "study.json").write_text(damaged)
        with pytest.raises(RunError, match="damaged"):
            study_document(study)


@pytest.mark.parametrize(
    "content",
    ['{"schema_version": 1}', '{"schema_version": 1, "sizes": [5]}',
     '{"schema_version": 1, "sizes": [{"batch_size": 0}]}',
     '{"schema_version": 1, "sizes": [{"batch_size": 8}], "tradeoff": {"min_steps": "x"}}'],
)  # fmt: skip
def test_a_study_that_misses_what_it_was_fitted_to_is_damaged(study: Path, content: str) -> None:
    (study / "study.json").write_text(content)
    with pytest.raises(RunError, match=r"study\.json is damaged"):
        study_document(study)


def test_studies_by_name(study: Path) -> None:
    (study.parent / "no study").mkdir()
    assert study_names(study.parent) == ["demo"]
    assert study_names(study.parent / "missing") == []
