"""A script planned: PyTorch's own verdict, other batches from two runs, the words of a plan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import memfit
from memfit.cards.catalogue import gpu
from memfit.cli import app, main
from memfit.commands.run import separated
from memfit.errors import ScriptError, UsageError
from memfit.memory.tape.tape import Part
from memfit.scripts.plan import Proof, ScriptPlan, plan_script
from memfit.scripts.subject import Script
from memfit.scripts.told.answer import Status
from memfit.scripts.told.job import FakeData, ScriptJob

SAMPLES = Path(__file__).parent / "samples"
#: Its evaluation fits, and the batch below does not.
SMALL, LARGE_BATCH = "120MiB", 1024
LARGE = ("mnist_like.py", "--batch-size", str(LARGE_BATCH))
DIGITS = ("mnist_like.py", "--batch-size", "64")

Planned = Callable[..., ScriptPlan]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Planned:
    """Plan a sample, or code, on a card."""

    def plan(
        name: str, *arguments: str, card: str = "rtx-3060", code: str = "", auto: bool = False,
        batch: int | None = None,
    ) -> ScriptPlan:  # fmt: skip
        folder = tmp_path_factory.mktemp("script")
        if code:
            (folder / name).write_text(code, encoding="utf-8")
        else:
            shutil.copy(SAMPLES / name, folder / name)
        fake = FakeData(length=4000)
        job = ScriptJob(str(folder / name), arguments, str(folder), batch=batch, fake_data=fake)
        script = Script(job, gpu(card), is_limited=True)
        return plan_script(script, gpu(card), is_largest=auto)

    return plan


@pytest.fixture(scope="module")
def digits(planned: Planned) -> ScriptPlan:
    """A script that fits."""
    return planned(*DIGITS)


@pytest.fixture(scope="module")
def largest(planned: Planned) -> ScriptPlan:
    """The same on a card that is too small for its batch, at the largest that fits."""
    return planned(*LARGE, card=SMALL, auto=True)


def test_a_third_batch_is_what_two_runs_say(digits: ScriptPlan) -> None:
    assert digits.script.first.knob.name == "--batch-size"
    affine = digits.plan.tapes.affine
    assert affine is not None
    for batch in (24, 96):
        tape, sizes = digits.script.trace(batch), affine.sizes_bytes(batch)
        assert tape.events == affine.tape.events
        pairs = zip(tape.allocations, sizes, strict=True)
        assert {a.part for a, size in pairs if a.size_bytes != size} <= {Part.WORKSPACES}
        peak = digits.script.answer(batch).peak_allocated_bytes
        assert digits.plan.at(batch).peak_allocated_bytes == peak


def test_the_numbers_are_those_of_pytorch(digits: ScriptPlan) -> None:
    at, first = digits.found.at, digits.script.first
    assert at.peak_allocated_bytes == first.peak_allocated_bytes
    assert at.peak_reserved_bytes == first.peak_reserved_bytes
    assert sum(at.parts.values()) == at.total_bytes
    assert "mnist_like.py:" in at.peak.place


def test_json_has_the_words_of_a_plan(digits: ScriptPlan) -> None:
    told = json.loads(json.dumps(digits.to_dict()))
    assert memfit.plan("mlp", gpu="rtx-3060").to_dict().keys() <= told.keys()
    assert told["recipe"] is None
    assert told["engine"].startswith("PyTorch ")
    assert told["script"]["proof"]["fits"] is True
    assert told["script"]["proof"]["steps"] == len(digits.script.first.steps)
    assert {row["is_made_up"] for row in told["made_up"]} == {True}


def test_too_small_a_card(largest: ScriptPlan) -> None:
    answer = largest.script.proof(LARGE_BATCH)
    assert answer.status is Status.OUT_OF_MEMORY
    assert "CUDA out of memory" in answer.message
    assert "mnist_like.py:" in answer.place


def test_the_largest_batch_is_run(largest: ScriptPlan) -> None:
    assert largest.found.limits is not None
    assert 0 < largest.found.micro_batch < LARGE_BATCH
    assert largest.found.micro_batch <= largest.found.limits.max_batch_size
    assert largest.proof == Proof(
        largest.found.micro_batch, largest.script.proof(largest.found.micro_batch)
    )
    assert largest.proof.fits
    assert largest.found.fits is True


def test_another_batch_than_the_loaders(planned: Planned) -> None:
    made = planned("gan.py", batch=16)
    assert made.script.first.knob.batch == 32
    assert made.found.micro_batch == 16
    data = [a for a in made.script.trace(16).allocations if a.part is Part.BATCH]
    lengths = {a.shape[0] for a in data if a.shape}
    assert 16 in lengths
    assert 32 not in lengths


def test_no_batch_is_larger_than_the_data_set(planned: Planned) -> None:
    made = planned("gan.py", auto=True)
    assert made.script.first.samples == made.found.micro_batch == 4096
    assert made.found.limits is not None
    assert made.found.limits.max_batch_size > 4096


def test_nothing_sets_the_batch(planned: Planned) -> None:
    made = planned("by_hand.py")
    assert made.why_fixed
    assert made.found.limits is None
    assert made.found.fits is True
    with pytest.raises(UsageError, match="no other can be planned"):
        made.plan.at(made.found.micro_batch + 1)


def test_a_script_that_fails_says_why(planned: Planned) -> None:
    with pytest.raises(ScriptError, match="ZeroDivisionError") as caught:
        planned("broken.py", code="import torch\n\ndef f():\n    return 1 / 0\n\nf()\n")
    assert "in f\n    return 1 / 0" in caught.value.message
    assert "memfit" not in caught.value.message


def test_a_script_that_wants_arguments(planned: Planned) -> None:
    code = (
        "import argparse\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--data', required=True)\nparser.parse_args()\n"
    )
    with pytest.raises(ScriptError, match="exit code 2") as caught:
        planned("wants.py", code=code)
    assert "the following arguments are required: --data" in caught.value.message


def test_a_script_that_stays_on_the_cpu(planned: Planned) -> None:
    code = (
        "import torch\nmodel = torch.nn.Linear(4, 4)\n"
        "opt = torch.optim.SGD(model.parameters(), 0.1)\n"
        "for _ in range(4):\n"
        "    model(torch.zeros(2, 4)).sum().backward()\n    opt.step()\n"
    )
    with pytest.raises(ScriptError, match="not on the GPU"):
        planned("cpu.py", code=code)


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        (["train.py", "--gpu", "0"], ["--", "train.py", "--gpu", "0"]),
        (["--gpu", "t4", "train.py"], ["--gpu", "t4", "--", "train.py"]),
        (["--gpu=t4", "--quick", "a.py", "-b"], ["--gpu=t4", "--quick", "--", "a.py", "-b"]),
        (["-m", "pkg.train", "--json"], ["-m", "pkg.train", "--", "--json"]),
        (["--batch", "auto", "--", "a.py"], ["--batch", "auto", "--", "a.py"]),
        (["--gpu", "t4"], ["--gpu", "t4"]),
        (["--help"], ["--help"]),
    ],
)  # fmt: skip
def test_what_stands_behind_the_script_is_its_own(typed: list[str], given: list[str]) -> None:
    assert separated(typed, app["run"].assemble_argument_collection()) == given


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Which script?"),
        (["nowhere.py"], "There is no file"),
        (["--batch", "many", "x.py"], "a number of samples"),
        (["--steps", "0", "x.py"], "--steps is 0"),
    ],
)
def test_wrong_questions(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").write_text("")
    assert main(["run", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_command(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Text and exit code of a script that does not fit, in a narrow terminal."""
    shutil.copy(SAMPLES / "mnist_like.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    words = ["run", "--gpu", SMALL, "--fake-data", "--snapshot", "run.pickle", *LARGE]
    assert main(words) == 3
    out = capsys.readouterr().out
    assert "Batch 1,024 does not fit" in out
    assert "PyTorch itself ran out of the card's memory" in out
    assert max(map(len, out.splitlines())) <= 60
    assert (tmp_path / "run.pickle").stat().st_size > 10_000


def test_the_command_on_meta_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where PyTorch itself cannot run: the plan's own allocator says what fits."""
    shutil.copy(SAMPLES / "mnist_like.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["run", "--gpu", SMALL, "--engine", "meta", "--fake-data", "--json", *LARGE]
    assert main(words) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["engine"].startswith("meta tensors")
    assert told["script"]["proof"] is None
    assert told["fits"] is False
    assert 0 < told["max_batch_size"] < LARGE_BATCH
