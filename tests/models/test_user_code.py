from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from memfit import models
from memfit.errors import ExitCode, ModelError, UserCodeError

NET = """
from torch import nn
from width import WIDTH

class Net(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.head = nn.Linear(WIDTH, num_classes)

def build(input_shape, num_classes: int = 2):
    print("building")
    return nn.Linear(input_shape[0], num_classes)

net = Net()
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "width.py").write_text("WIDTH = 4\n")
    return tmp_path


def shape(spec: object, **options: object) -> tuple[int, ...]:
    module = models.build(spec, **options).module  # type: ignore[arg-type]
    assert all(parameter.is_meta for parameter in module.parameters())
    return tuple(next(module.parameters()).shape)


def test_class_function_and_instance(folder: Path) -> None:
    file = folder / "net.py"
    assert shape(f"{file}:Net") == (3, 4)
    assert shape(f"{file}:Net", num_classes=7) == (7, 4)
    assert shape(f"{file}:net", num_classes=7) == (3, 4)
    assert shape(f"{file}:build", input_shape=(5, 6, 6)) == (2, 5)
    built = models.build(f"{file}:Net", num_classes=7)
    assert (built.name, built.kind) == (f"{file}:Net", "unknown")


def test_package_module_from_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = folder / "pkg"
    package.mkdir()
    (folder / "net.py").rename(package / "net.py")
    (package / "__init__.py").touch()
    monkeypatch.chdir(folder)
    assert shape("pkg.net:Net") == (3, 4)


def test_an_installed_function() -> None:
    assert shape("torchvision.models:resnet18") == (64, 3, 7, 7)


def test_printing_does_not_reach_stdout(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models.build(f"{folder / 'net.py'}:build", input_shape=(5,))
    out, err = capsys.readouterr()
    assert (out, err) == ("", "building\n")


def test_nothing_is_left_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = list(sys.path)
    models.build(f"{folder / 'net.py'}:Net")
    assert sys.path == path
    assert "width" not in sys.modules
    assert not sys.dont_write_bytecode
    assert not list(folder.rglob("__pycache__"))


def test_a_changed_neighbour_is_read_again(folder: Path) -> None:
    assert shape(f"{folder / 'net.py'}:Net") == (3, 4)
    (folder / "width.py").write_text("WIDTH = 9\n")
    assert shape(f"{folder / 'net.py'}:Net") == (3, 9)


def test_two_files_of_one_name(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "net.py").write_text("import torch\ndef build():\n    return torch.nn.Linear(1, 1)\n")
    assert shape(f"{folder / 'net.py'}:Net") == (3, 4)
    assert shape(f"{other / 'net.py'}:build") == (1, 1)


@pytest.mark.parametrize(
    ("code", "error", "line"),
    [
        ("def build():\n    return undefined\n", "NameError: name 'undefined'", 2),
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'", 1),
        ("def build(:\n    pass\n", "SyntaxError", 1),
        ("import sys\nsys.exit('stop')\n", "SystemExit: stop", 2),
        ("import torch\ndef build():\n\n    torch.ones(2).view(3)\n", "RuntimeError: shape", 4),
        ("def deep():\n    1 / 0\ndef build():\n    deep()\n", "ZeroDivisionError", 2),
    ],
)
def test_an_error_in_the_users_file(tmp_path: Path, code: str, error: str, line: int) -> None:
    file = tmp_path / "broken.py"
    file.write_text(code)
    with pytest.raises(UserCodeError) as caught:
        models.build(f"{file}:build")
    message = str(caught.value)
    assert error in message
    assert message.endswith(f"{file}, line {line}")
    assert caught.value.exit_code == ExitCode.ERROR


def test_an_error_in_a_callable() -> None:
    def fails() -> nn.Module:
        raise ValueError("too deep")

    with pytest.raises(UserCodeError, match=r"fails raised ValueError: too deep") as caught:
        models.build(fails)
    assert f"{__file__}, line {fails.__code__.co_firstlineno + 1}" in caught.value.message


def test_a_module_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ModelError, match=r"no Python module 'nowhere'") as caught:
        models.build("nowhere.at_all:build")
    assert not isinstance(caught.value, UserCodeError)
    (folder / "needy.py").write_text("import nowhere\n")
    with pytest.raises(UserCodeError, match=r"needy\.py, line 1"):
        models.build("needy:build")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no file .*absent\.py"):
        models.build(f"{tmp_path / 'absent.py'}:build")


@pytest.mark.parametrize(
    ("attribute", "hint"), [("biuld", "Did you mean build?"), ("zzz", "Did you mean Net or build")]
)
def test_missing_attribute(folder: Path, attribute: str, hint: str) -> None:
    with pytest.raises(ModelError, match=f"has no '{attribute}'") as caught:
        models.build(f"{folder / 'net.py'}:{attribute}")
    assert hint in (caught.value.hint or "")


def test_no_attribute_at_all(folder: Path) -> None:
    with pytest.raises(ModelError, match="does not say what to use"):
        models.build(f"{folder / 'net.py'}:")


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (lambda: 3, "yields int, not an nn.Module"),
        (lambda: None, "yields NoneType"),
        (lambda depth: nn.Linear(1, 1), "needs the argument 'depth'"),
        (lambda num_classes: nn.Linear(1, 1), "needs num_classes"),
    ],
)
def test_what_a_callable_must_be(builder: Callable[..., nn.Module], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        models.build(builder)
    assert not isinstance(caught.value, UserCodeError)
    assert caught.value.hint


def test_an_attribute_that_is_no_builder(folder: Path) -> None:
    with pytest.raises(ModelError, match="of type int: neither model nor function"):
        models.build(f"{folder / 'net.py'}:number")
