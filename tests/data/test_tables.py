"""CSV and Parquet of paths and labels."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from memfit.data.sets.opening import open_dataset
from memfit.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("1.png", "2.png", "3.png", "x,y.png"):
        Image.new("L", (2, 2)).save(tmp_path / name)
    return tmp_path


def csv(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def content(path: Path, split: str = "all") -> list[tuple[str, str]]:
    dataset = open_dataset(path)
    samples = dataset[split]
    return [
        (
            samples.sample_name(i),
            dataset.classes[samples.label(i)] if samples.labels is not None else "",
        )
        for i in range(len(samples))
    ]


CAT_AND_DOG = [("1.png", "dog"), ("2.png", "cat")]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n1.png,dog\n2.png,cat\n",
        "\ufeffpath,label\r\n1.png,dog\r\n2.png,cat",
        "label;image\ndog;1.png\ncat;2.png\n",
        "id\tFilename\tClass\n7\t1.png\tdog\n8\t2.png\tcat\n",
        "1.png,dog\n2.png,cat\n",
        "where,kind\n\n1.png, dog\n\n2.png,cat\n\n",
        "file,species\n1.png,dog\n2.png,cat\n",
        'path,label\n"1.png","dog"\n"2.png",cat\n',
    ],
)
def test_columns_and_delimiters(folder: Path, text: str) -> None:
    path = csv(folder, text)
    assert content(path) == CAT_AND_DOG
    assert open_dataset(path).classes == ("cat", "dog")


def test_quoted_names_and_absolute_paths(folder: Path) -> None:
    path = csv(folder, f'path,label\n"x,y.png",a\n{folder / "1.png"},b\n')
    assert content(path) == [("x,y.png", "a"), (str(folder / "1.png"), "b")]
    assert open_dataset(path)["all"].pixels(1).shape == (2, 2, 1)


def test_numbers_are_sorted_as_numbers(folder: Path) -> None:
    path = csv(folder, "path,label\n1.png,10\n2.png,9\n3.png,2\n")
    assert open_dataset(path).classes == ("2", "9", "10")
    assert content(path) == [("1.png", "10"), ("2.png", "9"), ("3.png", "2")]


def test_splits(folder: Path) -> None:
    path = csv(folder, "path,label,split\n1.png,a,Test\n2.png,b,train\n3.png,a,valid\n")
    assert list(open_dataset(path).splits) == ["train", "val", "test"]
    assert content(path, "test") == [("1.png", "a")]


def test_numbered_folds_are_no_splits(folder: Path) -> None:
    path = csv(folder, "path,label,fold\n1.png,dog,0\n2.png,cat,1\n")
    assert content(path) == CAT_AND_DOG


def test_paths_alone(folder: Path) -> None:
    assert content(csv(folder, "path\n1.png\n2.png\n")) == [("1.png", ""), ("2.png", "")]
    dataset = open_dataset(csv(folder, "path,width,height\n1.png,2,2\n"))
    assert dataset["all"].labels is None
    assert "none of its columns (width, height)" in dataset.problems[0].reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,label\n", "has no rows"),
        ("path,label\n1.png,a\n2.png\n", "line 3: 1 cells instead of 2"),
        ("path,label\n1.png,a\n2.png,b,c\n", "line 3: 3 cells instead of 2"),
        ("path,label\n1.png,\n", "line 2: the label is empty"),
        ("path,label\n1.png,a\n ,b\n", "line 3: the path is empty"),
        ("path,label,split\n1.png,a,train\n2.png,b,7\n", "line 3: '7' is no split"),
        ("path,label\nnowhere.png,a\nelse.png,b\n", "none of the first 2 files exists"),
        ("label\na\n", "no column of paths among label"),
        (b"path,label\n1\0.png,a\n", "line 2: a zero byte"),
        ("path,label\n1.png,a\n".encode("utf-16"), "is UTF-16 text"),
        ('path,label\n1.png,"' + "a" * 200_000, "field larger than field limit"),
    ],
)
def test_tables_that_are_wrong(folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"table\.csv.*{message}"):
        open_dataset(csv(folder, text))


def test_too_many_labels(folder: Path) -> None:
    rows = "".join(f"1.png,n{n}\n" for n in range(100_002))
    with pytest.raises(DataError, match="more than 100,000 different labels"):
        open_dataset(csv(folder, "path,label\n" + rows))


def test_names_that_are_not_utf8(folder: Path) -> None:
    try:
        Image.new("L", (2, 2)).save(folder / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    dataset = open_dataset(csv(folder, b"path,label\ncaf\xe9.png,gar\xe7on\n"))
    assert dataset["all"].sample_name(0) == r"caf\xe9.png"
    assert dataset.classes == (r"gar\xe7on",)
    assert dataset["all"].pixels(0).shape == (2, 2, 1)


def parquet(folder: Path, **columns: list[Any]) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    path = folder / "table.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_parquet(folder: Path) -> None:
    path = parquet(
        folder,
        embedding=[[0.0], [1.0], [2.0]],
        label=[10, 9, 10],
        path=["1.png", "2.png", "3.png"],
        split=["test", "train", "train"],
    )
    assert content(path, "train") == [("2.png", "9"), ("3.png", "10")]
    assert content(path, "test") == [("1.png", "10")]
    assert open_dataset(path).classes == ("9", "10")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["1.png", None], "label": [0, 1]}, "row 2: the path is empty"),
        ({"path": ["1.png", "2.png"], "label": [0.0, float("nan")]}, "row 2: the label is empty"),
        ({"path": [], "label": []}, "has no rows"),
        ({"image": [{"size": 1}], "label": [0]}, "column 'image' holds struct"),
        ({"image": [{"bytes": None, "path": "a.png"}], "label": [0]}, "no bytes, only the path a"),
    ],
)
def test_parquet_that_is_wrong(folder: Path, columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataError, match=rf"table\.parquet.*{message}"):
        open_dataset(parquet(folder, **columns))


def test_damaged_parquet(folder: Path) -> None:
    path = parquet(folder, path=["1.png"], label=[0])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is no Parquet file that can be read"):
        open_dataset(path)


def test_parquet_without_pyarrow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv(folder, "PAR1", "table.parquet")
    find = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return find(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'memfit\[parquet\]'"):
        open_dataset(path)


def test_a_missing_file_in_the_first_line_is_a_sample_not_a_header(folder: Path) -> None:
    path = csv(folder, "gone/nope.png,a\n1.png,b\n")
    assert content(path) == [("gone/nope.png", "a"), ("1.png", "b")]


def test_a_header_of_unknown_names_is_said(folder: Path) -> None:
    problems = open_dataset(csv(folder, "x,z\n1.png,b\n")).problems
    assert ["its first line (x, z) is taken for names" in p.reason for p in problems] == [True]


def test_two_columns_of_one_name(folder: Path) -> None:
    with pytest.raises(DataError, match="2 columns are called 'path'"):
        open_dataset(csv(folder, "path,path,label\n1.png,2.png,b\n"))
