"""``memfit measure`` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from memfit.commands.measure import measure
from memfit.errors import MemfitError, NoGPU, UsageError
from memfit.measure.session import Session

SMALL = ["mlp", "--input-shape", "1x8x8", "--optimizer", "sgd,momentum=0.9"]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, run_in_process: Callable[..., Any]) -> App:
    session = partial(Session, run=run_in_process)
    monkeypatch.setattr("memfit.measure.session.Session", session)
    made = App(name="memfit", result_action="return_value")
    made.command(measure)
    return made


def call(app: App, *words: str) -> int:
    return int(app(["measure", *words], exit_on_error=False, print_error=False))


def on_cpu(folder: Path, size: str = "64MiB") -> list[str]:
    return ["--on", f"cpu:{size}", "--records", str(folder)]


def test_one_recipe(app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(app, *SMALL, "--batch-size", "8", *on_cpu(tmp_path)) == 0
    text = capsys.readouterr().out
    assert "Micro-batch 8" in text
    assert "no figure here is one's" in " ".join(text.split())
    (path,) = tmp_path.glob("cpu-64mib/*.json")
    assert str(path) in text.replace("\n", "")


def test_json_alone_is_on_stdout(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(app, *SMALL, "--batch-size", "8", "--json", *on_cpu(tmp_path)) == 0
    content = json.loads(capsys.readouterr().out)
    (outcome,) = content["outcomes"]
    assert outcome["measurement"]["batch_size"] == 8
    assert outcome["comparison"]["figures"][0]["name"] == "peak allocated"
    assert content["target"]["kind"] == "cpu"


def test_what_does_not_fit_has_its_exit_code(app: App, tmp_path: Path) -> None:
    assert call(app, *SMALL, "--batch-size", "100000", *on_cpu(tmp_path, "8MiB")) == 3


def test_a_suite_by_its_file(app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(
        "schema_version = 1\n[[recipe]]\nname = 'small'\nmodel = 'mlp'\ninput_shape = [1, 8, 8]\n"
        "batch_sizes = [2, 100_000]\n"
    )
    assert call(app, "--suite", str(suite), *on_cpu(tmp_path, "8MiB")) == 0
    captured = capsys.readouterr()
    assert "2 measured" in captured.out
    assert "small, micro-batch 2: ran" in captured.err
    assert call(app, "--suite", str(suite), *on_cpu(tmp_path, "8MiB")) == 0
    assert "2 kept from before" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["--suite", "--batch-size", "8"],
        ["mlp", "--minutes", "3"],
        ["--suite", "--minutes", "-1"],
        [],
    ],
)
def test_what_does_not_go_together(app: App, tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(UsageError):
        call(app, *words, *on_cpu(tmp_path))


def test_without_a_gpu_it_is_an_error(
    app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(NoGPU) as caught:
        call(app, *SMALL)
    assert isinstance(caught.value, MemfitError)
    assert caught.value.exit_code == 1
