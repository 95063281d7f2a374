"""A plan in words and characters."""
