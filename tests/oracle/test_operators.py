"""Single operators on the virtual GPU against PyTorch's own allocator: every block, in order."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import memfit
from memfit.cards.catalogue import gpu
from memfit.errors import NoStubs
from memfit.virtual_cuda.child import child_environment
from memfit.virtual_cuda.stubs import build_stubs

FILE = Path(__file__).with_name("operators.py")
CARD = gpu("rtx-3090")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracle_operators", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


operators = load()

#: Case without its dtype, and why it differs.
FAULTS = {
    "mish": "on meta tensors its backward is taken apart, on CUDA it is one kernel",
    "embedding bag": "no rule for what its kernels sort and return",
    "hardswish of two layouts": "on meta tensors the gradient has another of the two layouts",
    "binary cross entropy": "on meta tensors its backward is taken apart",
    "attention with dropout": "the seed and offset of the random numbers are made after the output",
}


@pytest.fixture(scope="module")
def said() -> dict[str, list[int]]:
    """What PyTorch itself did, by case."""
    try:
        environment = {**os.environ, **child_environment(build_stubs(), CARD)}
    except NoStubs as error:
        pytest.skip(f"PyTorch itself does not run here without a GPU: {error.message}")
    done = subprocess.run(
        [sys.executable, str(FILE)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def planned(case: Any) -> list[int]:
    gc.disable()
    try:
        with memfit.VirtualGPU(CARD) as virtual:
            case()
        tape = virtual.tape
    finally:
        gc.enable()
    sizes = tape.sizes_bytes
    events = (sizes[event] if event >= 0 else -sizes[~event] for event in tape.events)
    return [size for size in events if size]


def _of(name: str) -> Any:
    cause = FAULTS.get(name.rpartition(", ")[0])
    marks = [] if cause is None else [pytest.mark.xfail(reason=cause, strict=True)]
    return pytest.param(name, id=name, marks=marks)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(map(_of, operators.CASES)))
def test_an_operator_makes_the_blocks_of_pytorch_itself(
    name: str, said: dict[str, list[int]]
) -> None:
    assert operators.settled(planned(operators.CASES[name])) == operators.settled(said[name])
