"""Which source a word or a path means."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image

from memfit.data.sets.opening import open_dataset, source_names
from memfit.errors import DataError, MemfitError, UnknownName, UsageError


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (3, 2)).save(path)


def test_names() -> None:
    assert source_names() == ["cifar10", "cifar100", "fashion-mnist", "mnist", "shapes"]


def test_a_data_set_passes_through() -> None:
    dataset = open_dataset("shapes,train=2,test=2")
    assert open_dataset(dataset) is dataset


def test_a_name_wins_over_a_folder_and_a_path_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "mnist/a/1.png")
    put(tmp_path / "photos/a/1.png")
    put(tmp_path / "shapes/a/1.png")
    with pytest.raises(DataError, match="MNIST is not here"):
        open_dataset("mnist")
    assert open_dataset("shapes,train=2,test=2").layout == "generated shapes"
    for source in ("./mnist", Path("mnist"), "photos", "mnist/", str(tmp_path / "mnist")):
        assert open_dataset(source).classes == ("a",)


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "photos/1.png")
    assert len(open_dataset("~/photos")) == 1
    with pytest.raises(DataError, match="does not exist"):
        open_dataset("~nobody-of-this-name/photos")


def test_a_word_that_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UnknownName, match=r"(?s)'cifar-10'.*no such path either.*cifar10"
    ) as caught:
        open_dataset("cifar-10")
    assert caught.value.exit_code == 2
    with pytest.raises(UnknownName, match="Names: cifar10, cifar100, fashion-mnist, mnist, shapes"):
        open_dataset("xyzzy")


def test_a_missing_path(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"(?s)fotos does not exist.*there is photos") as caught:
        open_dataset(tmp_path / "fotos")
    assert caught.value.exit_code == 1
    with pytest.raises(DataError, match=r"deep/er does not exist"):
        open_dataset(tmp_path / "photos/deep/er")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is a file"):
        open_dataset(tmp_path / "file/below")


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("broken", "loop"):
        with pytest.raises(DataError, match=f"{name} is a link to something that does not exist"):
            open_dataset(tmp_path / name)


@pytest.mark.parametrize("source", ["", " ", "a\0b", "mnist,size=3", "cifar10,"])
def test_what_is_no_source(source: str) -> None:
    with pytest.raises(UsageError):
        open_dataset(source)


def test_a_name_that_is_too_long() -> None:
    with pytest.raises(MemfitError, match="name too long"):
        open_dataset("./" + "a" * 300)


@pytest.mark.parametrize("source", ["", "mnist", "file.csv", "t10k-images-idx3-ubyte"])
def test_what_may_not_be_read(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: object, *_: object, **__: object) -> NoReturn:  # root may read anything
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "file.csv").touch()
    (tmp_path / "t10k-images-idx3-ubyte").touch()
    for owner, name in ((os, "scandir"), (os, "listdir"), (Path, "open"), (Path, "is_dir")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, forbidden)
            with pytest.raises(MemfitError):
                open_dataset("mnist" if source == "mnist" else tmp_path / source, root=tmp_path)


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("not an image")
    with pytest.raises(DataError, match=r"notes\.md is no image"):
        open_dataset(path)


def test_an_image_with_a_strange_ending(tmp_path: Path) -> None:
    put(tmp_path / "1.png")
    path = (tmp_path / "1.png").rename(tmp_path / "1.dat")
    assert open_dataset(path)["all"].pixels(0).shape == (2, 3, 1)


def test_a_device_is_no_source() -> None:
    with pytest.raises(DataError, match="neither a file nor a folder"):
        open_dataset("/dev/null")


def test_opening_does_not_import_torch(tmp_path: Path) -> None:
    put(tmp_path / "a/1.png")
    code = (
        "import sys; from memfit.data.sets.opening import open_dataset; "
        f"open_dataset({str(tmp_path)!r}); open_dataset('shapes,train=2,test=2'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
