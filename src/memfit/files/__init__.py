"""Files that are whole or absent, lines of JSON, locks, and TOML."""
