"""What a client may ask, how it is checked, and how it is refused."""
