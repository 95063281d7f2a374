"""Files that are whole or absent, lines of JSON, and locks."""
