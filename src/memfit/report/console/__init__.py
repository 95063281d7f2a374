"""What a terminal can show, and where results are written."""
