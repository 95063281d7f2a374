"""What a run has learned, put to use: predictions, and evaluation on any split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from memfit.data.loading.normalisation import normalised
from memfit.data.loading.reading import Request, SampleReader, Shaping
from memfit.data.samples.dataset import FileSplit
from memfit.data.samples.paths import PathTable
from memfit.errors import BadImage, DataError, RunError, UsageError
from memfit.models.user_code import import_object
from memfit.recipe.fields import Task
from memfit.recipe.toml import load_recipe
from memfit.step.ingredients import Ingredients
from memfit.step.job import Job, resolve
from memfit.trainer.recovery.recover import recover
from memfit.trainer.run.opening import as_begun
from memfit.trainer.run.run_folder import RunFolder
from memfit.trainer.step.devices import choose_device
from memfit.trainer.step.evaluation import Evaluation, evaluate, scores_of
from memfit.trainer.step.ingredients import prepare_ingredients
from memfit.trainer.step.micro_batches import even_sizes
from memfit.trainer.weights.checkpoint import load_checkpoint

__all__ = [
    "Prediction",
    "Trained",
    "mask_image",
    "open_trained",
]

#: An image's name, and its likeliest classes with their probabilities; or its values by name.
Prediction = tuple[str, list[tuple[str, float]]]

_EVALUATION_BATCH = 256


class Trained:
    """A trained model with everything that belongs to it.

    Args:
        path: of the run.
        job: that was trained.
        classes: names.
        ingredients: the model with the checkpoint's weights.
    """

    def __init__(
        self, path: Path, job: Job, classes: tuple[str, ...], ingredients: Ingredients
    ) -> None:
        self.path = path
        self.job = job
        self.classes = classes
        self.task: Task = job.data.dataset.task or "classes"
        self._ingredients = ingredients

    def predict(self, images: Sequence[Path | str], top: int = 3) -> list[Prediction]:
        """The likeliest classes or labels of image files; or their values, all of them.

        Args:
            images: paths.
            top: classes or labels for each, the likeliest first.

        Raises:
            BadImage: one cannot be read.
            DataError: the recipe's transform failed.
            RunError: the run learned masks.
        """
        if top < 1:
            raise UsageError(f"top is {top}; it must be 1 or more.")
        if self.task == "masks":
            raise RunError(f"{self.path} learned masks.", hint="predict_masks gives them.")
        self._rest()
        found: list[Prediction] = []
        for name, inputs in self._inputs(images):
            scores = scores_of(self._ingredients, inputs)[0]
            if self.task == "values":
                found.append((name, list(zip(self.classes, scores.tolist(), strict=True))))
                continue
            shares = scores.sigmoid() if self.task == "labels" else scores.softmax(0)
            shares, numbers = shares.topk(min(top, len(self.classes)))
            answers = zip(numbers.tolist(), shares.tolist(), strict=True)
            found.append((name, [(self.classes[n], share) for n, share in answers]))
        return found

    def predict_masks(self, images: Sequence[Path | str]) -> list[tuple[str, Image.Image]]:
        """The likeliest class of each pixel, in the values of the masks that were learned.

        Args:
            images: paths.

        Returns:
            For each its name and its mask, in the size that the model gets.

        Raises:
            BadImage: one cannot be read.
            RunError: the run learned no masks.
        """
        if self.task != "masks":
            raise RunError(f"{self.path} learned {self.task}, not masks.")
        self._rest()
        numbers = (
            (name, scores_of(self._ingredients, inputs)[0].argmax(0).cpu().numpy())
            for name, inputs in self._inputs(images)
        )
        return [(name, mask_image(answer, self.classes)) for name, answer in numbers]

    def _rest(self) -> None:
        """As in evaluation: nothing drops out, statistics are the running ones."""
        model = self._ingredients
        model.model.eval()
        if model.average is not None:
            model.average.eval()

    def evaluate(self, split: str | None = None) -> Evaluation:
        """Ask for every sample of a split of the run's data.

        Args:
            split: the test split when omitted, ``val`` where that has no answers.

        Raises:
            RunError: the data has neither.
        """
        job = self.job.but(global_batch=_EVALUATION_BATCH, batch_size=None, augment=())
        dataset = job.data.dataset
        usual = dataset.answered("test") or dataset.answered("val")
        test = usual if split is None else dataset[split]
        if test is None:
            raise RunError(
                f"{dataset.name} has no test split with answers.",
                hint=f"Choose one with --split: {', '.join(dataset.splits)}.",
            )
        chosen = job.loader(test.name)
        chosen.is_training = False  # in order, whatever the split
        return evaluate(self._ingredients, chosen, recover(even_sizes(_EVALUATION_BATCH)))

    def _inputs(self, images: Sequence[Path | str]) -> Iterator[tuple[str, Tensor]]:
        """Name and input ``(1, C, H, W)`` of each, made as the loader makes a test sample."""
        recipe, made = self.job.recipe, self._ingredients
        assert recipe.input_shape is not None
        channels, height, width = recipe.input_shape
        transform = self.job.own.transform
        if transform is None and recipe.transform is not None:
            transform = import_object(recipe.transform)
        transforms = () if transform is None else (transform,)
        shaping = Shaping((channels, height, width), recipe.resize, None, transforms)
        if self.job.source is not None and self.job.data.makes_floats:
            raise RunError(
                f"{recipe.data} makes floats of its images, which files cannot be made like.",
                hint="To ask for its own items: memfit evaluate RUN.",
            )
        split = FileSplit("images", Path(), PathTable(map(os.fspath, images)), None)
        split.window, split.frame = recipe.window, recipe.frame
        reader = SampleReader(split, shaping, recipe.seed)
        dtype = next(made.model.parameters()).dtype
        for index in range(len(split)):
            samples = reader[Request(0, np.array([index]))]
            if samples.failure is not None:
                raise DataError(samples.failure)
            for _, name, reason in samples.unreadable:
                raise BadImage(name, reason)
            pixels = samples.pixels.to(made.device)
            inputs = normalised(pixels, recipe.mean or (0.0,), recipe.std or (1.0,)).to(dtype)
            if recipe.memory_format == "nhwc":
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            yield split.sample_name(index), inputs


def mask_image(numbers: NDArray[np.int64], classes: Sequence[str]) -> Image.Image:
    """Class numbers ``(H, W)`` as the image that a mask of the data would be.

    Args:
        numbers: of classes.
        classes: their names: grey levels, or colours such as ``#ff0000``.
    """
    if all(name.startswith("#") for name in classes):
        colours = np.array([list(bytes.fromhex(name[1:])) for name in classes], dtype=np.uint8)
        return Image.fromarray(colours[numbers])
    levels = np.array([int(name) if name.isdecimal() else n for n, name in enumerate(classes)])
    return Image.fromarray(levels[numbers].astype(np.uint8 if levels.max() < 256 else np.uint16))


def open_trained(
    path: Path | str,
    *,
    which: Literal["best", "last"] = "best",
    device: str = "auto",
    given: Job | None = None,
    **own: Any,
) -> Trained:
    """Load what a run has learned.

    Args:
        path: of the run's folder.
        which: checkpoint; the last one where no best one is known.
        device: ``auto``, ``cpu`` or ``cuda``.
        given: the run's job, where it is at hand: its data is not opened again.
        **own: objects of yours that belong to the run's recipe: ``model``, ``data``,
            ``transform``.

    Raises:
        RunError: the folder is no run, or has no checkpoint.
    """
    run = RunFolder.open(Path(path))
    checkpoints = run.checkpoints
    file = checkpoints.best_path if which == "best" else checkpoints.last_path
    state = load_checkpoint(file) if file.exists() else checkpoints.newest()[1]
    # no step is taken here: neither loss nor forward pass of the user's are needed
    saved = load_recipe(run.path / "recipe.toml").but(
        weights=None, compile=False, loss=None, step=None
    )
    saved = as_begun(saved, state)
    job = resolve(saved, **own) if given is None else given.of(saved)
    ingredients = prepare_ingredients(job, choose_device(device).device)
    ingredients.model.load_state_dict(state["model"])
    if ingredients.average is not None and state.get("model_average"):
        ingredients.average.module.load_state_dict(state["model_average"])
    return Trained(run.path, job, tuple(state["classes"]), ingredients)
