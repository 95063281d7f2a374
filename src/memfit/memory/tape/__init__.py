"""The tape: what was allocated and freed while a step ran. Integers only."""
