"""One training run of a study after the other."""
