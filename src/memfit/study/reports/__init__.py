"""What a study looks like: in the terminal, as figures, as a page, and as it goes on."""
