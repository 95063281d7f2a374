"""The environment of a child process that sees a virtual GPU; only a child ever does.

Whoever has a real GPU must never get the stubs by accident, so they are loaded before NVIDIA's
libraries (``LD_PRELOAD``) in processes that were started for this and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping

from memfit.cards.catalogue import GPU
from memfit.virtual_cuda.stubs import Stubs

__all__ = ["COUNT_VARIABLE", "child_environment"]

#: How many cards the process sees.
COUNT_VARIABLE = "MEMFIT_CARD_COUNT"


def child_environment(
    stubs: Stubs, card: GPU, *, capacity_bytes: int | None = None
) -> Mapping[str, str]:
    """What the environment of a process says in which PyTorch finds this card.

    Such a process ends with ``os._exit``: at a usual exit, threads of autograd and cuDNN may
    outlive what they run on, and the process is aborted after all its work is done.

    Args:
        stubs: the libraries that stand in front of NVIDIA's.
        card: the GPU to play.
        capacity_bytes: what the allocator may take of each; what the card has when omitted.
    """
    total = card.usable_bytes if capacity_bytes is None else capacity_bytes + card.context_bytes
    major, minor = card.compute_capability
    described = {
        "MEMFIT_CARD_NAME": card.name,
        "MEMFIT_CARD_MAJOR": major,
        "MEMFIT_CARD_MINOR": minor,
        "MEMFIT_CARD_MULTIPROCESSORS": card.multiprocessors,
        "MEMFIT_CARD_BYTES": total,
        "MEMFIT_CARD_CONTEXT_BYTES": card.context_bytes,
        COUNT_VARIABLE: 1,
        "MEMFIT_CUDNN": stubs.cudnn,
        "LD_PRELOAD": " ".join(str(path) for path in stubs.libraries),
    }
    return {name: str(value) for name, value in described.items()}
