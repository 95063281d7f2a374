"""From a recipe to a plan: the training step, its tape, and the batch that fits."""
