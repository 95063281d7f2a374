"""Processes of their own: what they print, how they end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from memfit.measure.process import Process, run_process
from memfit.measure.target import Target
from memfit.recipe.recipe import Recipe

_MODEL = """
import os, sys, time, torch
from torch import nn
class Net(nn.Sequential):
    def forward(self, x):
        print("noise on stdout")
        os.write(1, b"more noise, below Python, in no encoding \\xff\\n")
        if x.device.type != "meta" and {condition}:
            {action}
        return super().forward(x.flatten(1))
def build():
    return Net(nn.Linear(12, 4))
"""


def job(folder: Path, target: Target, action: str, **options: float) -> Process:
    text = _MODEL.replace("{condition}", str(bool(action))).replace("{action}", action or "pass")
    (folder / "net.py").write_text(text)
    recipe = Recipe(model=f"{folder / 'net.py'}:build", input_shape=(3, 2, 2))
    return Process(recipe, target, 4, **options)  # type: ignore[arg-type]


def test_noise_is_no_answer(tmp_path: Path, target: Target) -> None:
    answer = run_process(job(tmp_path, target, ""))
    assert answer["status"] == "ok", answer
    assert answer["peak_allocated_bytes"] > 0
    assert answer["versions"] == {"cuda": None, "cudnn": None}


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("os._exit(7)", "exit code 7"),
        ("raise ValueError('no such luck')", "ValueError: no such luck"),
    ],
)
def test_a_crash_is_an_answer(tmp_path: Path, target: Target, action: str, words: str) -> None:
    answer = run_process(job(tmp_path, target, action))
    assert answer["status"] == "crashed"
    assert words in answer["message"]


def test_the_recipe_alone_decides(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "PYTORCH_CUDA_ALLOC_CONF",
        "PYTORCH_NO_CUDA_MEMORY_CACHING",
        "NVIDIA_TF32_OVERRIDE",
    ):
        monkeypatch.setenv(name, "1")
    plain = job(tmp_path, target, "raise ValueError(sorted(os.environ.items()))")
    said = run_process(plain)["message"]
    assert "('CUDA_DEVICE_ORDER', 'PCI_BUS_ID')" in said
    assert "_CUDA_" not in said.replace("CUDA_DEVICE_ORDER", "")
    assert "PYTORCH_ALLOC_CONF" not in said
    assert "TF32" not in said
    asked = replace(plain, recipe=plain.recipe.but(allocator="expandable_segments:True"))
    assert "('PYTORCH_ALLOC_CONF', 'expandable_segments:True')" in run_process(asked)["message"]


def test_one_that_does_not_end_is_ended(tmp_path: Path, target: Target) -> None:
    answer = run_process(job(tmp_path, target, "time.sleep(600)", limit_seconds=3.0))
    assert answer["status"] == "timed_out"
    assert "3 s" in answer["message"]
