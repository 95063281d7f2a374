"""What people have is read: Kaggle's tables, the hub's Parquet, archives, deep and many pages."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import memfit
from memfit.data.facts.inspection import inspect_source
from memfit.data.sets.opening import open_dataset
from memfit.errors import BadImage, DataError, UsageError

RANDOM = np.random.default_rng(7)


def picture(size: int = 8) -> Image.Image:
    return Image.fromarray(RANDOM.integers(0, 256, (size, size, 3), dtype=np.uint8))


def encoded(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture().save(buffer, kind)
    return buffer.getvalue()


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture().save(path)
    return path


def sizes(dataset: memfit.data.Dataset) -> dict[str, int]:
    return {name: len(split) for name, split in dataset.splits.items()}


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "table", "text", "expected"),
    [
        (["images/a.png", "images/b.png"], "t.csv", "id_code,diagnosis\na,0\nb,1\n",
         ["images/a.png", "images/b.png"]),
        (["p1/a.jpg", "p2/b.jpg"], "t.csv", "image_id,dx\na,nv\nb,mel\n", ["p1/a.jpg", "p2/b.jpg"]),
        (["train_images/1.png", "test_images/1.png"], "train.csv", "id,label\n1,0\n",
         ["train_images/1.png"]),
        (["train/1.png", "test/1.png"], "labels.csv", "id,label\n1,0\n", ["train/1.png"]),
        (["train/1.png", "test/1.png"], "test.csv", "id,label\n1,0\n", ["test/1.png"]),
        (["pics/a.png"], "t.csv", "path,label\npics\\a.png,x\n", ["pics/a.png"]),
        (["pics/a.png"], "t.csv", "path,label\n/home/me/data/pics/a.png,x\n", ["pics/a.png"]),
        (["one/a.png", "two/a.png"], "t.csv", "path,label\nC:\\d\\two\\a.png,x\n", ["two/a.png"]),
        (["deep/er/A.JPG"], "t.csv", "name,label\na.jpg,x\n", ["deep/er/A.JPG"]),
        (["images/1.2.png"], "t.csv", "id,label\n1.2,x\n", ["images/1.2.png"]),
    ],
)  # fmt: skip
def test_where_the_images_of_a_table_are(
    tmp_path: Path, files: list[str], table: str, text: str, expected: list[str]
) -> None:
    for name in files:
        image(tmp_path / name)
    (tmp_path / table).write_text(text)
    split = open_dataset(tmp_path / table).train
    assert [split.sample_name(n) for n in range(len(split))] == expected
    assert split.pixels(0).shape == (8, 8, 3)


def test_a_name_that_two_files_have(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / name / "1.png")
    (tmp_path / "t.csv").write_text("id,label\n1,0\n")
    with pytest.raises(DataError, match=r"1 may be a/1\.png and b/1\.png"):
        open_dataset(tmp_path / "t.csv")


def test_addresses_are_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,label\nhttps://example.org/a.jpg,0\n")
    with pytest.raises(DataError, match="an address: images are not fetched"):
        open_dataset(tmp_path / "t.csv")


def test_a_name_that_is_nowhere(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    (tmp_path / "t.csv").write_text("id,label\na,0\nmissing,1\n")
    split = open_dataset(tmp_path / "t.csv").train
    assert [split.sample_name(n) for n in range(2)] == ["images/a.png", "missing"]
    with pytest.raises(BadImage, match="No such file"):
        split.pixels(1)


def pixel_rows(images: np.ndarray, labels: list[int] | None, last: bool = False) -> list[str]:
    lines = []
    for n, pixels in enumerate(images.reshape(len(images), -1).tolist()):
        cells = list(map(str, pixels))
        if labels is not None:
            cells = [*cells, str(labels[n])] if last else [str(labels[n]), *cells]
        lines.append(",".join(cells))
    return lines


GREY = RANDOM.integers(0, 256, (6, 28, 28), dtype=np.uint8)
NAMES = [f"pixel{n}" for n in range(784)]
LABELS = [3, 1, 3, 0, 1, 2]


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        (["label", *NAMES], pixel_rows(GREY, LABELS)),
        ([*NAMES, "label"], pixel_rows(GREY, LABELS, last=True)),
        (["label", *(f"{r}x{c}" for r in range(1, 29) for c in range(1, 29))],
         pixel_rows(GREY, LABELS)),
        (None, pixel_rows(GREY, LABELS)),
    ],
)  # fmt: skip
def test_columns_of_pixels(tmp_path: Path, header: list[str] | None, lines: list[str]) -> None:
    path = tmp_path / "train.csv"
    path.write_text("\n".join(([",".join(header)] if header else []) + lines) + "\n")
    dataset = open_dataset(path)
    assert dataset.classes == ("0", "1", "2", "3")
    assert dataset.train.labels.tolist() == LABELS
    np.testing.assert_array_equal(dataset.train.pixels(4)[..., 0], GREY[4])


def test_pixels_without_labels_and_in_one_cell(tmp_path: Path) -> None:
    test = tmp_path / "test.csv"
    test.write_text("\n".join([",".join(NAMES), *pixel_rows(GREY, None)]))
    assert open_dataset(test).task is None
    faces = tmp_path / "fer2013.csv"
    cells = [" ".join(map(str, pixels)) for pixels in GREY.reshape(6, -1).tolist()]
    usage = ["Training", "Training", "PublicTest", "PrivateTest", "Training", "Training"]
    lines = [f"{label},{c},{u}" for label, c, u in zip(LABELS, cells, usage, strict=True)]
    faces.write_text("\n".join(["emotion,pixels,Usage", *lines]))
    dataset = open_dataset(faces)
    assert sizes(dataset) == {"train": 4, "val": 1, "test": 1}
    np.testing.assert_array_equal(dataset["test"].pixels(0)[..., 0], GREY[3])
    short = tmp_path / "short.csv"
    short.write_text("emotion,pixels\n1,1 2 3 4\n2,1 2 3\n")
    with pytest.raises(DataError, match="pixels"):
        open_dataset(short)


def test_a_table_as_excel_saves_it(tmp_path: Path) -> None:
    image(tmp_path / "a b.png")
    (tmp_path / "t.csv").write_bytes("\ufeffsep=;\r\nBild;label\r\na b.png;Löwe\r\n".encode())
    dataset = open_dataset(tmp_path / "t.csv")
    assert dataset.classes == ("Löwe",)
    assert dataset.train.sample_name(0) == "a b.png"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", "a.png 3\nb.png 1\n"),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "label": 3}\n{"file_name": "b.png", "label": 1}',
        ),
        ("t.csv", "image,label\na.png,3.0\nb.png,1.0\n"),
        ("t.csv", ",image,label\n0,a.png,3\n1,b.png,1\n"),
        ("t.csv", "# from our lab\nimage,label\na.png,3\nb.png,1\n"),
    ],
)
def test_lists_and_json_lines(tmp_path: Path, name: str, text: str) -> None:
    for file in "ab":
        image(tmp_path / f"{file}.png")
    (tmp_path / name).write_text(text)
    dataset = open_dataset(tmp_path / name)
    assert (dataset.classes, dataset.train.labels.tolist()) == (("1", "3"), [1, 0])
    (tmp_path / "wrong.jsonl").write_text('{"file_name": "a.png", "label": 3}\n[1]\n')
    with pytest.raises(DataError, match=r"wrong\.jsonl, line 2"):
        open_dataset(tmp_path / "wrong.jsonl")


def test_numbers_without_names_are_samples(tmp_path: Path) -> None:
    for n in range(3):
        image(tmp_path / f"images/{n}.png")
    (tmp_path / "t.csv").write_text("0,1\n1,0\n2,1\n")
    dataset = open_dataset(tmp_path / "t.csv")
    assert dataset.train.labels.tolist() == [1, 0, 1]
    assert not dataset.problems


@pytest.mark.parametrize(
    ("name", "word"),
    [("x.h5", "HDF5"), ("x.mat", "MATLAB"), ("x.pkl", "could run code"), ("x.tfrecord", "records"),
     ("x.rar", "make it a .zip"), ("x.dcm", "DICOM"), ("x.mp4", "video")],
)  # fmt: skip
def test_what_is_refused_by_its_word(tmp_path: Path, name: str, word: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(DataError, match=word) as caught:
            open_dataset(source)
        assert "my_data.py:make" in str(caught.value.hint)


# -- Parquet of images -----------------------------------------------------------------------------


def write_parquet(path: Path, columns: dict[str, Any], features: dict[str, Any]) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table(columns)
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.replace_schema_metadata(noted), path)
    return path


def cells(count: int) -> list[dict[str, Any]]:
    return [{"bytes": encoded(), "path": f"{n}.png"} for n in range(count)]


def test_parquet_of_the_hub(tmp_path: Path) -> None:
    names = {"label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}}
    columns = {"image": cells(8), "label": [n % 2 for n in range(8)]}
    path = write_parquet(tmp_path / "t.parquet", columns, names)
    dataset = open_dataset(path)
    assert dataset.classes == ("cat", "dog", "owl")
    assert dataset.train.labels.tolist() == [0, 1] * 4
    found = inspect_source(path)
    assert (found.overall.readable, found.delivered.shape) == (8, (3, 8, 8))
    plain = write_parquet(tmp_path / "plain.parquet", columns, {})
    assert open_dataset(plain).classes == ("0", "1")


def test_shards_of_the_hub(tmp_path: Path) -> None:
    names = {"fine_label": {"names": ["a", "b"]}, "coarse_label": {"names": ["c"]}}
    for name, count in (("train-00000-of-00002", 3), ("train-00001-of-00002", 2), ("test-0", 2)):
        labels = [1] * count if "train" in name else [-1] * count
        columns = {"img": cells(count), "coarse_label": [0] * count, "fine_label": labels}
        write_parquet(tmp_path / f"data/{name}.parquet", columns, names)
    dataset = open_dataset(tmp_path)
    assert sizes(dataset) == {"train": 5, "test": 2}
    assert dataset.classes == ("a", "b")
    assert not dataset["test"].is_labelled
    assert [len(images) for images, _ in memfit.data.loader(dataset, batch_size=3, workers=1)] == [
        3, 2,
    ]  # fmt: skip


def test_parquet_of_other_tasks(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(buffer, "PNG")
    masks = [{"bytes": buffer.getvalue(), "path": None}] * 2
    path = write_parquet(tmp_path / "m.parquet", {"image": cells(2), "annotation": masks}, {})
    dataset = open_dataset(path)
    assert (dataset.task, dataset.classes) == ("masks", ("0", "1"))
    np.testing.assert_array_equal(dataset.train.sample(1)[1], np.eye(8))
    boxes = {"image": cells(1), "objects": [{"bbox": [[0.0, 1.0, 2.0, 3.0]]}]}
    dataset = open_dataset(write_parquet(tmp_path / "b.parquet", boxes, {}))
    assert dataset.task is None
    assert "detection" in dataset.problems[0].reason


# -- archives --------------------------------------------------------------------------------------

Pack = Callable[[Path, dict[str, bytes]], Path]


def as_zip(folder: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return folder / "set.zip"


def as_tar(folder: Path, files: dict[str, bytes], ending: str = "") -> Path:
    path = folder / f"set.tar{ending}"
    with tarfile.open(path, f"w:{ending.removeprefix('.')}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def as_gzip(folder: Path, files: dict[str, bytes]) -> Path:
    return as_tar(folder, files, ".gz")


PACKERS = pytest.mark.parametrize("pack", [as_zip, as_tar, as_gzip])


@PACKERS
@pytest.mark.parametrize("top", ["", "pets/"])
def test_archives_of_folders(tmp_path: Path, pack: Pack, top: str) -> None:
    content = {(split, name, n): encoded("JPEG") for split in ("train", "val")
               for name in ("cat", "dog") for n in range(3)}  # fmt: skip
    files = {f"{top}{s}/{name}/{n}.jpg": data for (s, name, n), data in content.items()}
    files[f"{top}__MACOSX/._x.jpg"] = b"litter"
    path = pack(tmp_path, files)
    dataset = open_dataset(path)
    assert sizes(dataset) == {"train": 6, "val": 6}
    assert dataset.classes == ("cat", "dog")
    known = np.asarray(Image.open(io.BytesIO(content["val", "dog", 1])))
    np.testing.assert_array_equal(dataset["val"].pixels(4), known)
    batches = list(memfit.data.loader(dataset, batch_size=4, workers=2))
    assert [len(images) for images, _ in batches] == [4, 2]
    assert inspect_source(path).overall.readable == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


@PACKERS
def test_archives_of_masks(tmp_path: Path, pack: Pack) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(buffer, "PNG")
    files = {f"images/{n}.png": encoded() for n in range(2)}
    files |= {f"masks/{n}.png": buffer.getvalue() for n in range(2)}
    dataset = open_dataset(pack(tmp_path, files))
    assert (dataset.task, dataset.classes) == ("masks", ("0", "255"))
    np.testing.assert_array_equal(dataset.train.sample(1)[1], np.eye(8))


@PACKERS
@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png", "a/../../1.png", "C:/a/1.png",
                                  "..\\a\\1.png"])  # fmt: skip
def test_names_that_lead_out(tmp_path: Path, pack: Pack, name: str) -> None:
    with pytest.raises(DataError, match="leads out of the archive"):
        open_dataset(pack(tmp_path, {name: encoded()}))


def test_links_in_archives(tmp_path: Path) -> None:
    path = as_tar(tmp_path, {"a/1.png": encoded(), "b/1.png": encoded()})
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("b/2.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    dataset = open_dataset(path)
    assert len(dataset) == 2
    assert "a link" in dataset.problems[-1].reason


def test_bombs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a bomb"):
        open_dataset(as_zip(tmp_path, {"a/1.png": bytes(80 << 20)}))
    with pytest.raises(DataError, match="a bomb"):
        open_dataset(as_gzip(tmp_path, {"a/1.png": bytes(80 << 20)}))


def test_encrypted_and_damaged_archives(tmp_path: Path) -> None:
    path = as_zip(tmp_path, {"a/1.png": encoded(), "b/1.png": encoded()})
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        open_dataset(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="the archive is damaged"):
        open_dataset(path)
    path = as_zip(tmp_path, {"a/1.png": encoded(), "b/1.png": encoded()})
    content = bytearray(path.read_bytes())
    content[60:70] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(BadImage, match="the archive is damaged"):
        open_dataset(path).train.pixels(0)


def test_archives_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No images.*1 file with \.zip"):
        open_dataset(as_zip(tmp_path, {"inner.zip": b"PK"}))


def test_the_tar_of_webdataset(tmp_path: Path) -> None:
    files = {}
    for n in range(4):
        files |= {f"{n:06}.jpg": encoded("JPEG"), f"{n:06}.cls": str(n % 2).encode()}
    dataset = open_dataset(as_tar(tmp_path, files))
    assert (dataset.classes, dataset.train.labels.tolist()) == (("0", "1"), [0, 1, 0, 1])
    with pytest.raises(DataError, match=r"000003\.cls is missing"):
        open_dataset(as_tar(tmp_path, {k: v for k, v in files.items() if k != "000003.cls"}))


# -- more than 8 bits, more than one page ----------------------------------------------------------


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Hounsfield units: air, water, bone."""
    for name in "ab":
        values = np.array([[-1000, 0], [1000, 3000]], np.int32)
        path = tmp_path / name / "1.tif"
        path.parent.mkdir()
        Image.fromarray(values).save(path)
        Image.fromarray(values.astype(np.float32)).save(path.with_name("2.tif"))
    return tmp_path


def test_a_window_for_signed_images(scans: Path) -> None:
    with pytest.raises(BadImage, match=r"such as --window -1000:3000"):
        open_dataset(scans).train.pixels(0)
    for window, expected in (((-1000, 3000), [0, 64, 128, 255]), ((0, 1000), [0, 0, 255, 255])):
        split = open_dataset(scans, window=window).train
        for index in range(2):
            assert split.pixels(index).ravel().tolist() == expected


def test_the_window_is_everywhere(scans: Path) -> None:
    recipe = memfit.Recipe(model="cnn", data=str(scans), window="-1000:3000", input_shape=(1, 2, 2))
    assert recipe.window == (-1000, 3000)
    images, _ = next(iter(memfit.data.loader(recipe, batch_size=4, mean=(0,), std=(1,))))
    assert sorted({round(value * 255) for value in images.flatten().tolist()}) == [0, 64, 128, 255]
    with pytest.raises(DataError, match="--window -1000:3000"):
        memfit.plan("cnn", data=str(scans), batch_size=1)
    for wrong in ("3000:-1000", "1:1", "1", (1, 2, 3), "a:b"):
        with pytest.raises(UsageError, match="window"):
            memfit.Recipe(model="cnn", window=wrong)


def test_a_frame_by_number(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((2, 2), value, np.uint8)) for value in (10, 20, 30)]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pages[0].save(tmp_path / name / "1.tif", save_all=True, append_images=pages[1:])
    assert open_dataset(tmp_path).train.pixels(0)[0, 0, 0] == 10
    assert open_dataset(tmp_path, frame=2).train.pixels(1)[0, 0, 0] == 30
    with pytest.raises(BadImage, match="3 frames, from 0, and none of number 3"):
        open_dataset(tmp_path, frame=3).train.pixels(0)


def test_a_frame_for_each_row(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((2, 2), value, np.uint8)) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    path = tmp_path / "t.csv"
    path.write_text("path,frame,label\na.tif,0,x\na.tif,2,y\n")
    split = open_dataset(path).train
    assert [split.pixels(n)[0, 0, 0] for n in range(2)] == [10, 30]
    assert not inspect_source(path).duplicates
    path.write_text("path,frame,label\na.tif,one,x\n")
    with pytest.raises(DataError, match="'one' is no frame"):
        open_dataset(path)


def test_the_command_takes_them_all(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from memfit.cli import main

    assert main(["data", str(scans), "--no-preview"]) == 1
    assert "--window -1000:3000" in " ".join(capsys.readouterr().out.split())
    assert main(["data", str(scans), "--window", "-1000:3000", "--no-preview"]) == 0
    assert main(["data", str(scans), "--window", "3:1"]) == 2
    assert main(["data", str(scans), "--task", "masks"]) == 1
    assert main(["data", str(scans), "--task", "faces"]) == 2


# -- hazards of folders ----------------------------------------------------------------------------


def test_hidden_folders_are_named(tmp_path: Path) -> None:
    for name in ("a", "b", ".ipynb_checkpoints"):
        image(tmp_path / name / "1.png")
    found = inspect_source(tmp_path)
    assert found.classes == ("a", "b")
    (hazard,) = (h for h in found.hazards if "hidden" in h.kind)
    assert hazard.example == ".ipynb_checkpoints"
    assert "shift by one" in hazard.usually
    from torchvision.datasets import ImageFolder

    assert ImageFolder(tmp_path).class_to_idx == {".ipynb_checkpoints": 0, "a": 1, "b": 2}


@pytest.mark.parametrize(("names", "is_named"), [(("1", "2", "10"), True), (("1", "2"), False),
                                                 (("01", "02", "10"), False)])  # fmt: skip
def test_numbers_in_the_order_of_text(
    tmp_path: Path, names: tuple[str, ...], is_named: bool
) -> None:
    for name in names:
        image(tmp_path / name / "1.png")
    found = inspect_source(tmp_path)
    hazards = [hazard for hazard in found.hazards if "order" in hazard.kind]
    assert bool(hazards) == is_named
    if is_named:
        assert found.classes == ("1", "10", "2")
        assert "class 1 is folder 10, not 2" in hazards[0].usually
