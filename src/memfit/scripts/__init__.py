"""Any training script, unmodified, in a child process that keeps nothing of it."""
