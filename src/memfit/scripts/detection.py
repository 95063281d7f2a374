"""Train a detection model of torchvision on made-up boxes; run behind the stubs by a plan.

How many proposals, samples and masks there are follows from values, so no tape of shapes alone can
tell: PyTorch itself runs memfit's own step, and what is small is computed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from memfit.errors import UsageError
from memfit.memory.tape.tape import Part, Phase
from memfit.models import build_for_training
from memfit.recipe.recipe import Recipe
from memfit.scripts.told.job import ScriptJob
from memfit.step.ingredients import combine
from memfit.step.job import resolve
from memfit.step.loop import training_loop
from memfit.step.prepare import prepare_model
from memfit.step.tensors import Arguments

__all__ = ["detection_job"]

#: 1333 x 800, as detectors are commonly trained and compared.
_SHAPE = (3, 800, 1333)
#: Images on a GPU where nothing else is said, as of mmdetection's and detectron2's tables.
_BATCH = 2
_STEPS = 3
_KEYPOINTS = 17


def detection_job(recipe: Recipe) -> ScriptJob:
    """What to run for a recipe with boxes.

    Args:
        recipe: of one of torchvision's detection models.
    """
    batch = recipe.batch_size or _BATCH
    words = (json.dumps(recipe.to_dict()), "{batch}")
    return ScriptJob(__name__, words, is_module=True, batch=batch, steps=_STEPS)


class _Boxes:
    """Images with boxes, labels, and where the model wants them masks or keypoints."""

    def __init__(self, recipe: Recipe, model: Any, classes: int) -> None:
        assert recipe.boxes is not None
        self._shape, self._count = recipe.input_shape or _SHAPE, recipe.boxes
        self._classes = classes
        heads = getattr(model, "roi_heads", None)
        self._has_masks = heads is not None and heads.has_mask()
        self._has_keypoints = heads is not None and heads.has_keypoint()

    def make(self, micro_batch: int, device: torch.device) -> tuple[Any, Any]:
        """A list of images and a list of dicts, as the forward takes them; no target beside."""
        images = [torch.rand(self._shape, device=device) for _ in range(micro_batch)]
        return Arguments((images, [self._target(device) for _ in images])), None

    def _target(self, device: torch.device) -> dict[str, Tensor]:
        """Boxes of a sixteenth to a half of each side, anywhere in the image."""
        height, width = self._shape[1:]
        side = torch.tensor((width, height), dtype=torch.float32, device=device)
        sizes = side * (0.0625 + 0.4375 * torch.rand(self._count, 2, device=device))
        corners = (side - sizes) * torch.rand(self._count, 2, device=device)
        target = {
            "boxes": torch.cat([corners, corners + sizes], 1),
            "labels": torch.randint(1, self._classes, (self._count,), device=device),
        }
        if self._has_masks:
            shape = (self._count, height, width)
            target["masks"] = torch.zeros(shape, dtype=torch.uint8, device=device)
        if self._has_keypoints:
            places = corners[:, None] + sizes[:, None] / 2
            points = places.expand(-1, _KEYPOINTS, -1)
            target["keypoints"] = torch.cat([points, torch.ones_like(points[..., :1])], 2)
        return target


class _Nobody:
    """Behind the stubs the run itself is watched."""

    def adopt(self, tensor: Tensor, part: Part) -> None:
        """Nothing to note."""

    def enter_phase(self, phase: Phase) -> None:
        """Nothing to note."""

    def tag_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Nothing to note."""


def _sum(losses: dict[str, Tensor], _target: None) -> Tensor:
    return torch.stack([*losses.values()]).sum()


def _train(recipe: Recipe, batch: int) -> None:
    job, device = resolve(recipe), torch.device("cuda")
    built = build_for_training(job.model, num_classes=recipe.num_classes, seed=recipe.seed)
    if built.task != "detection":
        raise UsageError(f"{built.name} takes no boxes; leave out --boxes.")
    prepare_model(built.module, recipe)
    model = built.module.to(device)
    scaler = torch.amp.GradScaler("cuda", enabled=recipe.precision == "amp-fp16")
    made = combine(job, model, scaler, device, loss=_sum)
    batches = _Boxes(recipe, model, built.default_num_classes or 2)
    for _ in training_loop(made, batches, _Nobody(), batch, _STEPS):
        pass


if __name__ == "__main__":
    _train(Recipe(**json.loads(sys.argv[1])), int(sys.argv[2]))
