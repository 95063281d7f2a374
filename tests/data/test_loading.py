"""The loader: the same samples in the same order, whatever reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

from memfit.data import loader
from memfit.data.loading.loader import Loader
from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import Dataset, FileSplit
from memfit.data.samples.paths import PathTable
from memfit.errors import BadImage, DataError, UnknownName, UsageError
from memfit.step.batch import BatchSpec
from memfit.step.tensors import Arguments, TensorSpec

COUNT, CLASSES = 37, 4


def arrays(channels: int = 3, size: int = 12, count: int = COUNT, seed: int = 0) -> Dataset:
    random = np.random.default_rng(seed)
    shape = (count, size, size) if channels == 1 else (count, size, size, channels)
    images = random.integers(0, 256, shape, dtype=np.uint8)
    labels = random.integers(0, CLASSES, count)
    splits = {
        "train": ArraySplit("train", images, labels),
        "test": ArraySplit("test", images[:9], labels[:9]),
    }
    return Dataset("arrays", "made up", splits, tuple("abcd"))


@pytest.fixture
def files(tmp_path: Path) -> Dataset:
    """JPEGs and PNGs of one size; number 5 and 20 can be damaged by a test."""
    random = np.random.default_rng(1)
    table = PathTable()
    for index in range(COUNT):
        name = f"{index:03d}.{'png' if index % 3 == 0 else 'jpg'}"
        pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        table.append(name)
    labels = np.arange(COUNT) % CLASSES
    return Dataset(
        "files", "a folder", {"train": FileSplit("train", tmp_path, table, labels)}, tuple("abcd")
    )


def samples_of(made: Loader, epoch: int = 0, start: int = 0) -> dict[int, Any]:
    """Every delivered sample by its number: image and label."""
    found: dict[int, Any] = {}
    for batch in made.batches(epoch, start):
        images, labels = made.prepare(batch)
        for index, image, label in zip(batch.indices.tolist(), images, labels, strict=True):
            assert index not in found, "a sample came twice"
            found[index] = (image, label)
    return found


def same(left: dict[int, Any], right: dict[int, Any]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
        for a, b in ((left[key], right[key]) for key in left)
    )


# -- what is delivered -----------------------------------------------------------------------------


def test_it_equals_torchvision_to_the_bit() -> None:
    data = arrays()
    made = loader(data, batch_size=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    usual = transforms.Compose([transforms.ToTensor(), transforms.Normalize(made.mean, made.std)])
    for index, (image, label) in samples_of(made).items():
        assert torch.equal(image, usual(data.train.image(index)))
        assert int(label) == data.train.label(index)


@pytest.mark.parametrize("channels", [1, 3])
def test_delivered_values_have_mean_zero_and_deviation_one(channels: int) -> None:
    made = loader(arrays(channels), batch_size=16)
    images = torch.stack([image for image, _ in samples_of(made).values()]).double()
    assert images.mean((0, 2, 3)).abs().max() < 1e-6
    assert (images.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6


def test_training_is_shuffled_anew_and_evaluation_is_not() -> None:
    train, test = loader(arrays(), batch_size=8), loader(arrays(), "test", batch_size=4)
    orders = [train.order(epoch).tolist() for epoch in range(3)]
    assert sorted(orders[0]) == list(range(COUNT))
    assert orders[0] != orders[1] != orders[2]
    assert test.order(0).tolist() == list(range(9))
    assert loader(arrays(), batch_size=8, seed=1).order(0).tolist() != orders[0]


def test_the_order_is_fixed_for_ever() -> None:
    """A run that is resumed with a later version goes on with the same samples."""
    assert loader(arrays(), batch_size=8).order(0)[:8].tolist() == [17, 10, 24, 3, 8, 28, 36, 31]


def test_files_are_decoded_once_and_then_come_from_memory(files: Dataset) -> None:
    made = loader(files, batch_size=8, workers=0)
    first = samples_of(made, 0)
    for path in files.train.root.iterdir():  # type: ignore[attr-defined]
        path.unlink()
    assert same(first, samples_of(made, 1))


def test_the_plain_jpeg_path_gives_the_pixels_of_the_general_one(files: Dataset) -> None:
    made = loader(files, batch_size=8, workers=0, mean=(0.0,) * 3, std=(1.0,) * 3)
    for index, (image, _) in samples_of(made).items():
        expected = torch.from_numpy(files.train.pixels(index, 3).copy()).permute(2, 0, 1)
        assert torch.equal(image.mul(255).round().to(torch.uint8), expected)


# -- nothing but seed, epoch and sample decides ---------------------------------------------------

AUGMENT = ("randaugment", "crop=2", "flip")


@pytest.mark.parametrize("augment", [("crop=2", "flip"), AUGMENT], ids=["batched", "per-sample"])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(
    files: Dataset, augment: tuple[str, ...], workers: int
) -> None:
    alone = samples_of(loader(files, batch_size=8, workers=0, augment=augment), 2)
    assert same(alone, samples_of(loader(files, batch_size=8, workers=workers, augment=augment), 2))


def test_memory_or_decoding_changes_nothing(files: Dataset) -> None:
    warm = loader(files, batch_size=8, workers=0, augment=("crop=2", "flip"))
    samples_of(warm, 0)
    cold = loader(files, batch_size=8, workers=0, augment=("crop=2", "flip"))
    assert same(samples_of(warm, 3), samples_of(cold, 3))


@given(
    batch=st.integers(1, 40), start=st.integers(0, COUNT), world=st.integers(1, 5),
    epoch=st.integers(0, 3), micro=st.integers(1, 9),
)  # fmt: skip
@settings(max_examples=60)
def test_batch_ranks_start_and_micro_batch_change_nothing(
    batch: int, start: int, world: int, epoch: int, micro: int
) -> None:
    data, augment = arrays(), ("crop=2", "flip")
    whole = samples_of(loader(data, batch_size=8, augment=augment), epoch)
    seen: dict[int, Any] = {}
    for rank in range(world):
        made = loader(data, batch_size=batch, augment=augment, rank=rank, world_size=world)
        for share in made.batches(epoch, start):
            for part in share.split(micro):
                images, labels = made.prepare(part)
                for index, image, label in zip(part.indices.tolist(), images, labels, strict=True):
                    assert index not in seen
                    seen[index] = (image, label)
    rest = loader(data, batch_size=8).order(epoch)[start:].tolist()
    assert same(seen, {index: whole[index] for index in rest})


@given(world=st.integers(1, 4), micro=st.integers(1, 8))
@settings(max_examples=20)
@pytest.mark.parametrize("augment", [("mixup=1",), ("cutmix", "flip"), ("mixup", "cutmix")])
def test_ranks_and_micro_batches_mix_what_the_global_batch_would(
    augment: tuple[str, ...], world: int, micro: int
) -> None:
    data = arrays()
    whole = samples_of(loader(data, batch_size=10, augment=augment), 1)
    parts: dict[int, Any] = {}
    for rank in range(world):
        made = loader(data, batch_size=10, augment=augment, rank=rank, world_size=world)
        for share in made.batches(1):
            for part in share.split(micro):
                images, labels = made.prepare(part)
                parts |= dict(
                    zip(part.indices.tolist(), zip(images, labels, strict=True), strict=True)
                )
    assert same(parts, whole)


@pytest.mark.parametrize(("word", "transform"), [("mixup", v2.MixUp), ("cutmix", v2.CutMix)])
def test_mixing_is_torchvisions(word: str, transform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the share and the box that ours drew, torchvision's makes the same batch."""
    made = loader(arrays(), batch_size=16, augment=(word,))
    batch = next(made.batches(0))
    assert batch.mixing is not None
    theirs = transform(num_classes=CLASSES)
    plain = loader(arrays(), batch_size=16)
    images, labels = plain.prepare(next(plain.batches(0)))
    params: dict[str, Any] = {"lam": batch.mixing.share}
    if batch.mixing.box is not None:
        top, bottom, left, right = batch.mixing.box
        params = {"box": (left, top, right, bottom), "lam_adjusted": batch.mixing.share}
    monkeypatch.setattr(
        theirs, "make_params", lambda _: params | {"labels": labels, "batch_size": 16}
    )
    expected_images, expected_labels = theirs(images.clone(), labels)
    ours_images, ours_labels = made.prepare(batch)
    torch.testing.assert_close(ours_images, expected_images)
    torch.testing.assert_close(ours_labels, expected_labels)


def test_the_processes_random_state_is_left_alone(files: Dataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    samples_of(loader(files, batch_size=8, workers=0, augment=AUGMENT))
    assert torch.equal(torch.rand(3), expected)


# -- sizes, colours, transforms --------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_other_sizes_become_the_models(files: Dataset, resize: str) -> None:
    made = loader(files, batch_size=8, workers=0, input_shape=(3, 8, 10), resize=resize)
    assert {tuple(image.shape) for image, _ in samples_of(made).values()} == {(3, 8, 10)}


def test_random_resized_crop_looks_different_in_every_epoch(files: Dataset) -> None:
    made = loader(
        files, batch_size=8, workers=0, input_shape=(3, 8, 8), augment=("random-resized-crop",)
    )
    first, again, second = samples_of(made, 0), samples_of(made, 0), samples_of(made, 1)
    assert same(first, again)
    assert not any(torch.equal(first[key][0], second[key][0]) for key in first)


def test_colour_must_be_asked_for() -> None:
    with pytest.raises(UsageError, match="takes RGB images, the data delivers grey") as caught:
        loader(arrays(1), batch_size=8, input_shape=(3, 12, 12))
    assert "--colour rgb" in str(caught.value.hint)
    made = loader(arrays(1), batch_size=8, input_shape=(3, 12, 12), colour="rgb")
    assert made.shape == (3, 12, 12)
    image = samples_of(made)[0][0]
    assert torch.equal(image[0], image[2])


def test_a_users_transform_is_applied_and_seeded(files: Dataset) -> None:
    def noisy(image: torch.Tensor) -> torch.Tensor:
        return image.float() / 255 + torch.rand(1)

    made = loader(files, batch_size=8, workers=0, transform=noisy)
    assert same(samples_of(made, 0), samples_of(made, 0))
    assert samples_of(made, 0)[0][0].max() > 1, "float results are not normalised again"


def test_a_users_transform_comes_from_a_file(files: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def dark(image):\n    return image // 2\n")
    made = loader(
        files, batch_size=8, workers=0, transform=f"{tmp_path}/mine.py:dark",
        mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    assert max(float(image.max()) for image, _ in samples_of(made).values()) <= 127.001 / 255


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_that_fails_names_itself_and_the_image(files: Dataset, workers: int) -> None:
    def broken(image: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("oops")

    with pytest.raises(DataError, match=r"broken raised ZeroDivisionError for 0\d\d\.\w+ \(.*oops"):
        samples_of(loader(files, batch_size=8, workers=workers, transform=broken))
    with pytest.raises(DataError, match=r"made a tensor \(3, 6, 6\)"):
        samples_of(loader(files, batch_size=8, workers=workers, transform=lambda x: x[:, ::2, ::2]))


# -- bad images ------------------------------------------------------------------------------------


def damage(files: Dataset, *numbers: int) -> None:
    split = files.train
    assert isinstance(split, FileSplit)
    for number in numbers:
        path = split.path(number)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_an_error_that_names_it(files: Dataset, workers: int) -> None:
    damage(files, 5)
    made = loader(files, batch_size=8, workers=workers)
    with pytest.raises(BadImage, match=r"005\.jpg: truncated") as caught:
        samples_of(made)
    assert "skip" in str(caught.value.hint)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", [(), ("mixup",), AUGMENT], ids=["plain", "mixup", "random"])
def test_skipped_images_are_listed_and_never_replaced(
    files: Dataset, workers: int, augment: tuple[str, ...]
) -> None:
    damage(files, 5, 20)
    made = loader(files, batch_size=8, workers=workers, on_bad_image="skip", augment=augment)
    for epoch in range(3):
        found = samples_of(made, epoch)
        assert set(found) == set(range(COUNT)) - {5, 20}
    assert {problem.name for problem in made.unreadable.values()} == {"005.jpg", "020.jpg"}
    assert all(problem.reason == "truncated" for problem in made.unreadable.values())


def test_a_batch_of_nothing_but_bad_images_is_left_out(files: Dataset) -> None:
    damage(files, 5)
    made = loader(files, batch_size=1, workers=0, on_bad_image="skip")
    assert len(list(made.batches(0))) == COUNT - 1


# -- bad questions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"augment": ("cropp",)}, UnknownName, "crop"),
        ({"augment": ("crop=99",)}, UsageError, "crop=99"),
        ({"augment": ("flip=2",)}, UsageError, "from 0 to 1"),
        ({"augment": ("flip=maybe",)}, UsageError, "no number"),
        ({"augment": ("randaugment=3",)}, UsageError, "magnitude"),
        ({"mean": (0.5, 0.5), "std": (1, 1)}, UsageError, "2 values"),
        ({"std": (0.0,)}, UsageError, "positive"),
        ({"input_shape": (3, 8)}, UsageError, "no image"),
        ({"rank": 2, "world_size": 2}, UsageError, "rank 2 of 2"),
        ({"split": "val"}, UnknownName, "val"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        loader(arrays(), batch_size=8, **options)


def test_data_without_labels_cannot_be_trained_on() -> None:
    split = ArraySplit("all", np.zeros((3, 4, 4), dtype=np.uint8), None)
    with pytest.raises(DataError, match="no labels"):
        loader(Dataset("flat", "a folder", {"all": split}), batch_size=2)


def test_sizes_that_vary_need_a_size(tmp_path: Path) -> None:
    for size in (8, 9):
        Image.new("RGB", (size, size)).save(tmp_path / f"{size}.png")
    split = FileSplit("all", tmp_path, PathTable(["8.png", "9.png"]), np.zeros(2, dtype=np.int64))
    with pytest.raises(UsageError, match="different sizes"):
        loader(Dataset("two", "a folder", {"all": split}, ("a",)), batch_size=2)


# -- the plan --------------------------------------------------------------------------------------


#: Mean and deviation of a channel stay on the device.
MOMENTS = 2 * 4


def test_the_plan_counts_the_batch_that_the_loader_delivers() -> None:
    import memfit

    data = arrays(1, size=28)
    plan = memfit.plan("cnn", data=data, gpu="11GiB")
    assert plan.recipe.input_shape == (1, 28, 28)
    assert plan.recipe.num_classes == CLASSES
    spec = BatchSpec(
        Arguments((TensorSpec((1, 28, 28), torch.float32),)), (TensorSpec((), torch.int64),)
    )
    assert spec.size_bytes(64) == 201_216
    assert plan.at(64).parts["batch"] == 201_216 + MOMENTS
    images, labels = next(loader(data, batch_size=16).epoch(0))
    assert images.nbytes + labels.nbytes == spec.size_bytes(16)


def test_the_plan_knows_shares_of_classes_and_half_precision() -> None:
    import memfit

    data = arrays(3, size=16)
    plan = memfit.plan("cnn", data=data, augment=("mixup", "crop"), gpu="11GiB")
    assert plan.at(8).parts["batch"] == 8 * (3 * 16 * 16 * 4 + CLASSES * 4) + 3 * MOMENTS
    half = loader(data, batch_size=8, precision="bf16", memory_format="nhwc")
    images, _ = next(half.epoch(0))
    assert images.dtype == torch.bfloat16
    assert images.is_contiguous(memory_format=torch.channels_last)


# -- odd questions --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pipe_is_unreadable_and_does_not_block(tmp_path: Path, workers: int) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    table = PathTable(["a.png", "pipe.jpg"])
    split = FileSplit("train", tmp_path, table, np.zeros(2, dtype=np.int64))
    data = Dataset("pipes", "a folder", {"train": split}, ("a",))
    made = loader(data, batch_size=2, workers=workers, on_bad_image="skip", input_shape=(3, 8, 8))
    assert set(samples_of(made)) == {0}
    assert made.unreadable[1].reason == "not a regular file"


def test_training_images_decide_the_colour_for_inspection_loader_and_plan() -> None:
    import memfit
    from memfit.data.facts.inspection import inspect_dataset

    grey = ArraySplit(
        "train", np.random.default_rng(0).integers(0, 255, (8, 16, 16), np.uint8), np.arange(8) % 2
    )
    colour = ArraySplit(
        "test",
        np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), np.uint8),
        np.arange(4) % 2,
    )
    data = Dataset("two", "made up", {"train": grey, "test": colour}, ("a", "b"))
    found = inspect_dataset(data)
    assert found.delivered is not None
    assert found.delivered.channels == loader(data, batch_size=2).shape[0] == 1
    assert [hazard.kind for hazard in found.hazards] == ["colour outside of training"]
    mean_and_deviation = 2 * 4  # of the one channel; they stay on the device
    assert memfit.plan("cnn", data=data, gpu="11GiB").at(4).parts["batch"] == (
        4 * (16 * 16 * 4 + 8) + mean_and_deviation
    )
    assert {
        tuple(image.shape) for image, _ in samples_of(loader(data, "test", batch_size=2)).values()
    } == {(1, 16, 16)}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda data: loader(data, batch_size=0), "batch_size is 0"),
        (lambda data: loader(data, batch_size=1.5), "batch_size is 1.5"),
        (lambda data: next(loader(data, batch_size=4).epoch(-1)), "epochs count from 0"),
        (lambda data: next(loader(data, batch_size=4).epoch(0, 99)), "has 37 samples"),
        (lambda data: loader(data, batch_size=4, augment=3), "list of words"),
        (lambda data: loader(data, batch_size=4, sample_weights=3), "Unknown option"),
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense(call: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call(arrays())


def test_float64_of_a_transform_becomes_float32(files: Dataset) -> None:
    made = loader(files, batch_size=8, workers=0, transform=lambda image: image.double() / 255)
    assert next(made.epoch(0))[0].dtype == torch.float32


def test_a_loader_is_its_first_epoch() -> None:
    made = loader(arrays(), batch_size=8)
    assert sum(len(images) for images, _ in made) == COUNT
