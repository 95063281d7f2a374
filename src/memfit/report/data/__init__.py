"""Images in words and characters."""
