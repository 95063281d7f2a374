from __future__ import annotations

import json
from pathlib import Path

import pytest

from memfit.cli import main

TINY = [
    "study", "mlp", "--data", "shapes,train=128,val=32,test=32,size=8,channels=1", "--lr", "0.02",
    "--epochs", "1", "--seeds", "1", "--budget", "3s", "--device", "cpu",
]  # fmt: skip


def test_a_study_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*TINY, "--batch-sizes", "16,32", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["folder"] == "studies/mlp-shapes"
    folder = tmp_path / "studies" / "mlp-shapes"
    assert json.loads((folder / "study.json").read_text()) == content
    assert len(content["throughput"]) == 2
    for name in ("report.html", "recommended.toml", "figures/memory.png"):
        assert (folder / name).is_file()
    assert main([*TINY, "--batch-sizes", "16,32"]) == 0
    seen = capsys.readouterr()
    assert "Speed, and predicted memory" in seen.out
    assert "known" in seen.err
    assert main([*TINY, "--batch-sizes", "16,32", "--optimizer", "adamw"]) == 2
    assert "another recipe: optimizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study", "mlp"], "Which batch sizes?"),
        (["study", "mlp", "--demo"], "brings its own recipe"),
        ([*TINY, "--batch-sizes", "16"], "compares different batch sizes"),
        ([*TINY, "--batch-sizes", "16,999"], "more than the data"),
        ([*TINY, "--batch-sizes", "16,32", "--goal", "0.9"], "is no goal"),
        ([*TINY, "--batch-sizes", "16;32"], "no list of batch sizes"),
    ],
)
def test_bad_input(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("studies/*/runs/*"))
