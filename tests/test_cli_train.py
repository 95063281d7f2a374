"""``memfit train``, ``predict``, ``evaluate`` and ``export`` as a shell sees them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from memfit.cli import main
from memfit.errors import ExitCode

TRAIN = [
    "train", "--model", "mlp", "--data", "shapes,train=96,val=32,test=32,size=16",
    "--global-batch", "24",
    "--epochs", "3", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def lines_of(text: str) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


# -- train -----------------------------------------------------------------------------------------


def test_a_line_for_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, errors = run(capsys, *TRAIN, "--name", "run")
    assert code == ExitCode.OK
    epochs = [line for line in errors.splitlines() if line.startswith("epoch")]
    assert [int(line.split()[1]) for line in epochs] == [1, 2, 3]
    assert all("accuracy" in line and "samples/s" in line for line in epochs)
    assert "run folder runs/run" in errors
    assert re.search(r"Trained 12 steps: validation accuracy \d+\.\d+%", out)
    assert "runs/run/checkpoints/best.pt" in out
    assert "\x1b" not in out + errors


def test_epochs_that_are_not_evaluated_have_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, errors = run(capsys, *TRAIN, "--evaluate-every", "3")
    epochs = [line for line in errors.splitlines() if line.startswith("epoch")]
    assert ["accuracy" in line for line in epochs] == [False, False, True]
    assert all("train loss" in line for line in epochs)


def test_without_a_val_split(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    noise = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(4):
            image = Image.fromarray(noise.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            image.save(folder / "photos" / label / f"{number}.png")
    command = ["train", "--model", "mlp", "--data", "photos", "--epochs", "2", "--name", "run"]
    code, out, errors = run(capsys, *command, "--val-share", "0")
    assert code == ExitCode.OK
    assert "Nothing is validated" in errors
    assert sum(line.startswith("epoch") for line in errors.splitlines()) == 2
    assert "runs/run/checkpoints/last.pt" in out, "there is no best one"
    assert Path("runs/run/checkpoints/last.pt").exists()


def test_json_lines(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "chatty.py").write_text(
        "from torch import nn\n"
        "class Chatty(nn.Flatten):\n"
        "    def forward(self, x):\n"
        "        print('hello')\n"
        "        return super().forward(x)\n"
        "def build():\n"
        "    return nn.Sequential(Chatty(), nn.Linear(768, 8))\n"
    )
    arguments = [*TRAIN, "--model", "chatty.py:build", "--name", "run", "--json"]
    arguments.remove("mlp")
    arguments.remove("--model")
    code, out, errors = run(capsys, *arguments)
    assert code == ExitCode.OK
    lines = lines_of(out)
    assert [line["event"] for line in lines] == [
        "began", "checkpoint", *(["step"] * 4 + ["evaluation", "checkpoint"]) * 3, "test", "ended",
    ]  # fmt: skip
    assert lines[0]["schema_version"] == 1
    assert lines[0]["total_steps"] == 12
    assert lines[-1]["status"] == "finished"
    assert lines[-1]["summary"]["step"] == 12
    assert "hello" in errors, "what a model prints is no result"


@pytest.mark.parametrize("options", [["--json"], []])
def test_a_reader_that_goes_away(options: list[str], folder: Path) -> None:
    command = [sys.executable, "-m", "memfit", *TRAIN, "--name", "run", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()  # as head -1 does
    assert process.wait() == ExitCode.OK
    facts = json.loads((folder / "runs/run/run.json").read_text())
    assert facts["status"] == "finished"


def test_numbers_that_are_not_finite_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The loss of the test set may overflow where that of the training has not yet."""
    command = [*TRAIN, "--lr", "1e30", "--json", "--name", "run", "--epochs", "1"]
    command[command.index("--epochs") : command.index("--epochs") + 2] = []
    command += ["--steps", "1", "--warmup", "0"]
    code, out, _ = run(capsys, *command)
    assert code == ExitCode.OK
    (evaluation,) = (line for line in lines_of(out) if line["event"] == "evaluation")
    assert evaluation["accuracy"] >= 0
    assert lines_of(Path("runs/run/summary.json").read_text().replace("\n", ""))


def test_a_loss_that_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = run(capsys, *TRAIN, "--lr", "1e30", "--name", "run")
    assert code == ExitCode.ERROR
    assert re.search(
        r"error: The loss of step \d+ is (nan|inf)\. Its batch: .* and 16 more", errors
    )
    assert "The model is as it was before the step." in errors
    code, _, errors = run(capsys, "train", "--resume", "runs/run")
    assert code == ExitCode.ERROR
    assert "resumed after step" in errors


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["a.toml"], 2, "Unknown key in a.toml: 'epoch'", "epochs"),
        ([*TRAIN, "--num-classes", "4"], 1, "lie outside of 0 to 3", "--num-classes"),
        ([*TRAIN, "--input-shape", "1x16x16"], 2, "takes grey images", "--colour grey"),
        ([*TRAIN, "--weights", "none.pt"], 1, "No such file", ""),
        ([*TRAIN, "--resume", "runs/run"], 2, "--resume goes on with a run", "only --resume"),
        (["train", "--resume", "runs/nothing"], 1, "There is no run runs/nothing", ""),
        ([*TRAIN, "--name", "../up"], 2, "is no name for a run", ""),
        ([*TRAIN, "--memory", "1MiB"], 3, "do not fit", "memfit plan"),
        ([*TRAIN, "--optimizer", "adamw,lr=oops"], 2, "", ""),
        ([*TRAIN, "--steps", "0"], 2, "steps", "between 1"),
    ],
)
def test_what_is_refused(
    arguments: list[str], code: int, message: str, hint: str, folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (folder / "a.toml").write_text('model = "mlp"\nepoch = 3\n')
    if arguments[0] == "a.toml":
        arguments = ["train", *arguments]
    found, out, errors = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert message in errors
    assert hint in errors
    assert errors.startswith("error: ")
    assert not any((folder / "runs").glob("*")), "no folder is left behind"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = run(capsys, *TRAIN[:-1], "cuda")
    assert code == ExitCode.USAGE
    assert "There is no CUDA GPU here" in errors


def test_a_finished_run_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, *TRAIN, "--name", "run")
    code, _, errors = run(capsys, "train", "--resume", "runs/run")
    assert code == ExitCode.ERROR
    assert "is finished: there is nothing to resume" in errors
    code, _, errors = run(capsys, *TRAIN, "--name", "run")
    assert code == ExitCode.ERROR
    assert "a run never writes over it" in errors


# -- what a run is good for ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("runs")
    command = [*TRAIN, "--runs", str(root), "--name", "run", "--ema", "--lr", "0.05"]
    assert main(command) == ExitCode.OK
    return str(root / "run")


def test_evaluate(trained: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = run(capsys, "evaluate", trained, "--json", "--figure", "confusion.png")
    found = json.loads(out)
    assert code == ExitCode.OK
    assert found["samples"] == sum(map(sum, found["confusion"])) == 32
    assert (folder / "confusion.png").stat().st_size > 1000
    code, out, _ = run(capsys, "evaluate", trained)
    assert f"accuracy {found['accuracy']:.2%} on 32 test images" in " ".join(out.split())
    code, out, _ = run(capsys, "evaluate", trained, "--split", "train", "--json")
    assert json.loads(out)["samples"] == 96
    code, _, errors = run(capsys, "evaluate", trained, "--split", "tran")
    assert code == ExitCode.USAGE
    assert "Did you mean train?" in errors


def test_predict(trained: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(folder / "black.png")
    (folder / "text.png").write_text("no image")
    code, out, _ = run(capsys, "predict", trained, "black.png", "--json", "--top", "8")
    assert code == ExitCode.OK
    (found,) = json.loads(out)["predictions"]
    assert found["image"] == "black.png"
    shares = [entry["probability"] for entry in found["classes"]]
    assert len(shares) == 8
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    code, out, _ = run(capsys, "predict", trained, "black.png", "black.png")
    assert out.count("black.png") == 2
    for wrong in ("text.png", "missing.png"):
        code, out, errors = run(capsys, "predict", trained, wrong)
        assert (code, out) == (ExitCode.ERROR, "")
        assert wrong in errors


def test_export(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file

    code, out, _ = run(capsys, "export", trained, "weights.safetensors")
    assert code == ExitCode.OK
    assert "averaged weights" in out
    best = torch.load(f"{trained}/checkpoints/best.pt", weights_only=True)
    exported = load_file("weights.safetensors")
    assert exported.keys() == best["model_average"].keys()
    assert all(torch.equal(exported[name], best["model_average"][name]) for name in exported)
    code, _, errors = run(capsys, "export", trained, "weights.safetensors")
    assert code == ExitCode.ERROR or code == ExitCode.USAGE
    assert "--force" in errors


def test_an_export_never_replaces_a_checkpoint(tmp_path: Path) -> None:
    import memfit

    data = "shapes,train=32,val=16,test=16,size=16"
    run = memfit.train(model="mlp", data=data, epochs=1, runs=tmp_path, name="a b").path
    best = run / "checkpoints" / "best.pt"
    before = best.read_bytes()
    assert main(["export", str(run), str(best), "--force"]) == 2
    assert best.read_bytes() == before


def test_a_bad_image_hides_no_other_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import memfit

    data = "shapes,train=32,val=16,test=16,size=16"
    run = memfit.train(model="mlp", data=data, epochs=1, runs=tmp_path, name="run").path
    Image.new("RGB", (16, 16)).save(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    images = [str(tmp_path / name) for name in ("empty.png", "good.png")]
    assert main(["predict", str(run), *images, "--json"]) == 1
    printed = capsys.readouterr()
    assert [p["image"] for p in json.loads(printed.out)["predictions"]] == images[1:]
    assert "empty.png: the file is empty" in printed.err


@pytest.mark.parametrize(
    ("line", "words"),
    [('lr = "fast"', "lr is 'fast'; it must be a number"),
     ("optimizer = {momentum = 0.9}", "The optimizer has no name")],
)  # fmt: skip
def test_values_of_the_wrong_kind(
    line: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'model = "mlp"\ndata = "shapes,train=32,val=16,test=16,size=16"\n{line}\n')
    assert main(["train", str(recipe), "--runs", str(tmp_path / "runs")]) == 2
    assert words in capsys.readouterr().err
