"""What a memory snapshot says: the timeline, the parts, and why memory ran out."""
