"""How large the workspaces of cuBLAS and cuBLASLt are, and how long they live.

PyTorch hands every handle a workspace out of its own caching allocator
(``aten/src/ATen/cuda/CublasHandlePool.cpp``). What differs between versions is how long it lives:

===========  =====================================================================================
torch        lifetime
===========  =====================================================================================
2.11         held until the end, one for each (handle, stream); cuBLASLt holds 1 MiB of its own
2.12 - 2.14  the same, and cuBLASLt shares the cuBLAS one (pull request 175879, March 2026)
2.15         for one operation only, unless ``TORCH_CUBLAS_WORKSPACE_CACHE=1`` (pull request
             194311, August 2026); cuBLASLt takes its own 1 MiB, also for one operation
===========  =====================================================================================

Handles are reserved by thread (a thread-local ``PoolWindow``), so a training loop holds two: the
thread that calls ``forward``, at its first matrix product, and autograd's device thread, at the
first matrix product of ``backward``.
"""

from __future__ import annotations

import re
from typing import Literal

from memfit.memory.kernels.scope import Held

__all__ = [
    "GemmLibrary",
    "cublas_workspace_bytes",
    "cublaslt_workspace_bytes",
    "held_blas_workspaces",
    "operation_blas_workspace_bytes",
]

GemmLibrary = Literal["cublas", "cublaslt"]

_KIB = 1024
_DEFAULT_BYTES = 2 * 4096 * _KIB + 8 * 16 * _KIB  # ":4096:2:16:8"
_LARGE_BYTES = 32 * 1024 * _KIB
_LT_DEFAULT_KIB = 1024
_BLACKWELL_IS_LARGE = (2, 12)  # pull request 175344, February 2026
_LT_SHARES = (2, 12)
_PER_OPERATION = (2, 15)


def cublas_workspace_bytes(
    compute_capability: tuple[int, int],
    config: str | None = None,
    torch_version: tuple[int, int] = (2, 15),
) -> int:
    """Size of a cuBLAS workspace.

    ``parseChosenWorkspaceSize`` of CublasHandlePool.cpp: 32 MiB on Hopper, and on Blackwell since
    torch 2.12; ``:4096:2:16:8`` elsewhere; a config that cannot be parsed counts as none.

    Args:
        compute_capability: (major, minor).
        config: ``CUBLAS_WORKSPACE_CONFIG``, pairs ``:KiB:count``.
        torch_version: (major, minor).
    """
    pairs = re.findall(r":([0-9]+):([0-9]+)", config or "")
    if pairs:
        return sum(int(size) * _KIB * int(count) for size, count in pairs)
    blackwell = torch_version >= _BLACKWELL_IS_LARGE and 10 <= compute_capability[0] <= 12
    return _LARGE_BYTES if compute_capability == (9, 0) or blackwell else _DEFAULT_BYTES


def cublaslt_workspace_bytes(
    size_kib: str | None = None,
    cublas_bytes: int = _DEFAULT_BYTES,
    torch_version: tuple[int, int] = (2, 15),
) -> int:
    """What cuBLASLt allocates beside the cuBLAS workspace: 0 when it shares that one.

    Args:
        size_kib: ``CUBLASLT_WORKSPACE_SIZE`` in KiB; one that is no number counts as none.
        cublas_bytes: size of the cuBLAS workspace, which torch 2.11 does not let it exceed.
        torch_version: (major, minor).
    """
    if _LT_SHARES <= torch_version < _PER_OPERATION:
        return 0
    digits = re.match(r"\s*\+?(\d+)", size_kib or "")
    asked = (int(digits[1]) if digits else _LT_DEFAULT_KIB) * _KIB
    return asked if torch_version >= _PER_OPERATION else min(asked, cublas_bytes)


def held_blas_workspaces(
    library: GemmLibrary,
    compute_capability: tuple[int, int],
    torch_version: tuple[int, int] = (2, 15),
) -> tuple[Held, ...]:
    """What the first matrix product of a thread allocates and keeps until the end.

    Until torch 2.14 a cuBLASLt call reserves the cuBLAS handle, and so its workspace, as well.

    Args:
        library: which library the product goes to.
        compute_capability: (major, minor).
        torch_version: (major, minor).

    Returns:
        Each to be held once for a thread; empty from torch 2.15.
    """
    if torch_version >= _PER_OPERATION:
        return ()
    cublas = cublas_workspace_bytes(compute_capability, None, torch_version)
    own = cublaslt_workspace_bytes(None, cublas, torch_version)
    if library == "cublaslt" and own:
        return (Held("cublas", cublas), Held("cublaslt", own))
    return (Held("cublas", cublas),)


def operation_blas_workspace_bytes(
    library: GemmLibrary,
    compute_capability: tuple[int, int],
    torch_version: tuple[int, int] = (2, 15),
) -> int:
    """What a matrix product allocates and frees again: 0 where workspaces are held."""
    if torch_version < _PER_OPERATION:
        return 0
    if library == "cublaslt":
        return cublaslt_workspace_bytes(torch_version=torch_version)
    return cublas_workspace_bytes(compute_capability, None, torch_version)
