"""Asking cuDNN, the library that torch brought along, for sizes; without a GPU."""
