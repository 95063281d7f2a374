"""What an inspection says of images whose every fact is known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpus import BOMB_SIZE, READABLE, SIZE, UNREADABLE, noise, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from memfit.data.facts.inspection import Inspection, inspect_dataset, inspect_source
from memfit.data.images.decode import open_image, pixels_of
from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import Dataset, FileSplit, Problem
from memfit.data.samples.paths import PathTable
from memfit.errors import BadImage, UsageError

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"
MAX_PIXELS = BOMB_SIZE[0] * BOMB_SIZE[1] - 1


def files(root: Path, names: list[str], labels: list[int] | None = None) -> FileSplit:
    numbers = None if labels is None else np.array(labels, dtype=np.int64)
    return FileSplit("train", root, PathTable(names), numbers)


def dataset(*splits: ArraySplit | FileSplit, classes: tuple[str, ...] = ()) -> Dataset:
    return Dataset("made up", "by hand", {split.name: split for split in splits}, classes)


def grey(count: int = 4, side: int = 5, name: str = "train") -> ArraySplit:
    return ArraySplit(name, noise(1, count, side, side), np.arange(count) % 2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def messy(corpus: Path) -> Inspection:
    names = sorted(path.name for path in corpus.iterdir())
    return inspect_dataset(dataset(files(corpus, names)), max_pixels=MAX_PIXELS)


# -- every mode, format and defect -----------------------------------------------------------------


def test_the_corpus_is_what_it_says(corpus: Path) -> None:
    for name, mode in READABLE.items():
        with Image.open(corpus / name) as image:
            assert image.mode == mode, name
    assert {path.name for path in corpus.iterdir()} == {*READABLE, *UNREADABLE}


def test_every_mode_is_counted(messy: Inspection) -> None:
    expected: dict[str, int] = {}
    for mode in READABLE.values():
        expected[mode] = expected.get(mode, 0) + 1
    assert dict(messy.overall.modes) == expected
    assert messy.overall.readable == len(READABLE)
    assert messy.overall.images == len(READABLE) + len(UNREADABLE)


def test_every_defect_is_listed_with_its_reason(messy: Inspection) -> None:
    reasons = {file.name: file.reason for file in messy.overall.unreadable}
    assert reasons.keys() == UNREADABLE.keys()
    for name, words in UNREADABLE.items():
        assert words in reasons[name]
    assert not messy.is_complete


@pytest.mark.parametrize(
    ("trait", "name"),
    [
        ("rotated", "turned.jpg"),
        ("animated", "animated.gif"),
        ("extension", "misnamed.jpg"),
        ("grey as colour", "grey_in_colour.png"),
    ],
)
def test_traits_have_examples(messy: Inspection, trait: str, name: str) -> None:
    found = {str(key): value for key, value in messy.overall.found.items()}[trait]
    assert found.count == 1
    assert found.examples == (name,)


def test_hazards_name_an_image_each(messy: Inspection) -> None:
    examples = {hazard.kind: (hazard.count, hazard.example) for hazard in messy.hazards}
    assert examples == {
        "16-bit grey": (2, "grey_16.png"),
        "16-bit colour": (1, "colour_16.png"),
        "floating point": (1, "floats.tif"),
        "palette": (3, "animated.gif"),
        "with transparency": (3, "alpha.png"),
        "CMYK": (1, "print.jpg"),
        "turned by EXIF": (1, "turned.jpg"),
        "animated or of several pages": (1, "animated.gif"),
        "with a colour profile other than sRGB": (1, "profile.png"),
        "of another format than the name says": (1, "misnamed.jpg"),
        "grey among colour": (6, ""),
        "of different sizes": (len(READABLE), ""),
    }


def test_depth_is_that_of_the_file(messy: Inspection) -> None:
    assert messy.overall.bits[16] == 2  # Pillow opens colour_16.png with 8 bits
    assert messy.overall.bits[32] == 2
    assert messy.overall.bits[1] == 1
    assert sum(messy.overall.bits.values()) == messy.overall.readable


def test_orientation_is_applied_to_the_size(messy: Inspection) -> None:
    assert dict(messy.overall.orientations) == {6: 1}
    sizes = messy.overall.sizes
    assert sizes is not None
    common = {(size.width, size.height): size.count for size in sizes.common}
    assert common == {SIZE: len(READABLE) - 1, SIZE[::-1]: 1}


def test_profiles_have_names(messy: Inspection) -> None:
    (name,) = messy.overall.profiles
    assert "Lab" in name


def test_a_damaged_profile_is_no_error(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png", icc_profile=b"no profile at all")
    found = inspect_dataset(dataset(files(tmp_path, ["a.png"])))
    assert dict(found.overall.profiles) == {"unreadable profile": 1}


def test_the_numbers_are_those_of_the_delivered_pixels(corpus: Path, messy: Inspection) -> None:
    pixels = [pixels_of(open_image(corpus / name), 3).reshape(-1, 3) for name in READABLE]
    scaled = np.concatenate(pixels).astype(np.float64) / 255
    assert messy.statistics is not None
    np.testing.assert_allclose(messy.statistics.mean, scaled.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(messy.statistics.std, scaled.std(axis=0), rtol=1e-12)


def test_nothing_depends_on_the_number_of_threads(
    corpus: Path, messy: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memfit.data.facts.scan._PIXELS_WORTH_A_THREAD", 0)
    monkeypatch.setattr("memfit.data.facts.scan._ROWS", 3)
    names = sorted(path.name for path in corpus.iterdir())
    again = inspect_dataset(dataset(files(corpus, names)), max_pixels=MAX_PIXELS, threads=4)
    assert again == messy


def test_json_carries_everything(messy: Inspection) -> None:
    content = json.loads(json.dumps(messy.to_dict(batch_size=2)))
    assert content["schema_version"] == 1
    assert len(content["overall"]["unreadable"]) == len(UNREADABLE)
    assert content["delivered"]["shape"] == [3, None, None]
    assert content["batch"]["shape"] == [2, 3, 224, 224]
    assert content["cost"]["is_resized"] is True


# -- arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 4, 6), (7, 4, 6, 3), (7, 4, 6, 2), (7, 4, 6, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_are_what_their_split_delivers(shape: tuple[int, ...], dtype: type) -> None:
    images = noise(3, *shape).astype(dtype)
    if dtype is np.float32:
        images /= 255
    elif dtype is np.uint16:
        images = images * dtype(257)
    split = ArraySplit("train", images, None)
    found = inspect_dataset(dataset(split))
    pixels = np.stack([split.pixels(index) for index in range(len(split))])
    scaled = pixels.reshape(-1, pixels.shape[-1]).astype(np.float64) / 255
    assert found.statistics is not None
    assert found.delivered is not None
    np.testing.assert_allclose(found.statistics.mean, scaled.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.statistics.std, scaled.std(axis=0), rtol=1e-12)
    assert found.delivered.shape == (pixels.shape[-1], 4, 6)


def test_arrays_and_files_have_the_same_fingerprints(tmp_path: Path) -> None:
    images = noise(4, 2, 5, 5, 3)
    images[1] = images[1][..., :1]  # grey as colour
    Image.fromarray(images[0]).save(tmp_path / "colour.png")
    Image.fromarray(images[1][..., 0]).save(tmp_path / "grey.png")
    test = FileSplit("test", tmp_path, PathTable(["colour.png", "grey.png"]), None)
    found = inspect_dataset(dataset(ArraySplit("train", images, None), test))
    assert [(leak.split, leak.known_from, leak.count) for leak in found.duplicates.leaks] == [
        ("test", "train", 2)
    ]


def test_chunks_of_an_array_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    split = ArraySplit("train", noise(5, 11, 4, 4, 3), np.arange(11) % 3)
    whole = inspect_dataset(dataset(split, classes=("a", "b", "c")))
    monkeypatch.setattr("memfit.data.facts.scan._ARRAY_BYTES", 100)
    assert inspect_dataset(dataset(split, classes=("a", "b", "c"))) == whole


def test_a_notebook_shows_the_summary() -> None:
    found = inspect_dataset(replace(dataset(grey(4)), name="<b>"))
    shown = found._repr_mimebundle_()
    assert shown["text/plain"] == repr(found)
    assert "images 4; shape (1, 5, 5); mean [" in repr(found)
    assert "&lt;b&gt;" in shown["text/html"]


# -- classes, batches, edges -----------------------------------------------------------------------


def test_classes_and_imbalance() -> None:
    train = ArraySplit("train", noise(1, 6, 2, 2), np.array([0, 0, 0, 1, 1, 7]))
    found = inspect_dataset(dataset(train, classes=("cat", "dog", "eel")))
    assert found.splits[0].class_counts == (3, 2, 0)
    assert found.splits[0].unlabelled == 1
    assert found.imbalance is not None
    assert (found.imbalance.largest, found.imbalance.smallest) == ("cat", "eel")
    assert found.imbalance.ratio is None


@pytest.mark.parametrize("batch_size", [1, 64, 1000])
def test_a_batch_is_what_the_plan_counts(batch_size: int) -> None:
    torch = pytest.importorskip("torch")
    from memfit.step.batch import BatchSpec
    from memfit.step.tensors import Arguments, TensorSpec

    found = inspect_dataset(dataset(ArraySplit("train", noise(1, 3, 28, 28), np.zeros(3))))
    assert found.cost is not None
    assert found.delivered is not None
    labels = TensorSpec((), torch.int64)
    for half, dtype in ((False, torch.float32), (True, torch.float16)):
        images = Arguments((TensorSpec(found.delivered.batch_shape, dtype),))
        planned = BatchSpec(images, (labels,))
        assert found.cost.batch_bytes(batch_size, half=half) == planned.size_bytes(batch_size)


def test_rows_of_one_file_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        Image.fromarray(noise(number, 4, 4)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"")
    decoded: list[int] = []
    monkeypatch.setattr("memfit.data.facts.scan.examine", _counting(decoded))
    names = [f"{row % 4}.png" for row in range(1000)]
    found = inspect_dataset(dataset(files(tmp_path, names)))
    assert decoded == [0, 1, 2, 3]
    assert found.overall.readable == 750
    (bad,) = found.overall.unreadable
    assert (bad.name, bad.rows) == ("3.png", 250)
    assert found.statistics is not None
    assert found.statistics.pixels == 750 * 16
    assert found.duplicates.copies == {"train": 747}


def _counting(decoded: list[int]):
    from memfit.data.facts.examine import examine

    def counted(split: FileSplit, row: int, max_pixels: int):
        decoded.append(row)
        return examine(split, row, max_pixels)

    return counted


def test_a_remembered_error_holds_on_to_no_image(tmp_path: Path) -> None:
    from memfit.data.facts.scan import _look

    (tmp_path / "a.png").write_bytes(b"no image")
    error = _look(files(tmp_path, ["a.png"]), 100, 0)
    assert isinstance(error, BadImage)
    assert error.__traceback__ is None
    assert error.__context__ is None


def test_progress_ends_at_the_total() -> None:
    steps: list[tuple[int, int]] = []
    inspect_dataset(dataset(grey(4), grey(3, name="test")), progress=lambda *s: steps.append(s))
    assert steps == sorted(steps)
    assert steps[-1] == (7, 7)


def test_ctrl_c_leaves_nothing_behind(corpus: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_dataset(dataset(files(corpus, ["grey.png"])), progress=interrupt, threads=2)


def test_nothing_readable_has_no_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    found = inspect_dataset(dataset(files(tmp_path, ["a.jpg", "missing.jpg"])))
    assert found.statistics is None
    assert found.delivered is None
    assert found.cost is None
    assert [file.reason for file in found.overall.unreadable] == [
        "not an image that Pillow knows", "No such file or directory",
    ]  # fmt: skip
    json.dumps(found.to_dict())


def test_no_samples_at_all() -> None:
    empty = inspect_dataset(Dataset("nothing", "empty", {}, problems=(Problem("x", "y"),)))
    assert empty.overall.images == 0
    assert not empty.is_complete
    json.dumps(empty.to_dict())


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8))
@settings(max_examples=30)
def test_sizes_add_up(sizes: list[tuple[int, int]]) -> None:
    from memfit.data.facts.tally import summarise_sizes

    found = summarise_sizes(np.array(sizes, dtype=np.uint32), str)
    assert found is not None
    areas = sorted(width * height for width, height in sizes)
    assert np.prod(found.smallest) == areas[0]
    assert np.prod(found.largest) == areas[-1]
    assert found.mean_pixels == pytest.approx(np.mean(areas))
    assert found.distinct == len(set(sizes))
    assert sum(size.count for size in found.common) == len(sizes)
    if found.vary:
        assert sum(bin_.count for bin_ in found.histogram) == len(sizes)


def test_outliers_are_named() -> None:
    from memfit.data.facts.tally import summarise_sizes

    sizes = np.array([(100, 100)] * 9 + [(100, 20), (201, 200), (30, 30)], dtype=np.uint32)
    found = summarise_sizes(sizes, lambda row: f"row {row}")
    assert found is not None
    assert found.outliers.examples == ("row 9", "row 10", "row 11")


@pytest.mark.parametrize("wrong", [{"max_pixels": 0}, {"threads": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        inspect_dataset(dataset(grey()), **wrong)


def test_a_folder_by_its_path(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        Image.fromarray(noise(len(label), 4, 4)).save(tmp_path / label / f"{label}.png")
    shutil.copy(tmp_path / "cat" / "cat.png", tmp_path / "dog" / "cat.png")
    found = inspect_source(tmp_path)
    assert found.classes == ("cat", "dog")
    assert found.overall.class_counts == (1, 2)
    assert found.duplicates.mislabelled_groups == 1


@pytest.mark.skipif(not MNIST.is_dir(), reason="the shared MNIST files are not here")
def test_mnist_has_its_well_known_numbers() -> None:
    found = inspect_source(MNIST)
    assert found.statistics is not None
    assert [f"{value:.4f}" for value in (*found.statistics.mean, *found.statistics.std)] == [
        "0.1307",
        "0.3081",
    ]
    assert found.delivered is not None
    assert found.delivered.shape == (1, 28, 28)
    assert found.statistics_of == "train"


def test_sixteen_bits_that_are_really_twelve_are_warned_of(tmp_path: Path) -> None:
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)  # 0..4095
    Image.fromarray(values).save(tmp_path / "dark.png")
    Image.fromarray(values * 16).save(tmp_path / "full.png")
    found = inspect_source(tmp_path)
    dark = [hazard for hazard in found.hazards if "upper three quarters" in hazard.kind]
    assert [(hazard.count, hazard.example) for hazard in dark] == [(1, "dark.png")]
