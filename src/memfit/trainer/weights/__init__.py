"""Weights and checkpoints on the disk."""
