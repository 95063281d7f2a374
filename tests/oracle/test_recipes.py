"""Plans against PyTorch itself, running on a card that is not there: the strictest test there is.

Every recipe of ``bench/truth/suite.toml`` is trained by PyTorch's own CUDA build behind the stubs,
all in one process, and its two peaks are held against those of the plan. A difference is a fault
of one of the two; those that are known and not mended yet stand in ``FAULTS``, each with its cause,
and have to go from there when they are mended.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from memfit.errors import NoStubs
from memfit.measure.suite import Entry

BENCH = Path(__file__).parents[2] / "bench"


def load_bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("virtual_cuda", BENCH / "virtual_cuda.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["virtual_cuda"] = module
    spec.loader.exec_module(module)
    return module


bench = load_bench()
ENTRIES: list[Entry] = bench.entries()

FAULTS = {
    "gpt2-adafactor-amp": (
        "of PyTorch behind the stubs, where positions have no values: transformers takes them for "
        "packed sequences and makes a mask"
    ),
}


@pytest.fixture(scope="module")
def answers() -> Any:
    try:
        return bench.measured(ENTRIES)
    except NoStubs as error:
        pytest.skip(f"PyTorch itself does not run here without a GPU: {error.message}")


def _of(entry: Entry) -> Any:
    """The recipe as a parameter of the test, expected to fail where its fault is known."""
    cause = FAULTS.get(entry.name)
    marks = [] if cause is None else [pytest.mark.xfail(reason=cause, strict=True)]
    return pytest.param(entry, id=entry.name, marks=marks)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # re-entrant
@pytest.mark.parametrize("entry", list(map(_of, ENTRIES)))
def test_the_plan_has_the_peaks_of_pytorch_itself(entry: Entry, answers: Any) -> None:
    answer = answers[entry.name]
    assert answer["status"] == "ok", answer["message"]
    row = bench.hold(entry, answer)
    allocated, reserved = row.errors
    assert row.is_close, f"allocated {allocated:+.3%}, reserved {reserved:+.3%}"


def test_the_recipes_are_of_every_kind() -> None:
    recipes = [entry.recipe for entry in ENTRIES]
    assert len(recipes) >= 60
    assert {r.precision for r in recipes} >= {"fp32", "tf32", "amp-fp16", "amp-bf16", "bf16"}
    assert {r.memory_format for r in recipes} == {"nchw", "nhwc"}
    for kind in ("accumulation", "gradient_checkpointing", "ema", "clip_grad_norm", "zero_grad"):
        assert len({getattr(r, kind) for r in recipes}) > 1, kind
