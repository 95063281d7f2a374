"""PyTorch's own CUDA build on a GPU that is not there: stub libraries, and a child behind them."""
