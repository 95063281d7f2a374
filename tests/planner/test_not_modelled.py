"""What training would do and the figures do not have is said, and is no success where it counts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import memfit
from memfit.cli import main
from memfit.errors import ModelError


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 5))


def compiled() -> nn.Module:
    wrapped: nn.Module = torch.compile(plain())
    return wrapped


def parallel() -> nn.Module:
    return nn.DataParallel(plain())


@pytest.mark.parametrize(
    ("build", "options", "word"),
    [
        (compiled, {}, "torch.compile"),
        (parallel, {}, "DataParallel"),
        (plain, {"compile": True}, "torch.compile"),
        (plain, {"cudnn_benchmark": True}, "cudnn.benchmark"),
        (plain, {"deterministic": True}, "eterministic"),
    ],
)
def test_it_is_said_and_the_figures_are_of_the_model_without(
    build: Callable[[], nn.Module], options: dict[str, bool], word: str
) -> None:
    plan = memfit.plan(build, input_shape=(12,), batch_size=8, gpu="8GiB", **options)
    bare = memfit.plan(plain, input_shape=(12,), batch_size=8, gpu="8GiB")
    (sentence,) = plan.to_dict()["not_modelled"]
    assert word in sentence
    assert plan.at(8).parts == bare.at(8).parts
    assert bare.to_dict()["not_modelled"] == []


def test_casts_of_apex_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``apex.amp.initialize`` leaves its state (apex/amp/_amp_state.py, frontend.py)."""
    state = SimpleNamespace(
        _amp_state=SimpleNamespace(opt_properties=SimpleNamespace(enabled=True))
    )
    monkeypatch.setitem(sys.modules, "apex.amp._amp_state", state)
    plan = memfit.plan(plain, input_shape=(12,), batch_size=8, gpu="8GiB")
    (sentence,) = plan.to_dict()["not_modelled"]
    assert "apex.amp" in sentence


MODEL = """
import torch
from torch import nn

def compiled():
    return torch.compile(nn.Linear(12, 5))

def plain():
    return nn.Linear(12, 5)
"""


def test_strict_is_for_whoever_must_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    asked = ["--input-shape", "12", "--batch-size", "8", "--gpu", "8GiB", "--quick"]
    words = ["plan", f"{tmp_path}/net.py:compiled", *asked]
    assert main(words) == 0
    assert "Not in these figures" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["not_modelled"]) == 1
    assert main([*words, "--strict"]) == 4
    assert main(["plan", f"{tmp_path}/net.py:plain", *asked, "--strict"]) == 0


class HasScripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.jit.script(nn.Linear(12, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x)
        return y


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
@pytest.mark.parametrize("build", [lambda: torch.jit.script(plain()), HasScripted])
def test_torchscript_is_refused_by_its_name(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(ModelError, match="TorchScript") as error:
        memfit.plan(build, input_shape=(12,), gpu="8GiB")
    assert error.value.hint is not None
    assert "before torch.jit" in error.value.hint
