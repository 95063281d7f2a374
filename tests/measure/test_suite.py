"""The suite that is shipped, and suites that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from memfit.cards.catalogue import gpu
from memfit.errors import MemfitError, UnknownName, UsageError
from memfit.measure.suite import default_suite, in_order, load_suite
from memfit.planner.planning import plan

ENTRIES = load_suite(default_suite())
FAMILIES = {
    "resnet", "vgg", "densenet", "efficientnet", "mobilenet", "convnext", "regnet", "vit", "swin",
    "deit", "maxvit", "beit", "segmentation", "detection", "bert", "gpt", "llama", "lstm",
}  # fmt: skip
#: Plans of the recipes without a library of their own, and of a few others.
PLANNED = ("unet", "anchors", "llama-small-amp", "lstm-amp", "vit-small-lion", "resnet50-frozen")


def test_it_is_large_enough() -> None:
    assert len(ENTRIES) >= 60
    assert all(len(entry.batch_sizes) == 3 for entry in ENTRIES)
    assert 12 <= sum(entry.keep_sequence for entry in ENTRIES) <= 16


def test_the_beginning_covers_every_family() -> None:
    first = in_order(ENTRIES)[: len(FAMILIES)]
    assert {work.entry.family for work in first} == FAMILIES
    assert all(work.is_composed for work in first)


def test_every_way_of_training_is_there() -> None:
    recipes = [entry.recipe for entry in ENTRIES]
    specs = [
        r.optimizer if isinstance(r.optimizer, dict) else {"name": r.optimizer} for r in recipes
    ]
    for name, values in {
        "precision": {"fp32", "tf32", "amp-fp16", "amp-bf16", "bf16"},
        "memory_format": {"nchw", "nhwc"},
        "gradient_checkpointing": {False, True, "reentrant"},
        "zero_grad": {"none", "zero"},
        "cudnn_benchmark": {False, True},
        "allocator": {"", "expandable_segments:True"},
        "accumulation": {1, 4},
        "ema": {False, True},
    }.items():
        assert {getattr(recipe, name) for recipe in recipes} >= values
    assert {spec["name"] for spec in specs} >= {"sgd", "adam", "adamw", "adafactor"}
    assert {spec.get("fused") for spec in specs} >= {None, True}
    assert any(spec.get("foreach") is False for spec in specs)


@pytest.mark.parametrize("name", PLANNED)
def test_it_can_be_planned(name: str) -> None:
    entry = next(entry for entry in ENTRIES if entry.name == name)
    made = plan(entry.recipe, gpu=gpu("rtx-3090"), verify=False)
    assert made.is_affine
    assert not made.unsupported
    assert made.at(entry.composed_batch).fits()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", UsageError, "schema_version"),
        ("schema_version = 1", UsageError, "empty"),
        ("schema_version = [", UsageError, "not a TOML file"),
        ("schema_version = 1\n[[recipe]]\nname = 'a b'\nmodel = 'mlp'", UsageError, "no name"),
        ("schema_version = 1\n[[recipe]]\nname = 'a'", UsageError, "names no model"),
        ("schema_version = 1\n[[recipe]]\nname = 'a'\nmodell = 'mlp'", UnknownName, "modell"),
        (
            "schema_version = 1\n[[recipe]]\nname = 'a'\nmodel = 'mlp'\nbatch_sizes = [0]",
            UsageError,
            "batch_sizes",
        ),
        (
            "schema_version = 1\n"
            + 2 * "[[recipe]]\nname = 'a'\nmodel = 'mlp'\nbatch_sizes = [1]\n",
            UsageError,
            "two recipes",
        ),
    ],
)
def test_what_is_no_suite(tmp_path: Path, text: str, error: type[MemfitError], words: str) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(text)
    with pytest.raises(error, match=words):
        load_suite(path)
