"""Models of timm, without weights."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from memfit.models.built import BuiltModel
from memfit.models.meta import construct_library_model
from memfit.models.optional import optional_package

__all__ = ["build_timm", "is_timm_name", "timm_names"]

# For architectures whose own default has no classifier (DINOv2, CLIP image towers): ImageNet-1k.
_NUM_CLASSES = 1000


def timm_names() -> list[str]:
    """Sorted, without the source's prefix and without pretrained tags."""
    return sorted(optional_package("timm").list_models())


def is_timm_name(name: str) -> bool:
    """Also true with a pretrained tag, as in ``resnet50.a1_in1k``."""
    return bool(optional_package("timm").is_model(name))


def build_timm(
    name: str, input_shape: tuple[int, ...] | None, num_classes: int | None
) -> BuiltModel:
    """Build a timm model for the channels and, where it fixes one, the image size asked for.

    Raises:
        InputShapeError: this architecture cannot be built for the shape.
        ModelError: timm is missing, or its own constructor failed.
    """
    spec = f"timm:{name}"
    module = _create(spec, None, num_classes)
    own_shape = (getattr(module, "pretrained_cfg", None) or {}).get("input_size")
    default_shape = tuple(own_shape) if own_shape else None
    if input_shape is not None and input_shape != default_shape:
        module = _create(spec, input_shape, num_classes, _size_option(module, input_shape))
    return BuiltModel(
        module,
        spec,
        input_shape or default_shape,
        getattr(module, "num_classes", None) or None,  # 0: an encoder that cannot have a classifier
        "image",
        task="classification",
    )


def _create(
    spec: str,
    input_shape: tuple[int, ...] | None,
    num_classes: int | None,
    size_option: dict[str, Any] | None = None,
) -> nn.Module:
    timm = optional_package("timm")
    name = spec.removeprefix("timm:")
    options: dict[str, Any] = dict(size_option or {})
    if input_shape is not None and input_shape[0] != 3:
        options["in_chans"] = input_shape[0]
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if num_classes is not None:
        options["num_classes"] = num_classes
    elif config is not None and not config.num_classes:
        options["num_classes"] = _NUM_CLASSES
    return construct_library_model(
        spec, lambda: timm.create_model(name, pretrained=False, **options), input_shape
    )


def _size_option(module: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """``img_size``, where the architecture fixes its image size when it is built."""
    for cls in type(module).__mro__:
        if "__init__" not in vars(cls):
            continue
        parameters = inspect.signature(vars(cls)["__init__"]).parameters
        if "img_size" in parameters:
            if len(input_shape) != 3:
                return {}  # no image: the model's own error says so
            # Square as one number: some families do arithmetic on it.
            size = input_shape[1] if input_shape[1] == input_shape[2] else input_shape[1:]
            return {"img_size": size}
        if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            break  # nothing is passed on to the class below
    return {}
