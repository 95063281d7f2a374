"""Models of torchvision, without weights."""

from __future__ import annotations

import inspect
from typing import Any

import torchvision

from memfit.errors import InputShapeError
from memfit.models.built import BuiltModel, Task
from memfit.models.meta import construct_library_model, is_for_training

__all__ = ["build_torchvision", "torchvision_names"]

# Which task the builder's package trains for; models outside these packages classify images.
_TASKS: dict[str, Task] = {
    "detection": "detection",
    "optical_flow": "optical-flow",
    "segmentation": "segmentation",
    "video": "video-classification",
}

# Default `num_classes` of the builders without weights (torchvision 0.29, torchvision/models):
# ImageNet-1k, COCO with Pascal VOC labels, COCO, Kinetics-400.
_NUM_CLASSES: dict[Task, int] = {
    "classification": 1000,
    "segmentation": 21,
    "detection": 91,
    "video-classification": 400,
}

# Training sizes. Classification: the 224 crop of references/classification, also for models whose
# weights are evaluated at more. Segmentation: crop_size of references/segmentation/presets.py.
# Video: clip length and crop of the weights (torchvision 0.29, torchvision/models/video).
_INPUT_SHAPES: dict[Task, tuple[int, ...]] = {
    "classification": (3, 224, 224),
    "segmentation": (3, 480, 480),
    "video-classification": (3, 16, 224, 224),
}
_INPUT_SHAPES_BY_NAME: dict[str, tuple[int, ...]] = {
    "inception_v3": (3, 299, 299),  # the auxiliary classifier needs 299
    "quantized_inception_v3": (3, 299, 299),
    "mc3_18": (3, 16, 112, 112),
    "r2plus1d_18": (3, 16, 112, 112),
    "r3d_18": (3, 16, 112, 112),
}


def torchvision_names() -> list[str]:
    """Sorted, without the source's prefix."""
    return sorted(torchvision.models.list_models())


def build_torchvision(
    name: str, input_shape: tuple[int, ...] | None, num_classes: int | None
) -> BuiltModel:
    """Build a torchvision model without weights.

    Vision transformers and MaxViT are built for ``input_shape``; the others take any image size.

    Raises:
        InputShapeError: not three channels, or a size this architecture cannot be built for.
        ModelError: torchvision's own constructor failed.
    """
    spec = f"torchvision:{name}"
    task = _task(name)
    default_shape = _INPUT_SHAPES_BY_NAME.get(name, _INPUT_SHAPES.get(task))
    if input_shape is not None and default_shape is not None:
        _check_channels(spec, input_shape, default_shape)
    options = _options(name, input_shape, num_classes)
    shape_to_blame = input_shape if input_shape != default_shape else None
    module = construct_library_model(
        spec, lambda: torchvision.models.get_model(name, **options), shape_to_blame
    )
    return BuiltModel(
        module,
        spec,
        input_shape or default_shape,
        num_classes or _NUM_CLASSES.get(task),
        "image" if default_shape is not None else "unknown",
        task=task,
    )


def _task(name: str) -> Task:
    package = torchvision.models.get_model_builder(name).__module__.split(".")[2]
    return _TASKS.get(package, "classification")


def _check_channels(spec: str, shape: tuple[int, ...], default: tuple[int, ...]) -> None:
    if len(shape) == len(default) and shape[0] == default[0]:
        return
    given, taken = ("x".join(map(str, each)) for each in (shape, default))
    raise InputShapeError(
        f"{spec} takes 3-channel input such as {taken}, not {given}.",
        hint="Turn the images into RGB, or take a timm model: those accept any number of channels.",
    )


def _options(
    name: str, input_shape: tuple[int, ...] | None, num_classes: int | None
) -> dict[str, Any]:
    """What the builder is called with: never weights, and the image size where it is fixed."""
    options: dict[str, Any] = {"weights": None}
    parameters = inspect.signature(torchvision.models.get_model_builder(name)).parameters
    if "weights_backbone" in parameters:
        options["weights_backbone"] = None
    if num_classes is not None and _task(name) != "optical-flow":
        options["num_classes"] = num_classes
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = is_for_training()  # slow, and without values for nothing
    if input_shape is not None and name.startswith("vit_") and input_shape[1] == input_shape[2]:
        options["image_size"] = input_shape[1]
    if input_shape is not None and name.startswith("maxvit_"):
        options["input_size"] = input_shape[1:]
    return options
