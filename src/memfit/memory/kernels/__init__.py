"""What CUDA kernels, cuBLAS and cuDNN allocate beside their outputs.

``transients`` joins the rules to the operators of a step. ``temporaries`` is the table of rules by
operator; large families have files of their own, ``*_temporaries``. Workspaces of libraries are
asked of cuDNN (:mod:`memfit.memory.kernels.cudnn`) or decided in ``blas_workspaces``.
"""
