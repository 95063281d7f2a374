from __future__ import annotations

import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memfit
from memfit.errors import CheckpointError, OtherVersion, RunError, RunInUse, UsageError
from memfit.files.metrics_file import MetricsFile
from memfit.recipe.recipe import Recipe
from memfit.recipe.toml import load_recipe
from memfit.trainer.run.run_folder import RunFolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def steps(run: RunFolder) -> list[int]:
    return [record["step"] for record in run.metrics.read()]


# ---- making and finding it


def test_a_new_run_says_what_made_it(root: Path) -> None:
    with RunFolder.create(root, "first", command=["memfit", "train"]) as run:
        assert run.path == root / "first"
        assert run.name == "first"
        assert names(run.path) == ["checkpoints", "run.json", "run.lock"]
    facts = json.loads((root / "first" / "run.json").read_text())
    assert facts["schema_version"] == 1
    assert facts["memfit_version"] == memfit.__version__
    assert facts["torch_version"].startswith("2.")
    assert facts["command"] == ["memfit", "train"]
    assert facts["status"] == "running"
    assert facts["created"].endswith("+00:00")
    assert facts.keys() >= {"python_version", "platform", "torchvision_version"}


def test_names_are_made_of_the_day_the_words_and_a_number(root: Path) -> None:
    made = []
    for words in (("cnn", "shapes"), ("cnn", "shapes"), ("timm:ViT/16", "my photos"), ()):
        with RunFolder.create(root, None, words=words) as run:
            made.append(run.name)
    day = re.match(r"\d{4}-\d\d-\d\d-", made[0])
    assert day
    assert [name.removeprefix(day[0]) for name in made] == [
        "cnn-shapes-1", "cnn-shapes-2", "timm-vit-16-my-photos-1", "1",
    ]  # fmt: skip


@settings(max_examples=30)
@given(words=st.lists(st.text(max_size=200), max_size=3))
def test_any_words_make_a_folder_in_the_root(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    root = tmp_path_factory.mktemp("words")
    with RunFolder.create(root, None, words=words) as run:
        assert run.path.parent == root
        assert names(root) == [run.name]


def test_a_run_never_writes_over_another(root: Path) -> None:
    RunFolder.create(root, "taken").close()
    (root / "other").mkdir()
    with pytest.raises(RunError, match=r"exists(.|\n)*--resume .*taken"):
        RunFolder.create(root, "taken")
    with pytest.raises(RunError, match=r"no run of memfit"):
        RunFolder.create(root, "other")
    assert names(root / "other") == []


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "../a", "a/b", ".hidden", "-x", "a\nb", "a\0"]
)
def test_names_that_are_no_names_are_refused(root: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no name for a run"):
        RunFolder.create(root, name)


def test_a_place_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(RunError, match=r"Cannot write .*file"):
            RunFolder.create(place, None)
    with pytest.raises(RunError, match="File name too long"):
        RunFolder.create(tmp_path, "x" * 300)


AS_NOBODY = """
import os, sys
from pathlib import Path
from memfit.errors import RunError
from memfit.trainer.run.run_folder import RunFolder
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
path = Path(sys.argv[1])
for call in (
    lambda: RunFolder.create(path.parent, "new"),
    lambda: RunFolder.create(path.parent, None, words=["a"]),
    lambda: RunFolder.resume(path),
    lambda: RunFolder.open(path).set_status("finished"),
    lambda: RunFolder.open(path).metrics.append({"step": 1}),
):
    try:
        call()
    except RunError as error:
        print(error.message)
print(RunFolder.open(path).status)
"""


def test_without_permission_it_can_be_read_and_errors_are_clear(open_folder: Path) -> None:
    root = open_folder / "runs"
    RunFolder.create(root, "mine").close()
    for folder in (root, root / "mine"):
        folder.chmod(0o555)
    for file in ("run.lock", "run.json"):
        (root / "mine" / file).chmod(0o444)
    ran = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(root / "mine")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    for folder in (root, root / "mine"):
        folder.chmod(0o755)
    *errors, status = ran.stdout.splitlines()
    assert len(errors) == 5
    assert all(error.endswith("Permission denied.") for error in errors)
    assert status == "running"


def test_a_run_out_of_reach_is_a_clear_error(open_folder: Path) -> None:
    RunFolder.create(open_folder / "runs", "mine").close()
    (open_folder / "runs").chmod(0o700)
    code = AS_NOBODY.replace("print(RunFolder.open(path).status)", "")
    ran = subprocess.run(
        [sys.executable, "-c", code, str(open_folder / "runs" / "mine")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    if os.getuid() == 0:
        assert ran.stdout.count("Permission denied.\n") == 5


# ---- opening it again


def test_a_folder_that_is_no_run_is_refused(root: Path) -> None:
    RunFolder.create(root, "cnn-large").close()
    (root / "empty").mkdir()
    for opens in (RunFolder.open, RunFolder.resume):
        with pytest.raises(RunError, match=r"no run\.json"):
            opens(root / "empty")
        with pytest.raises(RunError, match="it is a file"):
            opens(root / "cnn-large" / "run.json")
        with pytest.raises(RunError, match=r"no run .*cnn-lrge(.|\n)*Did you mean .*cnn-large"):
            opens(root / "cnn-lrge")
    assert names(root / "empty") == []


@pytest.mark.parametrize("version", [2, 0, "x", None])
def test_another_format_says_which_and_is_left_alone(root: Path, version: Any) -> None:
    RunFolder.create(root, "a").close()
    path = root / "a" / "run.json"
    facts = json.loads(path.read_text()) | {"schema_version": version, "memfit_version": "9.9"}
    path.write_text(json.dumps(facts))
    for opens in (RunFolder.open, RunFolder.resume):
        with pytest.raises(OtherVersion, match=rf"memfit 9\.9 in run format {version}.*format 1"):
            opens(root / "a")
    assert json.loads(path.read_text()) == facts


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b"\0" * 50])
def test_a_damaged_run_json_is_a_clear_error(root: Path, damage: bytes) -> None:
    RunFolder.create(root, "a").close()
    (root / "a" / "run.json").write_bytes(damage)
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        RunFolder.open(root / "a")


def test_resuming_notes_when_and_by_what(root: Path) -> None:
    with RunFolder.create(root, "a", command=["first"]) as run:
        run.set_status("stopped")
        assert RunFolder.open(run.path).status == "stopped"
    with RunFolder.resume(root / "a", command=["second"]) as run:
        facts = run.facts()
    assert facts["command"] == ["first"]
    assert facts["status"] == "running"
    assert [entry["command"] for entry in facts["resumed"]] == [["second"]]
    with RunFolder.resume(root / "a", command=["third"]) as run:
        assert len(run.facts()["resumed"]) == 2


def test_what_a_killed_process_left_is_removed_by_the_next_writer_only(root: Path) -> None:
    with RunFolder.create(root, "a") as run:
        left = [run.path / ".run.json.1.unfinished", run.checkpoints.folder / ".x.2.unfinished"]
        for path in left:
            path.write_bytes(b"half")
        (run.path / ".keep").write_bytes(b"the user's")
    RunFolder.open(root / "a")
    assert all(path.exists() for path in left)
    with RunFolder.resume(root / "a"):
        assert not any(path.exists() for path in left)
    assert (root / "a" / ".keep").exists()


# ---- the lock


HOLDS = """
import os, sys, time
from pathlib import Path
from memfit.trainer.run.run_folder import RunFolder
run = RunFolder.resume(Path(sys.argv[1]))
ready, says_ready = os.pipe()
worker = os.fork()  # as a data loader's, which outlives its killed parent
if worker == 0:
    os.write(says_ready, b"x")
    time.sleep(600)
os.read(ready, 1)
print(worker, flush=True)
time.sleep(600)
"""


def test_a_live_process_keeps_others_out_and_a_killed_one_does_not(root: Path) -> None:
    RunFolder.create(root, "a").close()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(root / "a")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        try:
            with pytest.raises(RunInUse, match=rf"written by process {holder.pid} on "):
                RunFolder.resume(root / "a")
            assert RunFolder.open(root / "a").status == "running"
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            os.kill(worker, 0)  # lives, and holds nothing
            RunFolder.resume(root / "a").close()
        finally:
            holder.kill()
            os.kill(worker, signal.SIGKILL)


def test_the_lock_holds_inside_one_process_and_ends_with_close(root: Path) -> None:
    run = RunFolder.create(root, "a")
    with pytest.raises(RunInUse):
        RunFolder.resume(root / "a")
    run.close()
    run.close()
    again = RunFolder.resume(root / "a")
    run.close()  # the old one's handle may be the new one's number
    with pytest.raises(RunInUse):
        RunFolder.resume(root / "a")
    again.close()


def test_a_resume_that_fails_lets_go(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder.create(root, "a").close()

    def fails(self: MetricsFile) -> None:
        raise RunError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(MetricsFile, "repair", fails)
        with pytest.raises(RunError, match="broken"):
            RunFolder.resume(root / "a")
    RunFolder.resume(root / "a").close()


# ---- metrics


def test_metrics_are_lines_of_strict_json(root: Path) -> None:
    with RunFolder.create(root, "a") as run:
        run.metrics.append({"step": 1, "loss": 0.5, "name": "ü\n"})
        run.metrics.append({"step": 2, "loss": math.nan, "deep": [{"x": -math.inf}]})
        text = (run.path / "metrics.jsonl").read_text()
        assert text.count("\n") == 2
        assert "NaN" not in text
        assert run.metrics.read() == [
            {"step": 1, "loss": 0.5, "name": "ü\n"},
            {"step": 2, "loss": None, "deep": [{"x": None}]},
        ]


@settings(max_examples=60)
@given(data=st.data())
def test_a_torn_last_line_is_dropped_and_appending_goes_on(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("torn")
    with RunFolder.create(root, "a") as run:
        for step in range(1, 6):
            run.metrics.append({"step": step, "loss": step / 3})
    path = root / "a" / "metrics.jsonl"
    size = data.draw(st.integers(0, path.stat().st_size))
    whole = path.read_bytes()[:size].count(b"\n")
    os.truncate(path, size)
    assert steps(RunFolder.open(root / "a")) == list(range(1, whole + 1))
    with RunFolder.resume(root / "a") as run:
        run.metrics.append({"step": 99})
        assert steps(run) == [*range(1, whole + 1), 99]


@pytest.mark.parametrize("torn", [b"", b'{"step": 6'])
@pytest.mark.parametrize(("to", "left"), [(0, []), (3, [1, 2, 3, 3]), (4, [1, 2, 3, 3, 5][:4]),
                                          (5, [1, 2, 3, 3, 5]), (9, [1, 2, 3, 3, 5])])  # fmt: skip
def test_rewinding_drops_what_comes_after_the_step(
    root: Path, torn: bytes, to: int, left: list[int]
) -> None:
    with RunFolder.create(root, "a") as run:
        for step in (1, 2, 3, 3, 5):
            run.metrics.append({"step": step})
        with (run.path / "metrics.jsonl").open("ab") as file:
            file.write(torn)
        run.metrics.rewind(to)
        assert steps(run) == left
        run.metrics.append({"step": to + 1})
        assert steps(run) == [*left, to + 1]


def test_without_metrics_there_are_none(root: Path) -> None:
    with RunFolder.create(root, "a") as run:
        run.metrics.rewind(3)
        run.metrics.sync()
        assert run.metrics.read() == []
        assert not (run.path / "metrics.jsonl").exists()


def test_a_damaged_line_in_the_middle_is_named(root: Path) -> None:
    with RunFolder.create(root, "a") as run:
        (run.path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
        with pytest.raises(RunError, match="line 2"):
            run.metrics.read()


def test_a_line_that_does_not_fit_on_the_disk_leaves_no_part(root: Path) -> None:
    with RunFolder.create(root, "a") as run:
        run.metrics.append({"step": 1, "text": "x" * 900})
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(RunError, match="File too large"):
                run.metrics.append({"step": 2, "text": "x" * 900})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        run.metrics.append({"step": 3})
        assert steps(run) == [1, 3]


# ---- the other files


def test_results_are_written_and_read(root: Path) -> None:
    with RunFolder.create(root, "a") as run:
        run.write_json("plan.json", {"peak_bytes": 2**40, "ratio": math.inf})
        assert run.read_json("plan.json") == {"peak_bytes": 2**40, "ratio": None}
        with pytest.raises(RunError, match=r"Cannot read .*summary\.json: No such file"):
            run.read_json("summary.json")


def test_skipped_images_are_one_line_each_whatever_their_names(root: Path) -> None:
    with RunFolder.create(root, "a") as run:
        run.write_skipped([("a.png", "truncated"), ("b\n\t.png", "no image"), ("c\udcff.png", "x")])
        assert (run.path / "skipped.txt").read_bytes() == (
            b"a.png\ttruncated\nb\\n\\t.png\tno image\nc\xff.png\tx\n"
        )


def test_checkpoints_and_metrics_go_together(root: Path) -> None:
    with RunFolder.create(root, "a", keep_last=1) as run:
        run.metrics.append({"step": 1})
        assert run.save_checkpoint(1, {"step": 1}, is_best=True) == run.checkpoints.path(1)
        run.save_checkpoint(2, {"step": 2})
        assert run.checkpoints.steps() == [2]
    with RunFolder.resume(root / "a") as run:
        assert run.checkpoints.newest()[1]["step"] == 2
    with RunFolder.create(root, "b") as run, pytest.raises(CheckpointError):
        run.checkpoints.newest()


# ---- TOML


@pytest.mark.parametrize("value", [object(), [None], b"x", "\udcff", Path("a")])
def test_what_toml_cannot_hold_is_named(root: Path, value: Any) -> None:
    with RunFolder.create(root, "a") as run, pytest.raises(RunError, match=r"TOML.*optimizer\.x"):
        run.write_recipe({"optimizer": {"x": value}})


def test_a_resolved_recipe_comes_back_from_the_run(root: Path) -> None:
    recipe = Recipe(
        model="torchvision:resnet18",
        input_shape=(3, 32, 32),
        optimizer={"name": "sgd", "momentum": 0.9, "foreach": False},
        augment=("crop=4", "flip"),
        mean=(0.5, 0.25, 1e-7),
        gradient_checkpointing=True,
    )
    with RunFolder.create(root, "a") as run:
        run.write_recipe(recipe.to_dict())
        assert load_recipe(run.path / "recipe.toml") == recipe
