"""From what a browser sends to a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memfit.recipe.fields import Offer, offered
from memfit.recipe.recipe import Recipe
from memfit.web.asking.names import KnownNames
from memfit.web.asking.refusals import Refusal
from memfit.web.asking.requests import read_batch, read_plan_request

NAMES = KnownNames(
    {"named": ["my.py:build"], "builtin": ["mlp"], "torchvision": ["torchvision:resnet50"]},
    ["adamw", "sgd"],
    ["shapes"],
    "0",
)


def read(recipe: Any, **more: Any) -> Any:
    return read_plan_request(json.dumps({"recipe": recipe, **more}).encode(), NAMES)


def refusal(body: bytes) -> Refusal:
    with pytest.raises(Refusal) as found:
        read_plan_request(body, NAMES)
    return found.value


def test_a_whole_recipe() -> None:
    asked = read(
        {
            "model": "resnet50", "input_shape": [3, 64, 64], "num_classes": 10, "batch_size": 32,
            "optimizer": "SGD,momentum=0.9,nesterov=true", "precision": "amp-fp16",
            "gradient_checkpointing": "reentrant", "clip_grad_norm": 1, "ema": True, "safety": 0.5,
            "allocator": "expandable_segments:True",
        },
        gpu="3060",
        free_bytes=8 << 30,
    )  # fmt: skip
    assert asked.recipe["model"] == "torchvision:resnet50"
    assert asked.recipe["optimizer"] == {"name": "sgd", "momentum": 0.9, "nesterov": True}
    assert Recipe(**asked.recipe).input_shape == (3, 64, 64)
    assert asked.free_bytes == 8 << 30


def test_spellings_of_one_question_have_one_name() -> None:
    name = read({"model": "resnet50"}, gpu="rtx-3060").name
    assert name == read({"model": "torchvision:resnet50", "ema": False}, gpu="RTX 3060").name
    assert name != read({"model": "resnet50"}, gpu="rtx-3060", free_bytes=1 << 30).name
    assert name != read({"model": "resnet50"}).name
    assert name != read({"model": "resnet50", "batch_size": 1}, gpu="rtx-3060").name


def test_the_defaults_of_every_field_are_accepted() -> None:
    defaults = {row.name: row.default for row in offered(Offer.REQUEST)}
    assert read(defaults | {"model": "mlp"}).name == read({"model": "mlp"}).name


@pytest.mark.parametrize(
    "model",
    [
        "/etc/passwd:build", "os:system", "my.py", "my.py:other", "./my.py:build", "../my.py:build",
        "my.py:build ", "builtins:eval", "torchvision:../x", "transformers:/etc", "", "x" * 200,
        "timm:resnet50", "recipe.toml", "<script>alert(1)</script>", "\ud800", "torchvision:",
    ],
)  # fmt: skip
def test_models_that_are_not_listed(model: str) -> None:
    found = refusal(json.dumps({"recipe": {"model": model}}).encode())
    assert found.status == 422
    assert found.message.startswith("Unknown model")
    json.dumps(found.to_dict()).encode()


def test_a_named_model_is_allowed() -> None:
    assert read({"model": "my.py:build"}).recipe["model"] == "my.py:build"


def test_an_edited_model_is_another_question(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    name = f"{file}:build"
    own = KnownNames({"named": [name, "package.module:build"]}, ["sgd"], [], "0")

    def asked(model: str) -> str:
        return read_plan_request(json.dumps({"recipe": {"model": model}}).encode(), own).name

    gone = asked(name)
    file.write_text("a = 1")
    first = asked(name)
    assert first == asked(name) != gone
    file.write_text("a = 12")
    assert asked(name) != first
    assert asked("package.module:build") == asked("package.module:build")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"x"', b"1", b"\xff\xfe", b"[" * 60_000, b'{"a":' * 10_000,
        b'{"recipe": NaN}', b'{"recipe": {"model": "mlp", "safety": Infinity}}',
        b'{"recipe": {"model": "mlp", "batch_size": ' + b"9" * 5000 + b"}}", b"\x80\x04K\x01.",
    ],
)  # fmt: skip
def test_what_is_no_json_object(body: bytes) -> None:
    assert refusal(body).status == 400


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"data": "/etc"}, "data"),
        ({"weights": "x.pt"}, "weights"),
        ({"root": "/"}, "root"),
        ({"transform": "os:system"}, "transform"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": -1}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": "8"}, "batch_size"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"batch_size": (1 << 24) + 1}, "batch_size"),
        ({"num_classes": 10**30}, "num_classes"),
        ({"clip_grad_norm": 1e999}, "JSON"),
        ({"clip_grad_norm": -1}, "clip_grad_norm"),
        ({"safety": 0}, "safety"),
        ({"safety": 1.1}, "safety"),
        ({"input_shape": []}, "input_shape"),
        ({"input_shape": [3, 224]*3}, "input_shape"),
        ({"input_shape": [16384] * 4}, "input_shape"),
        ({"input_shape": [True, 1, 1]}, "input_shape"),
        ({"input_shape": "3x224x224"}, "input_shape"),
        ({"input_shape": [3, 8, 8], "input_ids": 8}, "exclude"),
        ({"ema": 1}, "ema"),
        ({"precision": "fp8"}, "precision"),
        ({"precision": []}, "precision"),
        ({"gradient_checkpointing": 1}, "gradient_checkpointing"),
        ({"gradient_checkpointing": "x"}, "gradient checkpointing"),
        ({"allocator": "x\n"}, "allocator"),
        ({"optimizer": "nonsense"}, "optimizer"),
        ({"optimizer": "sgd,params=1"}, "params"),
        ({"optimizer": "sgd,lr=x"}, "lr"),
        ({"optimizer": "sgd,lr"}, "option"),
        ({"optimizer": "sgd,lr=inf"}, "lr"),
        ({"optimizer": "sgd\nlr=1"}, "optimizer"),
        ({"optimizer": "sgd,lr=" + "[" * 190}, "optimizer"),
        ({"optimizer": "a" * 201}, "optimizer"),
        ({"optimizer": {"name": "sgd"}}, "optimizer"),
        ({"model": ["mlp"]}, "model"),
        ({"model": "m" * 201}, "model"),
    ],
)  # fmt: skip
def test_impossible_values_are_named(changes: dict[str, Any], words: str) -> None:
    found = refusal(json.dumps({"recipe": {"model": "mlp", **changes}}).encode())
    assert words in f"{found.message} {found.hint}"
    assert found.status in (400, 422)


@pytest.mark.parametrize(
    "more",
    [
        {"gpu": "no-such-card"}, {"gpu": 3}, {"gpu": "x" * 65}, {"gpu": "99999999999999999TiB"},
        {"gpu": "0GiB"}, {"gpu": "rtx-3060", "free_bytes": 0}, {"free_bytes": 8},
        {"gpu": "rtx-3060", "free_bytes": -8}, {"gpu": "rtx-3060", "free_bytes": 1 << 60},
        {"gpu": "rtx-3060", "free_bytes": True}, {"code": "1"},
    ],
)  # fmt: skip
def test_impossible_cards(more: dict[str, Any]) -> None:
    assert refusal(json.dumps({"recipe": {"model": "mlp"}, **more}).encode()).status == 422


@pytest.mark.parametrize("text", [None, "", "0", "-1", "1.5", "x", "1e3", "9" * 30, "١", "1 "])
def test_batches_of_a_query(text: str | None) -> None:
    assert read_batch("64") == 64
    with pytest.raises(Refusal, match="batch") as found:
        read_batch(text)
    assert found.value.status == 422
