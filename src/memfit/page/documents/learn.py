"""The plans that the Learn tab counts with: the course's own network, traced for every choice."""

from __future__ import annotations

from typing import Any

from memfit.page.documents.plan import plan_document
from memfit.planner.planning import plan
from memfit.planner.tracing import DEFAULT_CARD

__all__ = ["LEARN_IMAGES", "LEARN_OPTIMIZERS", "LEARN_PRECISIONS", "learn_documents"]

#: ``(C, H, W)`` of MNIST and of CIFAR-10.
LEARN_IMAGES: dict[str, tuple[int, int, int]] = {"grey": (1, 28, 28), "colour": (3, 32, 32)}
LEARN_OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd"},
    "momentum": {"name": "sgd", "momentum": 0.9},
    "adam": {"name": "adam"},
}
LEARN_PRECISIONS = ("fp32", "amp-bf16")

#: The batch that the course trains with, and where libraries are asked: sizes between are lines.
_BATCH = 64
_LADDER = (1, 8, 64, 512, 1024)


def learn_documents() -> dict[str, dict[str, Any]]:
    """A plan document for each choice that the Learn tab offers; takes about half a second.

    All are of one card, so that the page says the same on every machine.

    Returns:
        By ``"{image}-{optimizer}-{precision}"``, such as ``"grey-adam-fp32"``.
    """
    return {
        f"{image}-{optimizer}-{precision}": _document(image, optimizer, precision)
        for image in LEARN_IMAGES
        for optimizer in LEARN_OPTIMIZERS
        for precision in LEARN_PRECISIONS
    }


def _document(image: str, optimizer: str, precision: str) -> dict[str, Any]:
    made = plan(
        "mlp",
        gpu=DEFAULT_CARD,
        verify=False,
        input_shape=LEARN_IMAGES[image],
        optimizer=LEARN_OPTIMIZERS[optimizer],
        precision=precision,
        batch_size=_BATCH,
    )
    # the catalogue and the assumptions are for the Plan tab
    return plan_document(made, ladder=_LADDER) | {"cards": [], "assumptions": []}
