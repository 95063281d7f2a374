"""A run: its folder, its beginning, its end, and what it tells."""
