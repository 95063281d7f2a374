"""A run that was stopped, crashed or killed comes to what it would have come to, to the bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import (
    CONV,
    DATA,
    Crash,
    Watcher,
    assert_same,
    crash,
    recipe,
    sigterm,
    state_of,
    steps_of,
    stop_at,
)
from torch import nn

from memfit.errors import CheckpointError, OtherVersion, RunError, UsageError, WeightsMismatch
from memfit.recipe.toml import recipe_to_toml
from memfit.step.job import Job, resolve
from memfit.trainer.run.run import train
from memfit.trainer.run.run_folder import RunFolder
from memfit.trainer.step.evaluation import Evaluation

EVERYTHING: dict[str, Any] = {
    "optimizer": {"name": "adamw", "weight_decay": 0.05},
    "augment": ("randaugment", "flip", "crop", "mixup"),
    "workers": 1,
    "ema": True,
    "ema_decay": 0.9,
    "precision": "amp-bf16",
    "clip_grad_norm": 0.5,
    "label_smoothing": 0.1,
    "checkpoint_every": 3,
    "schedule": "step",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "everything": EVERYTHING,
    "momentum": {"optimizer": {"name": "sgd", "momentum": 0.9}, "batch_size": 8},
    "early stopping": {"early_stopping": 2, "lr": 1e-12, "epochs": 6, "evaluate_every": 1},
    "steps": {"steps": 7, "optimizer": "lion", "evaluate_every": 3, "keep_checkpoints": 1},
}


@pytest.fixture(scope="session")
def conv(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "conv.py"
    path.write_text(CONV)
    return f"{path}:build"


@pytest.fixture(scope="session")
def undisturbed(conv: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each recipe comes to when it is left in peace."""
    root = tmp_path_factory.mktemp("undisturbed")
    found = {}
    for name, options in OPTIONS.items():
        result = train(recipe(conv, **options), runs=root, name=name)
        assert result.status == "finished"
        found[name] = state_of(result.path)
    return found


# -- stopped ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("everything", [1, 2]),
        ("everything", [3, 4]),  # at a checkpoint; at the end of an epoch
        ("everything", [7, 8]),  # at the last step
        ("momentum", [2, 4, 5]),
        ("early stopping", [5, 12]),  # the step after which it ends early
        ("steps", [4, 7]),
    ],
)
def test_stopped_and_resumed(
    name: str, steps: list[int], conv: str, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    first, *others = steps
    path = stop_at(first, recipe(conv, **OPTIONS[name]), tmp_path, "run").path
    for step in others:
        again = train(resume=path, listener=Watcher(step, sigterm))
        assert (again.status, again.step) == ("stopped", step)
    watcher = Watcher()
    result = train(resume=path, listener=watcher)
    assert result.status == "finished"
    assert result.evaluation is not None
    assert watcher.beginning is not None
    assert watcher.beginning.step == steps[-1]
    assert_same(state_of(path), undisturbed[name])
    assert steps_of(path) == list(range(1, result.step + 1))
    assert [run["command"] for run in RunFolder.open(path).facts()["resumed"]] == [[]] * len(steps)


def test_early_stopping_ends_the_run_early(undisturbed: dict[str, Any]) -> None:
    state = undisturbed["early stopping"]
    evaluations = [line for line in state["metrics"] if line["event"] == "evaluation"]
    best = max(range(len(evaluations)), key=lambda i: (evaluations[i]["accuracy"], -i))
    assert len(evaluations) == best + 3 < 6
    assert state["step"] == 4 * len(evaluations)


# -- crashed ---------------------------------------------------------------------------------------


class CrashAfter(Watcher):
    """Crashes at the n-th time that something of a kind is told."""

    def __init__(self, kind: str, times: int) -> None:
        super().__init__()
        self.kind, self.times = kind, times

    def _count(self, kind: str) -> None:
        self.times -= kind == self.kind
        if self.times == 0:
            crash()

    def saved(self, path: Path) -> None:
        self._count("saved")

    def took_step(self, *_: Any) -> None:
        self._count("step")

    def finished_epoch(
        self, step: int, epoch: int, evaluation: Evaluation | None, is_best: bool
    ) -> None:
        self._count("epoch")


@pytest.mark.parametrize(
    "crashes",
    [
        [("saved", 1), ("step", 4)],
        [("step", 1), ("epoch", 1), ("saved", 1)],
        [("epoch", 1), ("epoch", 1), ("epoch", 2)],
        [("saved", 3), ("epoch", 1)],
        [("saved", 5)],  # all is done but the summary
    ],
    ids=str,
)
def test_crashed_and_resumed(
    crashes: list[tuple[str, int]], conv: str, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    for number, crash_after in enumerate(crashes):
        given: dict[str, Any] = {"resume": path}
        if number == 0:
            given = {"recipe": recipe(conv, **EVERYTHING), "runs": tmp_path, "name": "run"}
        with pytest.raises(Crash):
            train(**given, listener=CrashAfter(*crash_after))
        assert RunFolder.open(path).status == "running"
    result = train(resume=path)
    assert result.evaluation is not None, "also when only the end was left"
    assert_same(state_of(path), undisturbed["everything"])


def test_an_evaluation_at_a_checkpoint_is_written_once(conv: str, tmp_path: Path) -> None:
    given = recipe(conv, checkpoint_every=2, epochs=1)
    with pytest.raises(Crash):  # after the line of the evaluation, before its checkpoint
        train(given, runs=tmp_path, name="run", listener=CrashAfter("epoch", 1))
    path = tmp_path / "run"
    assert '"evaluation"' in (path / "metrics.jsonl").read_text()
    train(resume=path)
    events = [line["event"] for line in state_of(path)["metrics"]]
    assert events == ["step"] * 4 + ["evaluation"]


def test_killed_before_its_first_checkpoint(
    conv: str, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with RunFolder.create(tmp_path, "run") as folder:
        folder.write_recipe(recipe(conv, **EVERYTHING).to_dict())
    train(resume=tmp_path / "run")
    assert_same(state_of(tmp_path / "run"), undisturbed["everything"])


def test_a_damaged_checkpoint_is_passed_over(
    conv: str, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    path = stop_at(5, recipe(conv, **EVERYTHING), tmp_path, "run").path
    newest = path / "checkpoints" / "step-00000005.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])  # and so last.pt, another name of it
    watcher = Watcher()
    train(resume=path, listener=watcher)
    assert any("step-00000005.pt is not used" in note for note in watcher.notes)
    assert watcher.beginning is not None
    assert watcher.beginning.step == 4
    assert_same(state_of(path), undisturbed["everything"])


# -- other processes -------------------------------------------------------------------------------


@pytest.fixture
def command(conv: str, tmp_path: Path) -> list[str]:
    """``everything`` as a command line."""
    given = recipe(conv, **EVERYTHING).to_dict()
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(given))
    return ["train", str(tmp_path / "recipe.toml"), "--runs", str(tmp_path), "--name", "run"]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "memfit", *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(process: subprocess.Popen[str], event: str, times: int = 1) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        times -= json.loads(line)["event"] == event
        if not times:
            return
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group(
    number: signal.Signals, command: list[str], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    process = start(command)
    until(process, "step", 2)
    os.killpg(process.pid, number)  # as Ctrl-C, timeout and clusters do: workers get it, too
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    ended = json.loads(out.splitlines()[-1])
    assert ended["status"] == "stopped"
    train(resume=Path(ended["run"]))
    assert_same(state_of(Path(ended["run"])), undisturbed["everything"])


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\n"
        "from torch import nn\n"
        "class Slow(nn.Flatten):\n"
        "    def forward(self, x):\n"
        "        if x.device.type == 'cpu' and os.environ.get('SLOW') and self.training:\n"
        "            for _ in range(2):\n"
        "                os.kill(os.getpid(), signal.SIGINT)\n"
        "        return super().forward(x)\n"
        "def build():\n"
        "    return nn.Sequential(Slow(), nn.Linear(768, 8))\n"
    )
    command = ["train", "--model", "slow.py:build", "--data", DATA, "--name", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "memfit", *command],
        cwd=tmp_path, env=os.environ | {"SLOW": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert train(resume=tmp_path / "runs" / "run").status == "finished"


def test_killed_at_random_moments(
    command: list[str], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    chance = random.Random(0)
    for kill in range(3):
        process = start(command if kill == 0 else ["train", "--resume", str(tmp_path / "run")])
        until(process, "step", chance.randint(1, 2))
        process.kill()
        process.communicate()
    train(resume=tmp_path / "run")
    assert_same(state_of(tmp_path / "run"), undisturbed["everything"])


# -- the disk is full ------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, conv: str, undisturbed: dict[str, Any]) -> None:
    filler = small_disk / "filler"

    def fill() -> None:
        with filler.open("wb") as file:
            file.truncate(0)
            left = os.statvfs(small_disk)
            file.write(bytes(left.f_bavail * left.f_frsize - 4096))

    given = recipe(conv, **EVERYTHING)
    with pytest.raises(RunError, match=r"Cannot write .*No space left on device") as caught:
        train(given, runs=small_disk, name="run", listener=Watcher(4, fill))
    assert isinstance(caught.value, CheckpointError)
    assert caught.value.hint is not None
    path = small_disk / "run"
    assert state_of(path)["step"] == 3, "the old checkpoint survives"
    filler.unlink()
    train(resume=path)
    assert_same(state_of(path), undisturbed["everything"])


# -- what cannot be resumed ------------------------------------------------------------------------


def test_a_finished_run_is_not_resumed(tmp_path: Path) -> None:
    result = train(recipe(epochs=1), runs=tmp_path, name="run")
    before = state_of(result.path)
    with pytest.raises(RunError, match="is finished") as caught:
        train(resume=result.path)
    assert "--weights" in str(caught.value)
    assert_same(state_of(result.path), before)


def test_nothing_can_be_changed(tmp_path: Path) -> None:
    path = stop_at(2, recipe(), tmp_path, "run").path
    with pytest.raises(UsageError, match="lr cannot change"):
        train(resume=path, lr=0.5)
    with pytest.raises(UsageError, match=r"begun with lr = 0\.01, not 0\.5"):
        train(recipe(lr=0.5), resume=path)
    assert train(recipe(), resume=path).status == "finished"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('model = "mlp"', 'model = "cnn"', "model = 'mlp'"),
        ('optimizer = "sgd"', 'optimizer = "adamw"', "optimizer = 'sgd'"),
        ("ema = false", "ema = true", "ema = False"),
    ],
)
def test_a_checkpoint_of_another_recipe(
    before: str, after: str, message: str, tmp_path: Path
) -> None:
    path = stop_at(2, recipe(), tmp_path, "run").path
    text = (path / "recipe.toml").read_text()
    assert before in text
    (path / "recipe.toml").write_text(text.replace(before, after))
    with pytest.raises(CheckpointError, match=message):
        train(resume=path)
    (path / "recipe.toml").write_text(text)
    assert train(resume=path).status == "finished", "nothing was lost"


def test_a_checkpoint_of_a_changed_model(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(CONV)
    path = stop_at(2, recipe(f"{tmp_path}/own.py:build"), tmp_path, "run").path
    (tmp_path / "own.py").write_text(CONV.replace("8, 3, stride", "6, 3, stride")
        .replace("(2, 8)", "(2, 6)").replace("392", "294"))  # fmt: skip
    with pytest.raises(WeightsMismatch, match=r"0\.weight: 8×3×3×3 in the file, 6×3×3×3 here"):
        train(resume=path)
    assert state_of(path)["step"] == 2


def test_runs_of_other_versions(tmp_path: Path) -> None:
    path = stop_at(2, recipe(), tmp_path, "run").path
    facts = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(facts | {"schema_version": 99}))
    with pytest.raises(OtherVersion, match="run format 99"):
        train(resume=path)


def test_checkpoints_that_somebody_removed(tmp_path: Path) -> None:
    path = stop_at(2, recipe(), tmp_path, "run").path
    for file in (path / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        train(resume=path)
    assert len(RunFolder.open(path).metrics.read()) == 2, "the metrics stay"


# -- code ------------------------------------------------------------------------------------------


def test_a_recipe_with_code_is_given_again(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(768, 8))

    def squared(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (scores - nn.functional.one_hot(labels, 8)).square().mean()

    def made(**options: Any) -> Job:
        return resolve(build, loss=squared, data=DATA, global_batch=24, epochs=2, **options)

    whole = train(made(lr=0.05), runs=tmp_path, name="whole")
    path = stop_at(3, made(lr=0.05), tmp_path, "run").path
    assert train(made(), resume=path).status == "finished"
    assert_same(state_of(path), state_of(whole.path))
