"""A run in words, while it goes on and when it is done."""
