"""CUDA's choices on tensors without memory: kernels, attention, autocast."""
