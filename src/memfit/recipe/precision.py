"""A recipe's precision as torch has it."""

from __future__ import annotations

import torch

__all__ = ["autocast_dtype", "weights_dtype"]

_PURE = {"fp16": torch.float16, "bf16": torch.bfloat16}
_AMP = {"amp-fp16": torch.float16, "amp-bf16": torch.bfloat16}


def weights_dtype(precision: str) -> torch.dtype:
    """Of parameters and images: half for the pure half precisions, else float32."""
    return _PURE.get(precision, torch.float32)


def autocast_dtype(precision: str) -> torch.dtype | None:
    """What ``torch.autocast`` computes in; None without it."""
    return _AMP.get(precision)
