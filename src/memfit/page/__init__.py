"""The page: its documents, its assets, and the single file that holds both."""
