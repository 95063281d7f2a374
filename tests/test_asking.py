"""Questions as people type them: cards by their boxes, several at once, help that can be read."""

from __future__ import annotations

import json

import pytest

import memfit
from memfit.cards.catalogue import gpu
from memfit.cli import main
from memfit.recipe.fields import FIELDS, Offer

MLP = ["plan", "mlp", "--input-shape", "28x28", "--quick"]


@pytest.fixture(autouse=True)
def _no_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memfit.planner.planning.local_gpu", lambda: None)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str]):
    def ask(*words: str) -> tuple[int, str, str]:
        code = main(words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return ask


# -- sizes as on the box (case 23) -----------------------------------------------------------------


def test_24gb_of_a_card_are_its_24_gib_and_the_answer_says_so(asked) -> None:
    decimal, binary = (asked(*MLP, "--gpu", size)[1].splitlines() for size in ("24GB", "24G"))
    assert decimal[0] == "mlp on GPU with 24GB = 24 GiB"
    assert binary[0] == "mlp on GPU with 24 GiB"
    assert decimal[1].endswith("24.00 GiB usable")
    assert decimal[1:] == binary[1:]


def test_free_memory_is_of_a_card_too(asked) -> None:
    plan = json.loads(asked(*MLP, "--gpu", "t4", "--free", "10GB", "--json")[1])
    assert plan["gpu"]["usable_bytes"] == 10 * 2**30


# -- advice ----------------------------------------------------------------------------------------


def test_a_network_that_memory_does_not_limit_is_told_so(asked) -> None:
    code, out, _ = asked(*MLP, "--gpu", "t4")
    words = " ".join(out.split())
    assert code == 0
    assert "recommended 8,192: memory is not the limit" in words
    assert "input 28×28" in words


@pytest.mark.parametrize(("batch", "code"), [("64", 0), ("16000000", 3)])
def test_a_batch_that_no_card_takes_does_not_fit(asked, batch: str, code: int) -> None:
    line = ["plan", "mlp", "--input-shape", "3x224x224", "--batch-size", batch]
    found, out, _ = asked(*line)
    assert found == code
    said = "fits no card" if code else "Micro-batch 64 fits rtx-3060, the smallest card"
    assert said in " ".join(out.split())
    assert json.loads(asked(*line, "--json")[1])["fits"] is (False if code else None)


# -- several cards ---------------------------------------------------------------------------------


def test_several_cards_are_each_answered_as_if_asked_alone(asked) -> None:
    line = ["plan", "torchvision:resnet18", "--quick", "--json", "--gpu"]
    code, out, _ = asked(*line, "t4,rtx-4070")
    together = json.loads(out)
    assert (code, together["schema_version"], together["fits"]) == (0, 1, True)
    for key, plan in zip(("t4", "rtx-4070"), together["cards"], strict=True):
        alone = json.loads(asked(*line, key)[1])
        assert alone | {"options": []} == plan | {"options": []}


def test_several_cards_are_a_table(asked) -> None:
    code, out, _ = asked(*MLP, "--gpu", "kaggle,2GB", "--batch-size", "600000")
    rows = {
        line.split()[1]: line.split() for line in out.splitlines() if line.startswith(("✔", "✘"))
    }
    assert code == 0  # it fits one of them
    assert [(key, row[0]) for key, row in rows.items()] == [
        ("t4", "✔"),
        ("p100", "✔"),
        ("2gib", "✘"),
    ]
    most = memfit.plan("mlp", input_shape=(28, 28), gpu=gpu("p100"), verify=False).max_batch_size
    assert rows["p100"][-2:] == [f"{most:,}", "8,192"]
    assert max(map(len, out.splitlines())) <= 80


def test_what_fits_none_of_several_cards_is_exit_3(asked) -> None:
    assert asked(*MLP, "--gpu", "1GB,2GB", "--batch-size", "2000000")[0] == 3


@pytest.mark.parametrize("flag", [["--free", "1GB"], ["--html", "plan.html"]])
def test_what_is_of_one_card_is_refused_for_several(asked, flag: list[str]) -> None:
    code, out, err = asked(*MLP, "--gpu", "t4,rtx-3060", *flag)
    assert (code, out) == (2, "")
    assert "of one card; 2 were named" in err


# -- help ------------------------------------------------------------------------------------------


def test_the_help_of_plan_is_two_screens(asked) -> None:
    code, out, _ = asked("plan", "--help")
    assert code == 0
    assert len(out.splitlines()) <= 90
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", ["plan", "train", "study"])
def test_rare_flags_are_in_the_long_help_only(asked, command: str) -> None:
    by = Offer.PLAN if command == "plan" else Offer.PLAN | Offer.TRAIN
    rows = [row for row in FIELDS.values() if row.by & by]
    short, full = (asked(command, flag)[1] for flag in ("--help", "--help-all"))
    for row in rows:
        assert f"{row.flag} " in full, row.flag
        assert (f"{row.flag} " in short) is not row.is_rare, row.flag
    assert any(row.is_rare for row in rows)
    assert "more: --help-all" in short


def test_a_rare_flag_works_all_the_same(asked) -> None:
    assert FIELDS["safety"].is_rare
    assert asked(*MLP, "--gpu", "t4", "--safety", "0.5")[0] == 0


def test_boxes_are_asked_of_one_card_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "torchvision:fasterrcnn_resnet50_fpn", "--boxes", "8", "--gpu", "t4,rtx-3090"]
    assert main(asked) == 2
    assert "one card at a time" in capsys.readouterr().err
