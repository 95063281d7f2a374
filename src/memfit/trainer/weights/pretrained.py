"""Pretrained weights of torchvision and timm: downloaded when asked for, and cached by them."""

from __future__ import annotations

from torch import Tensor

from memfit.errors import ModelError, UsageError
from memfit.models.optional import optional_package

__all__ = ["pretrained_weights"]


def pretrained_weights(spec: str) -> dict[str, Tensor]:
    """The state of a library's pretrained model, with its own classes.

    Args:
        spec: ``"torchvision:NAME"`` or ``"timm:NAME"``.

    Raises:
        UsageError: the model has none.
        ModelError: they are not in the cache and cannot be fetched.
    """
    source, _, name = spec.partition(":")
    try:
        if source == "torchvision":
            return _torchvision(spec, name)
        if source == "timm":
            timm = optional_package("timm")
            weights: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
            return weights
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"The pretrained weights of {spec} cannot be fetched: {reason}",
            hint="Without a network: --weights path/to/weights.safetensors.",
        ) from None
    raise UsageError(
        f"{spec} has no pretrained weights.",
        hint="torchvision: and timm: models have; or give a file: --weights FILE.",
    )


def _torchvision(spec: str, name: str) -> dict[str, Tensor]:
    import torchvision

    known = list(torchvision.models.get_model_weights(name))
    if not known:
        raise UsageError(f"{spec} has no pretrained weights.", hint="Give a file: --weights FILE.")
    state: dict[str, Tensor] = torchvision.models.get_weight(
        f"{type(known[0]).__name__}.DEFAULT"
    ).get_state_dict(progress=False, check_hash=True)
    return state
