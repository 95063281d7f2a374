from __future__ import annotations

import sys

import pytest
from torch import nn

from memfit import models
from memfit.errors import ModelError, UnknownName, UsageError


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mlp", "mlp"),
        ("resnet18", "torchvision:resnet18"),  # timm has one too
        ("test_vit", "timm:test_vit"),
        ("torchvision:resnet18", "torchvision:resnet18"),
        ("timm:resnet18", "timm:resnet18"),
        (" resnet18.a1_in1k ", "timm:resnet18.a1_in1k"),
    ],
)
def test_where_a_name_is_found(name: str, found: str) -> None:
    assert models.build(name).name == found


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet5", "torchvision:resnet50"),
        ("torchvision:resnt50", "torchvision:resnet50"),
        ("timm:resnt50", "timm:resnet50"),
        ("ResNet-50", "torchvision:resnet50"),
        ("bert-base-uncased", "transformers:bert-base-uncased"),
        ("llama-3.1-8b", "transformers:meta-llama/Llama-3.1-8B"),
        ("mpl", "mlp"),
    ],
)
def test_an_unknown_name_gets_the_nearest_of_all_sources(name: str, nearest: str) -> None:
    with pytest.raises(UnknownName) as caught:
        models.build(name)
    assert nearest in caught.value.nearest
    assert nearest in (caught.value.hint or "")
    assert set(caught.value.nearest) <= set(models.model_names())


def test_a_name_like_no_other_is_told_the_forms() -> None:
    with pytest.raises(UnknownName, match=r"torchvision:NAME.*file\.py:NAME"):
        models.build("qqqqqqqqqqqq")


def test_a_file_without_a_name_in_it() -> None:
    with pytest.raises(ModelError, match=r"there is no such file[\s\S]*net\.py:NAME"):
        models.build("net.py")


def test_names_are_full_and_by_source() -> None:
    names = models.model_names()
    assert names[:2] == ["cnn", "mlp"]
    assert models.model_names("timm") == [name for name in names if name.startswith("timm:")]
    assert {"torchvision:vit_h_14", "timm:resnet18", "transformers:gpt2"} < set(names)
    with pytest.raises(UnknownName, match="model source"):
        models.model_names("keras")


def test_without_timm_and_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in ("timm:resnet18", "transformers:gpt2"):
        with pytest.raises(ModelError, match=r'is not installed[\s\S]*pip install "memfit\[models'):
            models.build(name)
    with pytest.raises(UnknownName, match="torchvision:resnet50"):
        models.build("resnet5")
    assert models.model_names("timm") == []


def test_what_is_no_model() -> None:
    with pytest.raises(UsageError, match="not 3"):
        models.build(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(), (3, 0, 4), (-1, 2, 2)])
def test_what_is_no_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="no input shape"):
        models.build("mlp", input_shape=shape)


def test_what_is_no_number_of_classes() -> None:
    with pytest.raises(UsageError, match="0 is no number of classes"):
        models.build("mlp", num_classes=0)


def test_a_module_is_of_unknown_kind() -> None:
    built = models.build(nn.Linear(1, 1), num_classes=5)
    assert (built.kind, built.task, built.default_num_classes) == ("unknown", "unknown", None)
