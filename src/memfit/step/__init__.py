"""The training step: planned, measured and trained alike."""
