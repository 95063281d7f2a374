"""Whole studies of a few seconds: continued, extended, refused."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memfit.commands.study import study_asked, study_folder, write_reports
from memfit.errors import RunInUse, UsageError
from memfit.recipe.recipe import Recipe
from memfit.recipe.toml import load_recipe
from memfit.step.job import Job
from memfit.study.demo import demo_recipe
from memfit.study.folder import StudyFolder
from memfit.study.results import Study
from memfit.study.science.goal import Goal
from memfit.study.study import run_study
from memfit.study.trials.listener import StudyListener
from memfit.study.trials.trial import Trial, TrialRecord, read_trial, run_trial

pytestmark = pytest.mark.usefixtures("known_speed")


class Heard(StudyListener):
    """Keeps what it hears, and may interrupt after some trials."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.interrupt_after = interrupt_after
        self.trained: list[str] = []
        self.known: list[str] = []
        self.shares: list[float] = []
        self.notes: list[str] = []

    def trial_ended(self, trial: Trial, record: TrialRecord, *, is_known: bool) -> None:
        (self.known if is_known else self.trained).append(f"{trial.name} {record.step}")
        if self.interrupt_after is not None and len(self.trained) >= self.interrupt_after:
            raise KeyboardInterrupt

    def at(
        self, done: float, total: float, *, seconds_left: float | None = None, facts: str = ""
    ) -> None:
        self.shares.append(done / total)

    def note(self, text: str) -> None:
        self.notes.append(text)


def results_of(study: Study) -> dict[str, Any]:
    content = json.loads((study.folder / "study.json").read_text(), parse_constant=pytest.fail)
    return {k: v for k, v in content.items() if k not in ("folder", "seconds")}


@pytest.fixture
def whole(finished: Study, tmp_path: Path) -> Study:
    """A copy of the finished study, to do something with."""
    shutil.copytree(finished.folder, tmp_path / "whole")
    return replace(finished, folder=tmp_path / "whole")


def test_a_study_from_begin_to_end(whole: Study, tiny: Job) -> None:
    content = results_of(whole)
    assert content["schema_version"] == 1
    assert [size["batch_size"] for size in content["sizes"]] == [16, 64]
    for size, result in zip(content["sizes"], whole.sizes, strict=True):
        assert len(size["equal_epochs"]["values"]) == 2
        steps = whole.settings.trial_steps(result.batch_size)
        assert steps == max(2 * 256 // result.batch_size, whole.settings.steps)
        assert size["gap"]["mean"] == pytest.approx(
            size["train_accuracy"]["mean"] - size["val_accuracy"]["mean"]
        )
        assert result.rate is not None
        assert result.rate.low <= result.rate.value <= result.rate.high
    assert whole.goal is not None
    assert not whole.goal.is_given
    assert all(r.goal is not None and r.goal.mean_steps is not None for r in whole.sizes)
    recommended = load_recipe(whole.folder / "recommended.toml")
    chosen = whole.recommendation
    assert chosen is not None
    assert recommended == tiny.asked.but(
        global_batch=chosen.global_batch, batch_size=chosen.micro_batch, lr=chosen.learning_rate
    )
    write_reports(whole)
    page = (whole.folder / "report.html").read_text()
    (inside,) = re.findall(r'"study":\{"gzip":"([^"]+)"\}', page.replace(" ", ""))
    shown = json.loads(gzip.decompress(base64.b64decode(inside)))
    assert [size["batch_size"] for size in shown["sizes"]] == [16, 64]
    assert (whole.folder / "figures" / "speed.png").stat().st_size > 1000
    assert (whole.folder / "figures" / "memory.pdf").stat().st_size > 1000


def test_interrupted_it_goes_on_to_the_same_result(whole: Study, tiny: Job, tmp_path: Path) -> None:
    folder, trained = tmp_path / "interrupted", 0
    for after in (3, 6):
        heard = Heard(after)
        with pytest.raises(KeyboardInterrupt):
            run_study(tiny, batch_sizes=(16, 64), seeds=2, folder=folder, listener=heard)
        trained += len(heard.trained)
    heard = Heard()
    study = run_study(tiny, batch_sizes=(16, 64), seeds=2, folder=folder, listener=heard)
    assert len(heard.known) >= trained
    assert heard.shares[-1] == pytest.approx(1.0)
    assert results_of(study) == results_of(whole)
    again = Heard()
    run_study(tiny, batch_sizes=(16, 64), seeds=2, folder=folder, listener=again)
    assert again.trained == []


def test_extended_it_reuses_what_is_there(whole: Study, tiny: Job) -> None:
    before = {p: p.read_bytes() for p in whole.folder.glob("runs/*/trial.json")}
    heard = Heard()
    goal = Goal("accuracy", 0.2)
    study = run_study(
        tiny, batch_sizes=(16, 32, 64), seeds=2, goal=goal, folder=whole.folder,
        listener=heard,
    )  # fmt: skip
    assert [size.batch_size for size in study.sizes] == [16, 32, 64]
    assert all(name.startswith("b00032") for name in heard.trained if " 32" in name)
    unchanged = [path for path, content in before.items() if path.read_bytes() == content]
    assert len(unchanged) >= len(before) - 2  # another goal may let another rate win
    assert study.settings == whole.settings


def test_the_folder_of_another_recipe_is_refused(whole: Study, tiny: Job) -> None:
    other = tiny.but(lr=0.5, optimizer="adamw")
    with pytest.raises(UsageError, match=r"optimizer = .*momentum.*; lr = 0\.02 there, 0\.5 now"):
        run_study(other, batch_sizes=(16, 64), folder=whole.folder)
    assert results_of(whole)


def test_a_folder_of_something_else_is_left_alone(tiny: Job, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="is no study"):
        run_study(tiny, batch_sizes=(16, 64), folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_one_process_at_a_time(tiny: Job, tmp_path: Path) -> None:
    with StudyFolder(tmp_path / "s", tiny), pytest.raises(RunInUse, match="process"):
        run_study(tiny, batch_sizes=(16, 64), folder=tmp_path / "s")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_sizes": (16, 512)}, "512 is more than the data.*256"),
        ({"batch_sizes": (16,)}, "compares different batch sizes; 1 was given"),
        ({"batch_sizes": (16, 16)}, "compares different batch sizes"),
        ({"batch_sizes": (0, 16)}, "1 or more"),
        ({"seeds": 0}, "seeds"),
        ({"budget_seconds": -1.0}, "budget"),
        ({"goal": "fame"}, "no goal"),
    ],
)
def test_impossible_questions(
    tiny: Job, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    asked = {"batch_sizes": (16, 64), "folder": tmp_path / "study", **options}
    with pytest.raises(UsageError, match=words):
        run_study(tiny, **asked)
    assert not list(tmp_path.glob("study/runs/*"))


def test_a_goal_never_reached_is_none_not_infinite(tiny: Job, tmp_path: Path) -> None:
    heard = Heard()
    study = run_study(
        tiny, batch_sizes=(16, 64), seeds=1, goal="accuracy=1.0", folder=tmp_path / "s",
        listener=heard,
    )  # fmt: skip
    content = results_of(study)
    assert all(size["goal"]["steps"] == [None] for size in content["sizes"])
    assert all(size["goal"]["mean_examples"] is None for size in content["sizes"])
    assert any("none of 1 seeds reached validation accuracy 1" in note for note in heard.notes)
    assert study.tradeoff is None
    assert study.recommendation is None


def test_all_trials_of_a_batch_size_diverged(tiny: Job, tmp_path: Path) -> None:
    heard = Heard()
    study = run_study(
        tiny.but(lr=1e12), batch_sizes=(16, 64), seeds=1, folder=tmp_path / "s",
        listener=heard,
    )  # fmt: skip
    assert all("diverged" in (size.problem or "") for size in study.sizes)
    assert any("Batch 16: All" in note for note in heard.notes)
    assert study.recommendation is None
    write_reports(study)
    assert list((tmp_path / "s" / "runs").iterdir())


def test_batch_norm_is_named_with_its_size(tiny: Job, tmp_path: Path) -> None:
    study = run_study(
        tiny.but(model="cnn", steps=4),
        batch_sizes=(16, 64), seeds=1, folder=tmp_path / "s", by_layer=True,
    )  # fmt: skip
    (note,) = (note for note in study.notes if "accumulation is not" in note)
    assert "0.norm and 2 more layers" in note
    assert not note.endswith(" 0.00%.")
    assert study.noise[-1].layers


def test_a_trial_paused_and_gone_on_with_is_the_same_run(tiny: Job, tmp_path: Path) -> None:
    trial = Trial(32, 0.02, 0, total_steps=24, evaluate_every=1)
    assert read_trial(trial, tmp_path) is None
    short = run_trial(trial, tiny, tmp_path / "a", until=8)
    assert (short.outcome, short.step, len(short.evaluations)) == ("paused", 8, 1)
    assert run_trial(trial, tiny, tmp_path / "a", until=8) == short
    gone_on = run_trial(trial, tiny, tmp_path / "a", until=24)
    at_once = run_trial(trial, tiny, tmp_path / "b", until=24, with_train_split=True)
    assert gone_on.outcome == at_once.outcome == "finished"
    assert gone_on.evaluations == at_once.evaluations
    assert at_once.train_accuracy is not None
    assert gone_on.seconds > short.seconds


def test_words_of_the_command() -> None:
    asked = study_asked(
        None, None, seeds=3, budget="2m", goal=None, demo=True, has_flags=False
    )  # fmt: skip
    assert asked["recipe"] == demo_recipe()
    assert asked["budget_seconds"] == 120
    assert len(asked["batch_sizes"]) >= 5
    with pytest.raises(UsageError, match="brings its own"):
        study_asked(None, None, seeds=3, budget=None, goal=None, demo=True, has_flags=True)
    with pytest.raises(UsageError, match="Which batch sizes"):
        study_asked(
            Recipe(model="mlp"), None, seeds=3, budget=None, goal=None, demo=False, has_flags=False
        )
    name = study_folder(Recipe(model="torchvision:resnet18", data="/data/My Birds"), demo=False)
    assert name == Path("studies/torchvision-resnet18-my-birds")
