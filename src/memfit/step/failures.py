"""An error of a traced step as one of ours, naming module and operator."""

from __future__ import annotations

from torch import nn

from memfit.errors import InputShapeError, NotTraceable, StepError
from memfit.memory.recording.virtual_gpu import VirtualGPU

__all__ = ["explain", "is_data_dependent"]


def explain(error: Exception, gpu: VirtualGPU) -> StepError:
    """The error of a traced step as one of ours, naming module and operator."""
    path = gpu.module_that_raised(error)
    module = None if path is None else gpu.module_at(path)
    where = f"{path or 'the model'} ({type(module).__name__})" if module else "the training step"
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if is_data_dependent(error):
        return NotTraceable(
            f"{where} asks for a value during the trace ({gpu.recorder.last_operator}): {text}",
            hint="Values are not known without running. Replace .item(), boolean masks and "
            "branches on values; or in Python: memfit.plan(..., step=...) with a forward that "
            "avoids them.",
        )
    if "is not on the expected device meta" in text:
        return StepError(
            f"{where} mixes in a tensor that it makes on the CPU: {text}",
            hint="Make it with device=x.device, or register it as a buffer.",
        )
    given = None if path is None else gpu.input_shape_at(path)
    if isinstance(error, RuntimeError) and given is not None:
        return InputShapeError(
            f"{where} does not accept input of shape {given}: {text}",
            hint=_expected(module),
        )
    return StepError(f"{where} raised {type(error).__name__}: {text}")


#: How torch says that a tensor has no values.
_ASKS_FOR_VALUES = (
    "cannot be called on meta tensors",
    "can't convert meta device",
    "repeat_interleave a meta tensor",
)


def is_data_dependent(error: Exception) -> bool:
    """Whether a tensor without values was asked for one, or for a size that values decide."""
    text = str(error).lower()
    return (
        isinstance(error, NotImplementedError) and ("meta" in text or "data-dep" in text)
    ) or any(words in text for words in _ASKS_FOR_VALUES)


def _expected(module: nn.Module | None) -> str:
    """What a layer wants to be given, from its own attributes."""
    for name, words in (
        ("in_channels", "channels in dimension 1"),
        ("in_features", "features in the last dimension"),
        ("num_features", "channels in dimension 1"),
        ("normalized_shape", "as its last dimensions"),
    ):
        value = getattr(module, name, None)
        if isinstance(value, (int, tuple)):
            return f"It expects {value} {words}: check --input-shape."
    return "Check --input-shape."
