"""PyTorch's memory snapshots, read and written."""
