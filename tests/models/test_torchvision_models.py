from __future__ import annotations

import pytest
import torch
from torchvision.models import get_weight

from memfit import models
from memfit.errors import InputShapeError


def test_every_image_model_builds_and_counts_as_published() -> None:
    """The published weights' parameter count is the oracle; nothing is downloaded."""
    published = {
        "alexnet": "AlexNet_Weights.IMAGENET1K_V1",
        "convnext_tiny": "ConvNeXt_Tiny_Weights.IMAGENET1K_V1",
        "densenet121": "DenseNet121_Weights.IMAGENET1K_V1",
        "efficientnet_b7": "EfficientNet_B7_Weights.IMAGENET1K_V1",
        "inception_v3": "Inception_V3_Weights.IMAGENET1K_V1",
        "maxvit_t": "MaxVit_T_Weights.IMAGENET1K_V1",
        "regnet_x_400mf": "RegNet_X_400MF_Weights.IMAGENET1K_V1",
        "vit_b_16": "ViT_B_16_Weights.IMAGENET1K_V1",
        "fcn_resnet50": "FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1",
    }
    second_head = 9 * 1024 * 256 + 2 * 256 + 21 * 257  # of FCN, built without it
    for name, weights in published.items():
        module = models.build(f"torchvision:{name}").module
        counted = sum(parameter.numel() for parameter in module.parameters())
        left_out = second_head if name == "fcn_resnet50" else 0
        assert counted + left_out == get_weight(weights).meta["num_params"], name


@pytest.mark.parametrize(
    ("name", "shape", "classes", "task"),
    [
        ("resnet18", (3, 224, 224), 1000, "classification"),
        ("inception_v3", (3, 299, 299), 1000, "classification"),
        ("vit_h_14", (3, 224, 224), 1000, "classification"),
        ("efficientnet_b7", (3, 224, 224), 1000, "classification"),
        ("lraspp_mobilenet_v3_large", (3, 480, 480), 21, "segmentation"),
        ("r3d_18", (3, 16, 112, 112), 400, "video-classification"),
        ("ssdlite320_mobilenet_v3_large", None, 91, "detection"),
        ("raft_small", None, None, "optical-flow"),
    ],
)
def test_what_torchvision_knows(
    name: str, shape: tuple[int, ...] | None, classes: int | None, task: str
) -> None:
    built = models.build(f"torchvision:{name}")
    assert built.default_input_shape == shape
    assert (built.default_num_classes, built.task) == (classes, task)
    assert built.kind == ("image" if shape else "unknown")


@pytest.mark.parametrize("name", ["vit_b_32", "maxvit_t", "swin_t", "resnet18"])
def test_built_for_another_image_size_and_classes(name: str) -> None:
    built = models.build(f"torchvision:{name}", input_shape=(3, 448, 448), num_classes=7)
    assert built.module(torch.empty(2, 3, 448, 448, device="meta")).shape == (2, 7)
    assert (built.default_input_shape, built.default_num_classes) == ((3, 448, 448), 7)


def test_outputs_of_the_unusual_models() -> None:
    def output(name: str) -> object:
        built = models.build(f"torchvision:{name}")
        return built.module(torch.empty(2, *built.default_input_shape or (), device="meta"))

    assert output("inception_v3")._fields == ("logits", "aux_logits")  # type: ignore[attr-defined]
    assert list(output("lraspp_mobilenet_v3_large")) == ["out"]  # type: ignore[call-overload]


def test_sizes_that_an_architecture_cannot_be_built_for() -> None:
    with pytest.raises(InputShapeError, match=r"vit_b_16 cannot be built for 3x100x100: Assertion"):
        models.build("torchvision:vit_b_16", input_shape=(3, 100, 100))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 28), (3, 4, 28, 28)])
def test_three_channels_only(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputShapeError, match=r"3-channel input such as 3x224x224") as caught:
        models.build("torchvision:resnet18", input_shape=shape)
    assert "timm" in (caught.value.hint or "")
