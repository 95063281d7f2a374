"""What a run has learned, put to use: predictions, and evaluation on any split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from memfit.data.decode import decode, printable, reading_images
from memfit.data.loading import loader, normalised
from memfit.data.reading import Shaping, resized
from memfit.errors import RunError, UsageError
from memfit.recipe import Recipe, load_recipe
from memfit.trainer.checkpoint import load_checkpoint
from memfit.trainer.devices import choose_device
from memfit.trainer.evaluation import Evaluation, evaluate
from memfit.trainer.ingredients import Ingredients, prepare_ingredients
from memfit.trainer.micro_batches import even_sizes
from memfit.trainer.recover import recover
from memfit.trainer.run_folder import RunFolder

__all__ = ["Prediction", "Trained", "open_trained"]

#: An image's name, and its likeliest classes with their probabilities.
Prediction = tuple[str, list[tuple[str, float]]]

_EVALUATION_BATCH = 256


class Trained:
    """A trained model with everything that belongs to it.

    Args:
        path: of the run.
        recipe: that was trained.
        classes: names.
        ingredients: the model with the checkpoint's weights.
    """

    def __init__(
        self, path: Path, recipe: Recipe, classes: tuple[str, ...], ingredients: Ingredients
    ) -> None:
        self.path = path
        self.recipe = recipe
        self.classes = classes
        self._ingredients = ingredients

    def predict(self, images: Sequence[Path | str], top: int = 3) -> list[Prediction]:
        """The likeliest classes of image files.

        Args:
            images: paths.
            top: classes for each, the likeliest first.

        Raises:
            BadImage: one cannot be read.
        """
        if top < 1:
            raise UsageError(f"top is {top}; it must be 1 or more.")
        model = self._ingredients
        model.model.eval()
        if model.average is not None:
            model.average.eval()
        found: list[Prediction] = []
        for path in images:
            scores = model.predict(self._input(Path(path)))[0].softmax(0)
            shares, numbers = scores.topk(min(top, len(self.classes)))
            answers = zip(numbers.tolist(), shares.tolist(), strict=True)
            found.append((printable(str(path)), [(self.classes[n], share) for n, share in answers]))
        return found

    def evaluate(self, split: str | None = None) -> Evaluation:
        """Ask for every sample of a split of the run's data.

        Args:
            split: the test split when omitted.

        Raises:
            RunError: the data has no test split.
        """
        recipe = self.recipe.but(global_batch=_EVALUATION_BATCH, batch_size=None, augment=())
        made = loader(recipe)
        dataset = made.recipe.data
        test = dataset.test if split is None else dataset[split]
        if test is None:
            raise RunError(
                f"{dataset.name} has no test split.",
                hint=f"Choose one with --split: {', '.join(dataset.splits)}.",
            )
        chosen = loader(recipe.but(data=dataset), test.name)
        chosen.is_training = False  # in order, whatever the split
        return evaluate(self._ingredients, chosen, recover(even_sizes(_EVALUATION_BATCH)))

    def _input(self, path: Path) -> Tensor:
        recipe = self.recipe
        assert recipe.input_shape is not None
        channels, height, width = recipe.input_shape
        with reading_images():
            pixels = decode(path, channels)
        image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1)))
        if tuple(image.shape[1:]) != (height, width):
            image = resized(image, Shaping((channels, height, width), recipe.resize))
        batch = image[None].to(self._ingredients.device)
        return normalised(batch, recipe.mean or (0.0,), recipe.std or (1.0,))


def open_trained(
    path: Path | str,
    *,
    which: Literal["best", "last"] = "best",
    device: str = "auto",
    recipe: Recipe | None = None,
) -> Trained:
    """Load what a run has learned.

    Args:
        path: of the run's folder.
        which: checkpoint; the last one where no best one is known.
        device: ``auto``, ``cpu`` or ``cuda``.
        recipe: of the run, where it holds code of yours.

    Raises:
        RunError: the folder is no run, or has no checkpoint.
    """
    run = RunFolder.open(Path(path))
    checkpoints = run.checkpoints
    file = checkpoints.best_path if which == "best" else checkpoints.last_path
    state = load_checkpoint(file) if file.exists() else checkpoints.newest()[1]
    recipe = recipe or load_recipe(run.path / "recipe.toml")
    place = choose_device(device)
    ingredients = prepare_ingredients(recipe.but(weights=None, compile=False), place.device)
    ingredients.model.load_state_dict(state["model"])
    if ingredients.average is not None and state.get("model_average"):
        ingredients.average.module.load_state_dict(state["model_average"])
    return Trained(run.path, recipe, tuple(state["classes"]), ingredients)
