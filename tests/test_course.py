"""The course is true: its code runs, its commands run, and every number on it is computed."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from math import ceil, prod
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

import memfit
from memfit.cli import main
from memfit.memory.tape.tape import Part
from memfit.planner.largest import MOST_USEFUL_BATCH

REPOSITORY = Path(__file__).parent.parent
ENGLISH = REPOSITORY / "docs" / "course.md"
CHINESE = REPOSITORY / "docs" / "course.zh.md"
SHARED = REPOSITORY.parent / "shared" / "data"

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROMISED = re.compile(r"^\s*print\(.*\)  # (.*)$")
#: What is long on the page and short here.
SHORTER = {"EPOCHS = 5": "EPOCHS = 1", "STEPS = None": "STEPS = 100"}
SHORT_RUN = ("--steps", "100")
CIFAR_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the line it starts on, its text."""

    language: str
    line: int
    text: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], text.count("\n", 0, m.start(2)), m[2]) for m in BLOCK.finditer(text)]


# -- data of the real shapes -----------------------------------------------------------------------


def stand_in(count: int, values: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of ten classes, each a pattern under noise; the first is black and white in places."""
    patterns = np.random.default_rng(0).integers(0, 128, (10, values), dtype=np.uint8)
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, count, dtype=np.uint8)
    images = patterns[labels] + (random.integers(0, 128, (count, values), dtype=np.uint8))
    images[0, :2] = 0, 255
    return images, labels


def write_mnist(folder: Path) -> None:
    """As torchvision unpacks it; format: https://yann.lecun.org/exdb/mnist/."""
    folder.mkdir(parents=True)
    for seed, (name, count) in enumerate({"train": 60_000, "t10k": 10_000}.items()):
        images, labels = stand_in(count, 28 * 28, seed)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 0x801, count)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def write_cifar(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """As torchvision unpacks it; format: https://www.cs.toronto.edu/~kriz/cifar.html.

    Args:
        folder: to make.
        images: ``(60_000, 3072)`` uint8, all red values, all green, all blue.
        labels: ``(60_000,)``.
    """
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name, data, numbers in zip(names, np.split(images, 6), np.split(labels, 6), strict=True):
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": numbers.tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR_CLASSES)}))


def accept_any_checksum(patch: pytest.MonkeyPatch) -> None:
    """Torchvision knows CIFAR-10 by its checksums, which a stand-in cannot have."""
    for name in ("train_list", "test_list"):
        files = [[file, None] for file, _ in getattr(datasets.CIFAR10, name)]
        patch.setattr(datasets.CIFAR10, name, files)
    patch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": None})


# -- one walk through the page ---------------------------------------------------------------------


@dataclass
class Walk:
    """What came of the page: its variables, what it printed by line, what commands printed."""

    names: dict[str, Any] = field(default_factory=dict)
    printed: dict[int, str] = field(default_factory=dict)
    answers: list[tuple[str, str, str]] = field(default_factory=list)  # command, promised, printed

    def take(self, block: Block) -> None:
        if block.language == "python":
            self._run_python(block)
        elif block.language == "sh":
            for command in block.text.splitlines():
                self._run_command(command)
        else:
            first, _, promised = block.text.partition("\n")
            command = first.removeprefix("$ ")
            self.answers.append((command, promised, self._run_command(command)))

    def _run_python(self, block: Block) -> None:
        code = block.text
        for long, short in SHORTER.items():
            code = code.replace(long, short)
        # Blank lines in front: an error names the line of the page.
        exec(compile("\n" * block.line + code, str(ENGLISH), "exec"), self.names)

    def _run_command(self, command: str) -> str:
        program, *arguments = shlex.split(command)
        if program == "nvidia-smi":
            if shutil.which(program):
                subprocess.run([program, *arguments], check=True, capture_output=True)
            return ""
        assert program == "memfit"
        if arguments[0] == "train":
            arguments += SHORT_RUN
        output = io.StringIO()
        with redirect_stdout(output):
            code = main(arguments)
        assert code == 0, command
        return "\n".join(line.rstrip() for line in output.getvalue().splitlines())

    def note(self, *values: object) -> None:
        """Stands for ``print``."""
        self.printed[sys._getframe(1).f_lineno] = " ".join(map(str, values))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small lose more than they gain by threads, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Walk:
    folder = tmp_path_factory.mktemp("course")
    write_mnist(folder / "data" / "MNIST" / "raw")
    write_cifar(folder / "data" / "cifar-10-batches-py", *stand_in(60_000, 3 * 32 * 32, seed=0))
    done = Walk()
    done.names["print"] = done.note
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "100")
        accept_any_checksum(patch)
        mpl.use("Agg")
        blocks = blocks_of(ENGLISH)
        assert all(long in blocks[0].text for long in SHORTER)
        for block in blocks:
            done.take(block)
        mpl.pyplot.close("all")
    done.names["folder"] = folder
    return done


def test_every_promised_output_is_printed(walk: Walk) -> None:
    lines = ENGLISH.read_text(encoding="utf-8").splitlines()
    promised = {n: m[1] for n, line in enumerate(lines, 1) if (m := PROMISED.match(line))}
    assert len(promised) > 50
    assert {number: walk.printed.get(number) for number in promised} == promised


def test_every_command_answers_as_shown(walk: Walk) -> None:
    assert len(walk.answers) == 5
    for command, promised, printed in walk.answers:
        assert promised.rstrip("\n") in printed, command


def test_both_ways_have_learned(walk: Walk) -> None:
    """The stand-in is easy; guessing is right one time in ten."""
    for name in ("mnist_accuracy", "cifar_accuracy", "of_memfit", "of_pytorch"):
        assert walk.names[name] > 0.9, name


def test_the_files_of_the_page_are_there(walk: Walk) -> None:
    folder = walk.names["folder"]
    for name in ("two-images.png", "mnist.png", "cifar10.png", "mnist-confusion.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG"), name
    exported = torch.load(folder / "mnist-memfit.pt", weights_only=True)
    assert sum(tensor.numel() for tensor in exported.values()) == 784 * 128 + 128 + 1290


def test_memfit_uses_the_batch_of_the_page(walk: Walk) -> None:
    """At the peak of a run, in backward, the labels (8 bytes each) are given back already.

    Mean and deviation of each channel, four bytes each, stay on the device.
    """
    labels, moments = 8 * 64, 2 * 4
    for name, bytes_of_batch, channels in (("mnist", 201_216, 1), ("cifar10", 786_944, 3)):
        summary = json.loads((walk.names["folder"] / "runs" / name / "summary.json").read_text())
        expected = bytes_of_batch - labels + moments * channels
        assert summary["memory"]["predicted"]["parts"]["batch"] == expected
        assert summary["step"] == 100


# -- the numbers in the text -----------------------------------------------------------------------

NUMBER = re.compile(r"(?<![\w.,/-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w/])(?:\s?%)?")


def numbers_in(page: Path) -> list[str]:
    """Every number of the text that is larger than a setting: three digits, a fraction, a share."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    found = [re.sub(r"\s", "", number) for number in NUMBER.findall(text)]
    return [n for n in found if len(re.sub(r"\D", "", n)) > 2 or "." in n or "%" in n]


def computed_numbers() -> set[str]:
    """What the text may say, from first principles and from plans."""
    hidden, output = 784 * 128 + 128, 128 * 10 + 10
    hidden_of_cifar = 3072 * 128 + 128
    weights_bytes = 4 * (hidden + output)
    of_mlp = (
        784, 3072, 128, hidden, hidden_of_cifar, output, hidden + output, hidden_of_cifar + output,
        weights_bytes, 2 * weights_bytes, weights_bytes - 128 * 4, 128 * 4, 64 * 10 * 4,
        64 * 10 * 4 + 2 * 4, 64 * (128 + 10 + 10) * 4 + 3 * 4, kept_bytes("amp-fp16"),
        4 * weights_bytes - 128 * 4 + 64 * (784 * 4 + 8),
    )  # fmt: skip
    of_sets = (60_000, ceil(60_000 / 64), 255, 1000, 1024)
    of_a_hundred_million = (400, 800, 4 * 400)
    whole = {*of_mlp, *of_sets, *of_a_hundred_million, *batches_of_mlp(), *batches_of_resnet(),
             MOST_USEFUL_BATCH}  # fmt: skip
    return {
        *(f"{number:,}" for number in whole),
        *(str(60_000 / 64), f"{weights_bytes / 1000:.1f}", f"{weights_bytes / 1024:.1f}"),
        *("403", "50%"),  # both are said to be wrong
        *shares_of_resnet(),
        *ABOUT_THE_REAL_SETS,
    }


def batches_of_mlp() -> tuple[int, int]:
    """The last power of two that fits, and the largest batch."""
    plan, doubled = memfit.plan("mlp", **_MNIST), 16
    while plan.at(2 * doubled).fits():
        doubled *= 2
    assert plan.max_batch_size is not None
    assert plan.max_batch_size // 60_000 == 30  # "30 times the training set"
    assert 0.4 < 1 - doubled / plan.max_batch_size < 0.5  # "nearly half"
    return doubled, plan.max_batch_size


def batches_of_resnet() -> tuple[int, int, int]:
    """The largest batch, 80 % of it, and the recommended one."""
    plan = memfit.plan("torchvision:resnet50", **_RESNET)
    most, recommended = plan.max_batch_size, plan.recommended_batch_size
    assert most is not None
    assert recommended is not None
    return most, int(0.8 * most), recommended


def shares_of_resnet() -> set[str]:
    """Of the card at 80 % of the largest batch, of memory with AMP; and memfit's own 80 %."""
    full = memfit.plan("torchvision:resnet50", **_RESNET)
    mixed = memfit.plan("torchvision:resnet50", **_RESNET, precision="amp-fp16")
    assert full.gpu is not None
    of_card = full.at(batches_of_resnet()[1]).total_bytes / full.gpu.usable_bytes
    with_amp = mixed.at(32).total_bytes / full.at(32).total_bytes
    return {f"{share:.0%}" for share in (of_card, with_amp, full.recipe.safety)}


_CARD = {"optimizer": "adam", "gpu": "rtx-3060"}
_MNIST = {"input_shape": (1, 28, 28), **_CARD}
_CIFAR = {"input_shape": (3, 32, 32), **_CARD}
_RESNET = {"input_shape": (3, 224, 224), **_CARD}
#: Checked where the real sets are at hand.
ABOUT_THE_REAL_SETS = {"0.1307", "0.3081", "97.5%", "53%"}


def kept_bytes(precision: str) -> int:
    """The most that forward leaves to backward, from the plan's own timeline."""
    timeline = memfit.plan("mlp", **_MNIST, precision=precision).at(64).timeline
    allocations, first = timeline.tape.allocations, None
    for position, event in enumerate(timeline.tape.events):
        if event >= 0 and allocations[event].phase == "backward":
            first = position - 1
            break
    assert first is not None
    return timeline.parts_at(first)[Part.ACTIVATIONS]


def test_every_number_in_the_text_is_computed() -> None:
    assert set(numbers_in(ENGLISH)) - computed_numbers() == set()
    assert kept_bytes("fp32") == 37_900


def test_every_sum_in_the_text_is_right() -> None:
    text = BLOCK.sub("", ENGLISH.read_text(encoding="utf-8")).replace(",", "").replace("**", "")
    sums = re.findall(r"(\d+(?:\s[·+]\s\d+)+)\s(?:=|\|)\s(\d+)", text)
    assert len(sums) == 9
    for left, right in sums:
        assert sum(prod(map(int, part.split("·"))) for part in left.split("+")) == int(right), left


# -- the other language ----------------------------------------------------------------------------


def test_the_chinese_page_has_the_same_code() -> None:
    english, chinese = blocks_of(ENGLISH), blocks_of(CHINESE)
    assert [(b.language, b.text) for b in chinese] == [(b.language, b.text) for b in english]


def test_the_chinese_page_has_the_same_numbers_and_structure() -> None:
    assert sorted(numbers_in(CHINESE)) == sorted(numbers_in(ENGLISH))
    english, chinese = (page.read_text(encoding="utf-8") for page in (ENGLISH, CHINESE))
    for mark in (r"^## ", r"^\| ", r"^- ", r"^\d\. ", r"^> \*\*"):
        counts = [len(re.findall(mark, text, re.MULTILINE)) for text in (english, chinese)]
        assert counts[0] == counts[1] > 3, mark
    assert english.count("Often wrong: ") == chinese.count("常见错误：")
    assert "](course.zh.md)" in english
    assert "](course.md)" in chinese


# -- what is said about the real sets --------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="the real MNIST is not at hand")
def test_what_is_said_about_mnist(tmp_path: Path, one_thread: None) -> None:
    name = "train-images-idx3-ubyte.gz"
    with gzip.open(SHARED / "mnist" / name) as file:
        pixels = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 784) / 255
    assert len(pixels) == 60_000
    assert {f"{pixels.mean():.4f}", f"{pixels.std():.4f}"} < ABOUT_THE_REAL_SETS
    batches = memfit.data.loader("mnist", root=str(SHARED), batch_size=64)
    assert [f"{batches.mean[0]:.4f}", f"{batches.std[0]:.4f}"] == ["0.1307", "0.3081"]
    assert five_epochs("mnist", SHARED, tmp_path) >= 0.975


@pytest.mark.skipif(
    not (SHARED / "cifar10-jpeg.tar.gz").is_file(), reason="the real CIFAR-10 is not at hand"
)
def test_what_is_said_about_cifar10(tmp_path: Path, one_thread: None) -> None:
    """As its original files, and some of it as a folder of images."""
    splits: dict[str, list[tuple[np.ndarray, int]]] = {"train": [], "test": []}
    with tarfile.open(SHARED / "cifar10-jpeg.tar.gz") as archive:
        for member in filter(tarfile.TarInfo.isfile, archive):
            split, name, file = member.name.split("/")
            content = archive.extractfile(member).read()
            pixels = np.asarray(Image.open(io.BytesIO(content)))
            splits[split].append((pixels.transpose(2, 0, 1), CIFAR_CLASSES.index(name)))
            if file < "0003":
                (tmp_path / "cifar10" / split / name).mkdir(parents=True, exist_ok=True)
                (tmp_path / "cifar10" / member.name).write_bytes(content)
    assert {split: len(samples) for split, samples in splits.items()} == {
        "train": 50_000,
        "test": 10_000,
    }
    some = memfit.data.open("cifar10", root=str(tmp_path))
    assert (len(some.train), len(some["test"]), some.classes) == (30, 30, CIFAR_CLASSES)

    images, labels = zip(*splits["train"], *splits["test"], strict=True)
    root = tmp_path / "original"
    write_cifar(
        root / "cifar-10-batches-py", np.stack(images).reshape(60_000, -1), np.array(labels)
    )
    assert five_epochs("cifar10", root, tmp_path) == pytest.approx(0.53, abs=0.02)


def five_epochs(data: str, root: Path, folder: Path) -> float:
    """Accuracy of the run that the page types."""
    result = memfit.train(
        model="mlp", data=data, root=str(root), optimizer="adam", global_batch=64, epochs=5,
        runs=folder / "runs",
    )  # fmt: skip
    assert result.test is not None
    return result.test.accuracy
