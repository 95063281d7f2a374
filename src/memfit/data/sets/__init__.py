"""Sets of images and labels: every kind of source, opened."""
