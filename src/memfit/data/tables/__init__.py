"""Tables: rows of paths or pixels, and what they say of each image."""
