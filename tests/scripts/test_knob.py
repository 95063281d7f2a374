"""What in a script's arguments sets the batch."""

from __future__ import annotations

import pytest

from memfit.errors import UsageError
from memfit.scripts.child.alike import is_alike
from memfit.scripts.told.answer import Step
from memfit.scripts.told.job import ScriptJob
from memfit.scripts.told.knob import Knob, KnobKind, find_flag, with_batch


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["--batch-size", "64", "x"], ["--batch-size", "7", "x"]),
        (["--batch_size=64"], ["--batch_size=7"]),
        (["-b", "64"], ["-b", "7"]),
        (["-b64"], ["-b7"]),
        (["--bs", "64"], ["--bs", "7"]),
        (["--batchSize=64"], ["--batchSize=7"]),
        (["data=coco.yaml", "batch=16"], ["data=coco.yaml", "batch=7"]),
        (["+trainer.train.batch_size=16"], ["+trainer.train.batch_size=7"]),
        (["--per_device_train_batch_size", "8"], ["--per_device_train_batch_size", "7"]),
        (["--test-batch-size", "9", "--batch-size", "8"],
         ["--test-batch-size", "9", "--batch-size", "7"]),
        (["val.batch_size=9", "train.batch_size=8"], ["val.batch_size=9", "train.batch_size=7"]),
        (["--opts", "bs={batch}"], ["--opts", "bs=7"]),
        (["--batches", "9", "--backend", "3", "--batch-size"],
         ["--batches", "9", "--backend", "3", "--batch-size"]),
    ],
)  # fmt: skip
def test_flags(words: list[str], changed: list[str]) -> None:
    assert list(with_batch(words, 7)) == changed


def test_the_first_flag_counts() -> None:
    flag = find_flag(["--batch-size", "64", "--batch", "3"])
    assert flag is not None
    assert (flag.name, flag.batch) == ("--batch-size", 64)


def test_a_template_wants_a_batch() -> None:
    job = ScriptJob("train.py", ("--n", "{batch}"))
    with pytest.raises(UsageError, match="which batch"):
        _ = job.words
    knob = job.knob_in_arguments
    assert knob == Knob(KnobKind.TEMPLATE, "{batch}")
    assert job.at(3, knob).words == ("--n", "3")


def test_no_knob_no_other_batch() -> None:
    with pytest.raises(UsageError, match="Nothing is known"):
        ScriptJob("train.py").at(8, Knob())


def test_a_hair_is_no_difference() -> None:
    peaks = (5_682_229_248, 5_836_940_800, 5_836_547_584, 6_000_000_000)
    seen = [Step(peak, 6_618_611_712, 846) for peak in peaks]
    assert is_alike(seen[:3], 1)
    assert not is_alike(seen, 1)


def steps(text: str) -> list[Step]:
    """A letter is an optimizer, a digit the size of the step after it."""
    return [
        Step(int(s), int(s), 1, "ABC".index(o)) for o, s in zip(text[::2], text[1::2], strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "optimizers", "is_over"),
    [
        ("A1A2", 1, False),
        ("A1A2A2", 1, True),
        ("A2A2", 1, False),
        ("A1A2A3A3", 1, True),
        ("A1A2A3", 1, False),
        ("A1B1A2B2A2B2", 2, True),
        ("A1B1A2B2A2", 2, False),
        ("A1A1A1A1A1", 2, False),
        ("A1A1B1A1A1B1A1A1B1", 2, True),
        ("A1A2A2", 0, True),
    ],
)
def test_rounds_of_steps(text: str, optimizers: int, is_over: bool) -> None:
    assert is_alike(steps(text), optimizers) is is_over
