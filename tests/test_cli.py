"""The commands as a shell sees them: output, exit codes, errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import memfit
from memfit.cards.catalogue import gpu
from memfit.cli import main

MLP = ["plan", "mlp", "--input-shape", "1x28x28"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_plan_of_the_courses_mlp(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *MLP, "--batch-size", "64", "--gpu", "11GiB", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["model"]["parameters"] == 101_770
    assert plan["at"]["parts"]["parameters"] == 407_080
    assert plan["at"]["parts"]["batch"] == 64 * 28 * 28 * 4 + 64 * 8
    assert sum(plan["at"]["parts"].values()) == plan["at"]["total_bytes"]
    assert plan["fits"] is True
    assert plan["schema_version"] == 1
    assert plan["recipe"]["model"] == "mlp"


def test_of_a_card_only_so_much_may_be_free(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*MLP, "--gpu", "rtx-3060", "--quick", "--json"]
    whole = json.loads(run(capsys, *asked)[1])
    part = json.loads(run(capsys, *asked, "--free", "1.5GiB")[1])
    card = gpu("rtx-3060").with_free_bytes(3 * 2**29)
    expected = memfit.plan("mlp", input_shape=(1, 28, 28), gpu=card)
    assert part["gpu"]["key"] == "rtx-3060"
    assert part["gpu"]["usable_bytes"] == card.usable_bytes
    assert part["max_batch_size"] == expected.max_batch_size < whole["max_batch_size"]
    assert part["recommended_batch_size"] == expected.recommended_batch_size


def test_free_memory_of_the_local_card(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memfit.cards.catalogue.local_gpu", lambda: (gpu("t4"), 2**30))
    plan = json.loads(run(capsys, *MLP, "--quick", "--json", "--free", "2GiB")[1])
    assert (plan["gpu"]["key"], plan["gpu"]["usable_bytes"]) == ("t4", 2**31)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--free", "10GiB"], "there is no card"),
        (["--gpu", "rtx-3060", "--free", "20GiB"], "has only 11.63 GiB"),
        (["--gpu", "rtx-3060", "--free", "much"], "'much' is not a size"),
    ],
)
def test_free_memory_that_makes_no_sense(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    said: str,
) -> None:
    monkeypatch.setattr("memfit.cards.catalogue.local_gpu", lambda: None)
    code, out, err = run(capsys, *MLP, *flags)
    assert code == 2
    assert not out
    assert said in " ".join(err.split())


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_table_adds_up_and_stays_narrow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = run(capsys, *MLP, "--gpu", "rtx-3060", "--batch-size", "4096")
    assert code == 0
    assert max(map(len, out.splitlines())) <= columns
    assert "\x1b" not in out
    assert out.index("Largest micro-batch") < out.index("Where the bytes go") < out.index("Peak")
    assert "Memory against micro-batch" in out
    assert "Assumptions" in out
    if columns == 120:  # wide enough for whole bytes
        *sizes, total = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) +[\d.]+ %", out))
        assert len(sizes) == 9
        assert sum(sizes) == total


def test_ascii_output_has_no_other_characters() -> None:
    line = [sys.executable, "-m", "memfit", *MLP, "--gpu", "t4", "--quick"]
    done = subprocess.run(
        line, capture_output=True, check=False, env={"PYTHONIOENCODING": "ascii", "PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_without_a_card_common_cards_are_compared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memfit.planner.planning.local_gpu", lambda: None)
    code, out, _ = run(capsys, *MLP)
    assert code == 0
    assert "rtx-3060" in out
    assert "a100-80gb" in out


def test_a_batch_that_does_not_fit_exits_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *MLP, "--batch-size", "9000000", "--gpu", "2GiB", "--quick")
    assert code == 3
    assert "does not fit" in out


def test_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan", "torchvision:resnet18", "--gpu", "150MiB", "--quick")
    assert code == 3
    assert "not even a micro-batch of 1" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["plan", "torchvision:resnet51", "--gpu", "t4"], 2, "torchvision:resnet50"),
        ([*MLP, "--gpu", "rtx-3061"], 2, "rtx-3060"),
        ([*MLP, "--gpu", "t4", "--optimizer", "adm"], 2, "adam"),
        ([*MLP, "--gpu", "t4", "--optimizer", "sgd,speed=1"], 2, "speed"),
        ([*MLP, "--gpu", "t4", "--precision", "fp23"], 2, "fp32"),
        ([*MLP, "--gpu", "t4", "--batch-size", "0"], 2, "batch_size is 0"),
        ([*MLP, "--gpu", "t4", "--batch-size", "-3"], 2, "batch_size is -3"),
        ([*MLP, "--gpu", "t4", "--batch-size", "3.5"], 2, "not a whole number"),
        ([*MLP, "--gpu", "t4", "--batch-size", "99999999999"], 2, "between 1 and"),
        ([*MLP, "--gpu", "t4", "--safety", "1.5"], 2, "safety is 1.5"),
        ([*MLP, "--gpu", "0GiB"], 2, "not a positive size"),
        (["plan", "mlp", "--input-shape", "axb", "--gpu", "t4"], 2, "not a shape"),
        (["plan", "missing.toml"], 2, "missing.toml"),
        (["plan", "missing.py:build", "--gpu", "t4"], 1, "missing.py"),
        (["plan", "mlp", "--nonsense"], 2, "--nonsense"),
        (["model", "mlp", "--input-shape", "1x28x28", "--depth", "-1"], 2, "--depth"),
        (["palan"], 2, "plan"),
    ],
)
def test_mistakes_are_answered_in_words(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


def test_a_recipe_file_with_flags_over_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'model = "mlp"\ninput_shape = "3x32x32"\noptimizer = "adamw"\nbatch_size = 8\n'
    )
    code, out, _ = run(capsys, "plan", str(recipe), "--gpu", "t4", "--batch-size", "16", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["model"]["parameters"] == 394_634
    assert plan["at"]["batch_size"] == 16
    recipe.write_text('model = "mlp"\nbatchsize = 8\n')
    code, _, err = run(capsys, "plan", str(recipe))
    assert code == 2
    assert "batch_size" in err


def test_environment_is_between_flags_and_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMFIT_GPU", "t4")
    _, out, _ = run(capsys, *MLP, "--json")
    assert json.loads(out)["gpu"]["key"] == "t4"
    _, out, _ = run(capsys, *MLP, "--json", "--gpu", "l4")
    assert json.loads(out)["gpu"]["key"] == "l4"


def test_the_users_own_error_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def build():\n    raise KeyError('no such block')\n")
    code, _, err = run(capsys, "plan", f"{broken}:build", "--input-shape", "3x8x8", "--gpu", "t4")
    assert code == 1
    assert "no such block" in err
    assert "broken.py" in err
    assert "2" in err


def test_the_layers_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["model", "torchvision:resnet18", "--batch-size", "4", "--depth", "1", "--json"]
    code, out, _ = run(capsys, *arguments)
    table = json.loads(out)
    assert code == 0
    assert table["parameters"] == 11_689_512
    for column in ("parameters", "trainable", "kept_bytes", "multiply_adds"):
        assert sum(layer[column] for layer in table["layers"]) == table[column]
    assert table["multiply_adds"] == 4 * 1_814_073_344
    deeper = json.loads(run(capsys, *arguments[:-2], "3", "--json")[1])
    assert deeper["kept_bytes"] == table["kept_bytes"]
    assert len(deeper["layers"]) > len(table["layers"])


def test_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "gpus")
    assert code == 0
    assert "rtx-3090" in out
    assert json.loads(run(capsys, "gpus", "--json")[1])["gpus"]


#: What is answered without torch, whose import takes seconds: help, the catalogue, and what is
#: wrong with the words themselves.
ANSWERED_AT_ONCE = """
0 --help
0 --version
0 plan --help
0 train --help
0 study --help
0 measure --help
0 gpus
0 gpus --json
2 palan
2 plan
2 plan mlp --nonsense
2 plan mlp --precision fp61
2 plan mlp --batch-size 3.5
2 plan mlp --batch-size 0
2 plan mlp --input-shape 3x
2 plan mlp --optimizer sgd,speed
2 plan mlp --gpu rtx-9999
2 plan mlp --gpu t4 --free much
2 plan mlp --html page.txt
2 plan missing.toml
2 model mlp --depth -1
2 model mlp --precision fp61
2 data shapes --batch-size 0
2 data shapes --figure sheet.gif
2 train missing.toml
2 train mlp --schedule sine
2 train --memory much
2 train --resume run --name other
2 predict
2 evaluate run --figure matrix.gif
2 study
2 study --batch-sizes a,b
2 study --batch-sizes 1,2 --goal beauty
2 study --demo --lr 0.1
2 noise missing.toml
2 serve --port 99999
2 serve --gpu rtx-9999
2 explain missing.pickle --html page.txt
1 explain missing.pickle
2 watch --interval 0
2 measure --minutes 3
2 measure mlp --on moon
2 measure missing.toml
"""


def test_help_and_wrong_words_are_answered_without_torch() -> None:
    script = (
        "import sys\nfrom memfit.cli import main\n"
        "for line in sys.stdin:\n"
        "    code, *words = line.split()\n"
        "    assert main(words) == int(code), line\n"
        "    assert not {'torch', 'matplotlib'} & sys.modules.keys(), line\n"
    )
    lines = ANSWERED_AT_ONCE.strip()
    done = subprocess.run(
        [sys.executable, "-c", script], input=lines, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_import_is_lean() -> None:
    lean = (
        "import sys, memfit; sys.exit(bool({'torch', 'rich', 'matplotlib'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", lean], check=False).returncode == 0


def test_what_the_users_model_prints_stays_out_of_the_result(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chatty = tmp_path / "chatty.py"
    chatty.write_text(
        "from torch import nn\n"
        "def build():\n    print('building')\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))\n"
    )
    spec = f"{chatty}:build"
    code, out, err = run(
        capsys, "plan", spec, "--input-shape", "3x2x2", "--gpu", "t4", "--quick", "--json"
    )
    assert code == 0
    assert json.loads(out)["model"]["parameters"] == 26
    assert "building" in err


def test_an_incomplete_estimate_exits_with_4_only_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from memfit.planner.plan import Plan

    monkeypatch.setattr(Plan, "unsupported", property(lambda _: {"mylib.op": "has no rule"}))
    arguments = (*MLP, "--gpu", "t4", "--quick", "--batch-size", "8")
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "mylib.op: has no rule" in out
    assert run(capsys, *arguments, "--strict")[0] == 4
    too_large = (*arguments[:-1], "9000000", "--strict")
    assert run(capsys, *too_large)[0] == 3


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("memfit.planner.planning.plan", interrupt)
    assert run(capsys, *MLP, "--gpu", "t4")[:2] == (130, "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    line = f"{sys.executable} -m memfit gpus --json | head -n 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout == "{\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [("a" * 300 + ".html", "too long"), ("link.html", "exists"), ("file.html/p.html", "no folder"),
     ("page.pdf", "Use one of .html, .htm")],
)  # fmt: skip
def test_a_page_that_cannot_be_written_is_told_before_the_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "nothing")
    (tmp_path / "file.html").write_text("")
    code, out, err = run(capsys, "plan", "no such model", "--html", str(tmp_path / name))
    assert code in (1, 2)
    assert words in err
    assert not out


def test_where_a_snapshot_was_written_moves_no_cursor(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "s\x1b[2J.pickle"
    code, _, err = run(capsys, *MLP, "--gpu", "1GiB", "--quick", "--snapshot", str(path))
    assert code == 0
    assert path.exists()
    assert "\x1b" not in err
    assert "snapshot: " in err


def test_what_a_model_says_moves_no_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "evil.py"
    path.write_text(
        "from torch import nn\n"
        "def build():\n"
        "    model = nn.Sequential(nn.Flatten())\n"
        "    model.add_module('a\\x1b[31m', nn.Linear(784, 10))\n"
        "    return model\n"
        "def broken():\n"
        "    raise ValueError('red \\x1b[31m')\n"
    )
    assert main(["model", f"{path}:build", "--input-shape", "1x28x28"]) == 0
    assert main(["model", f"{path}:broken", "--input-shape", "1x28x28"]) == 1
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "a\\x1b[31m" in said.out
    assert "red \\x1b[31m" in said.err
