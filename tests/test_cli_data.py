"""``memfit data`` as a shell sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from memfit.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["data", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three images, one split."""
    root, random = tmp_path / "pictures", np.random.default_rng(0)
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    return root


def test_a_folder(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, err = run(capsys, folder)
    assert code == 0
    assert err == ""
    assert "\x1b" not in out
    assert "Colour, 5×6; every image can be read." in out
    assert "Classes are balanced: 3 images each." in out
    assert "(3, 6, 5)" in out
    assert "Data batch: 23,040 + labels 512 = 23,552 bytes" in out


def test_json_and_nothing_else(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, err = run(capsys, folder, "--json", "--batch-size", "10")
    content = json.loads(out)
    assert (code, err) == (0, "")
    assert content["schema_version"] == 1
    assert content["classes"] == ["cat", "dog"]
    assert content["overall"]["class_counts"] == [3, 3]
    assert content["batch"]["shape"] == [10, 3, 6, 5]
    assert content["batch"]["total_bytes"] == 10 * 3 * 6 * 5 * 4 + 10 * 8
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))])
    scaled = pixels.reshape(-1, 3) / 255
    np.testing.assert_allclose(content["statistics"]["mean"], scaled.mean(axis=0))
    np.testing.assert_allclose(content["statistics"]["std"], scaled.std(axis=0))


def test_unreadable_files_are_listed_and_strict_says_so(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "cat" / "broken.png").write_bytes(b"")
    code, out, _ = run(capsys, folder)
    assert code == 0
    assert "1 of 7 images cannot be read" in out
    assert "the file is empty" in out
    assert run(capsys, folder, "--strict")[0] == 4
    (folder / "cat" / "broken.png").unlink()
    assert run(capsys, folder, "--strict")[0] == 0


def test_nothing_readable_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    code, out, err = run(capsys, tmp_path)
    assert code == 1
    assert "a.png" in out + err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{missing}"], 1, "missing"),
        (["{folder}", "--batch-size", "0"], 2, "--batch-size"),
        (["{folder}", "--max-pixels", "-1"], 2, "--max-pixels"),
        (["{folder}", "--figure", "{folder}/sheet.bmp"], 2, ".png, .pdf, .svg"),
        (["{folder}", "--figure", "{folder}/no/sheet.png"], 1, "no folder"),
        (["{folder}", "--nonsense"], 2, "nonsense"),
    ],
)
def test_mistakes_have_a_code_and_words(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], code: int, words: str
) -> None:
    filled = [
        text.format(folder=folder, missing=folder.parent / "missing") for text in arguments
    ]  # fmt: skip
    result, out, err = run(capsys, *filled)
    assert result == code
    assert out == ""
    assert err.startswith("error: ")
    assert words in err


def test_a_bomb_is_refused_until_the_limit_is_raised(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    code, out, _ = run(capsys, folder, "--max-pixels", "29", "--json")
    assert code == 1  # every image has 30
    reasons = {file["reason"] for file in json.loads(out)["overall"]["unreadable"]}
    assert reasons == {"5 x 6 pixels are more than 29"}
    assert run(capsys, folder, "--max-pixels", "30")[0] == 0


def test_the_figure_is_written_once(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    sheet = tmp_path / "sheet.png"
    assert run(capsys, folder, "--figure", sheet)[0] == 0
    with Image.open(sheet) as image:
        assert image.format == "PNG"
    code, out, err = run(capsys, folder, "--figure", sheet)
    assert (code, out) == (1, "")
    assert "--force" in err
    assert run(capsys, folder, "--figure", sheet, "--force")[0] == 0


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "60"}],
)
def test_plain_places_read_well(folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "memfit", "data", str(folder)],
        capture_output=True, check=False, env={"PATH": "", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert b"\x1b" not in done.stdout
    if "PYTHONIOENCODING" in environment:
        assert done.stdout.isascii()
    if "COLUMNS" in environment:
        assert max(map(len, done.stdout.decode().splitlines())) <= 60


def test_neither_torch_nor_matplotlib_is_loaded(folder: Path) -> None:
    code = (
        "import sys; from memfit.cli import main; main(['data', sys.argv[1]]); "
        "sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_ends_without_a_result(folder: Path) -> None:
    """The process stops in the middle of its images, says so, and is interrupted there."""
    code = (
        "import os, signal, sys\n"
        "from memfit.cli import main\n"
        "from memfit.data.samples import dataset\n"
        "read_file = dataset.read_file\n"
        "def reading(path):\n"
        "    if str(path).endswith('1.png'):\n"
        "        os.write(2, b'waiting')\n"
        "        signal.pause()\n"
        "    return read_file(path)\n"
        "dataset.read_file = reading\n"
        "sys.exit(main(['data', sys.argv[1]]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert process.stderr.read(7) == b"waiting"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert out == b""
    assert b"Traceback" not in err


def test_a_figure_never_replaces_an_image(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = folder / "cat" / "0.png"
    before = image.read_bytes()
    assert main(["data", str(folder), "--figure", str(image), "--force"]) == 2
    assert "is one of the images" in capsys.readouterr().err
    assert image.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_below_stdout_is_an_error_in_words(folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "memfit", "data", str(folder)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: The result cannot be written: No space left on device.\n"


def test_the_hint_names_the_commands_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "mnist", "--batch-size", "1e3"]) == 2
    assert "memfit data --help lists what there is." in capsys.readouterr().err
