"""The recipe: everything that decides what a training step needs."""
