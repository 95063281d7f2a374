"""What CUDA kernels, cuBLAS and cuDNN allocate beside their outputs."""
