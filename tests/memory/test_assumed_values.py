"""Values that a trace takes for granted: only the library's own questions, only about masks."""

from __future__ import annotations

import builtins
from types import FunctionType

import pytest
import torch

from memfit.memory.recording.virtual_gpu import VirtualGPU


def asks(tensor: torch.Tensor) -> bool:
    return bool(tensor)


def asked_by(module: str, tensor: torch.Tensor) -> bool:
    """Ask for a value from code that belongs to a module of that name."""
    question = FunctionType(asks.__code__, {"__name__": module, "__builtins__": builtins})
    return bool(question(tensor))


def test_transformers_masks_are_full() -> None:
    with VirtualGPU("rtx-3060", makes_up=False) as gpu:
        mask = torch.empty(2, 5, dtype=torch.bool, device=gpu.device)
        assert asked_by("transformers.masking_utils", mask.all())


@pytest.mark.parametrize("module", ["__main__", "timm.models.resnet"])
def test_nobody_elses_question_is_answered(module: str) -> None:
    with VirtualGPU("rtx-3060", makes_up=False) as gpu:
        mask = torch.empty(2, 5, dtype=torch.bool, device=gpu.device)
        with pytest.raises(RuntimeError, match="meta tensors"):
            asked_by(module, mask.all())


def test_numbers_stay_unknown() -> None:
    with VirtualGPU("rtx-3060", makes_up=False) as gpu:
        number = torch.empty((), device=gpu.device)
        with pytest.raises(RuntimeError, match="meta tensors"):
            asked_by("transformers.trainer", number)
