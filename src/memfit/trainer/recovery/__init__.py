"""A step that memory runs out in is undone and done again in smaller pieces."""
