from __future__ import annotations

import pytest
import torch

import memfit
from memfit import models
from memfit.errors import InputShapeError, StepError


@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "test_byobnet",
        "test_convnext",
        "levit_128s",
        "mixer_s32_224",
    ],
)
@pytest.mark.parametrize("shape", [(1, 192, 192), (4, 256, 256), (3, 128, 128)])
def test_built_for_channels_size_and_classes(name: str, shape: tuple[int, ...]) -> None:
    built = models.build(f"timm:{name}", input_shape=shape, num_classes=5)
    assert built.module(torch.empty(2, *shape, device="meta")).shape == (2, 5)
    assert (built.default_input_shape, built.default_num_classes) == (shape, 5)


def test_the_models_own_size() -> None:
    built = models.build("timm:vit_tiny_patch16_384")
    assert (built.default_input_shape, built.default_num_classes) == ((3, 384, 384), 1000)
    assert (built.kind, built.task) == ("image", "classification")
    # timm's published count for 224, and a position of 192 numbers for each patch more
    assert (
        sum(parameter.numel() for parameter in built.module.parameters())
        == 5_717_416 + (24**2 - 14**2) * 192
    )


def test_a_backbone_without_classes_gets_a_classifier() -> None:
    built = models.build("timm:vit_small_patch14_dinov2")
    assert built.default_num_classes == 1000
    assert built.module.get_parameter("head.weight").shape[0] == 1000


def test_a_size_it_cannot_be_built_for() -> None:
    with pytest.raises(InputShapeError, match="mixer_s32_224 cannot be built for 3x1x1"):
        models.build("timm:mixer_s32_224", input_shape=(3, 1, 1))


def test_a_shape_that_is_no_image_is_the_models_to_refuse() -> None:
    with pytest.raises(StepError, match="patch_embed"):
        memfit.plan("timm:vit_tiny_patch16_224", input_shape=(1024,), gpu="rtx-3060")
