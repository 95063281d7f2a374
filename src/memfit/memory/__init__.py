"""Tape, allocator, timeline, and the virtual GPU that records them."""
