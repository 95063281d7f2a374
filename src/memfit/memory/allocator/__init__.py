"""PyTorch's caching allocator, and a tape replayed through it. Integers only."""
