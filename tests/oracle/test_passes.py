"""Evaluation, inference and encoder-decoders: plans against PyTorch itself, without a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_recipes import bench

from memfit.errors import NoStubs
from memfit.measure.suite import Entry, entry_of
from memfit.recipe.recipe import Recipe

_RESNET = {"model": "torchvision:resnet18"}
_BERT = {"model": "transformers:bert-base-uncased", "input_ids": 128}
_VIT = {"model": "torchvision:vit_b_16"}

ENTRIES = [
    replace(entry_of(Recipe(**values), (8,)), name=name)
    for name, values in {
        "resnet-eval": _RESNET | {"mode": "eval"},
        "resnet-eval-amp": _RESNET | {"mode": "eval", "precision": "amp-fp16"},
        "resnet-inference-half": _RESNET | {"mode": "inference", "precision": "fp16"},
        "bert-eval": _BERT | {"mode": "eval"},
        "bert-inference": _BERT | {"mode": "inference", "precision": "bf16"},
        "t5-train": {"model": "transformers:t5-small", "input_ids": 64, "optimizer": "adamw"},
        "bart-train": {"model": "transformers:facebook/bart-base", "input_ids": 64},
        "t5-inference": {"model": "transformers:t5-small", "input_ids": 64, "mode": "inference"},
        "vit-inference-amp": _VIT | {"mode": "inference", "precision": "amp-bf16"},
    }.items()
]


@pytest.fixture(scope="module")
def answers() -> Any:
    try:
        return bench.measured(ENTRIES)
    except NoStubs as error:
        pytest.skip(f"PyTorch itself does not run here without a GPU: {error.message}")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_plan_has_the_peaks_of_pytorch_itself(entry: Entry, answers: Any) -> None:
    answer = answers[entry.name]
    assert answer["status"] == "ok", answer["message"]
    row = bench.hold(entry, answer)
    allocated, reserved = row.errors
    assert row.is_close, f"allocated {allocated:+.3%}, reserved {reserved:+.3%}"
