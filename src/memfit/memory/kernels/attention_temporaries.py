"""What the kernels of ``scaled_dot_product_attention`` allocate inside and free before they return.

Sources, torch 2.11 to 2.15: ``mha_fwd``, ``mha_bwd`` and ``set_params_splitkv`` in
``aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp``; ``attention.cu`` and
``attention_backward.cu`` beside it; ``mem_eff_attention/kernel_backward.h`` and
``kernels/generate_kernels.py`` below it. The tests hold the sums against allocations that these
releases made when they ran this code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.rules import Arguments, Outputs, Rule, argument
from memfit.memory.kernels.rules import tensor_argument as tensor_at
from memfit.memory.kernels.scope import Copy, Result, Returned, Scope

__all__ = ["ATTENTION_RULES"]

_FLOAT_BYTES = 4
_RESULTS = tuple(Result(index) for index in range(9))
_GRID_LIMIT = 65535  # larger batches ran in chunks until torch 2.14


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _copy_for_kernel(tensor: TensorFacts) -> int:
    """``tensor.transpose(1, 2).contiguous()``: 0 when (N, L, heads, E) is dense already."""
    n, heads, length, width = tensor.shape
    by_n, by_head, by_row, by_column = tensor.strides
    turned = (n, length, heads, width), (by_n, by_row, by_head, by_column)
    return TensorFacts(*turned, tensor.dtype_bytes, tensor.dtype).copy_bytes()


# -- flash ---------------------------------------------------------------------------------------


def _flash_width(width: int) -> int:
    """``head_size_rounded``."""
    return _round_up(width, 32 if width <= 128 else 64)


def _flash(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Scope:
    """Partial results when the keys are split over multiprocessors that would idle."""
    query, key = tensor_at(arguments, 0), tensor_at(arguments, 1)
    batch, heads, length, width = query.shape
    output, logsumexp = _RESULTS[:2]
    if argument(arguments, 3, 0.0):
        return output, logsumexp, 16  # the random state is allocated twice
    key_block = 256 if width <= 64 else 128 if width <= 128 else 64
    splits = _splits(
        batch * heads * ceil(length / 64),
        2 * device.multiprocessors,
        ceil(key.shape[2] / key_block),
    )
    rows = splits * batch * heads * length * _FLOAT_BYTES
    partial = (rows, rows * _flash_width(width)) if splits > 1 else (0, 0)
    return output, logsumexp, *partial, *_RESULTS[2:8]


def _splits(blocks: int, multiprocessors: int, key_blocks: int) -> int:
    """``num_splits_heuristic``: the fewest splits with 85 % of the best occupancy."""
    if blocks >= 0.8 * multiprocessors:
        return 1
    occupancy = {}
    for splits in range(1, min(128, multiprocessors, key_blocks) + 1):
        if splits > 1 and ceil(key_blocks / splits) == ceil(key_blocks / (splits - 1)):
            continue
        waves = blocks * splits / multiprocessors
        occupancy[splits] = waves / ceil(waves)
    enough = 0.85 * max(occupancy.values(), default=0)
    return next((splits for splits, share in occupancy.items() if share >= enough), 1)


def _flash_backward(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """float32 row sums and query gradient; with shared key heads also expanded gradients."""
    gradient, query, key, _, output = (tensor_at(arguments, index) for index in range(5))
    batch, heads, length, width = query.shape
    rows = batch * heads * _round_up(length, 128) * _FLOAT_BYTES
    shares = key.shape[1] != heads
    expanded = batch * heads * key.shape[2] * width * key.dtype_bytes if shares else 0
    return (
        Copy(_copy_for_kernel(gradient)),
        Copy(_copy_for_kernel(output)),
        *_RESULTS[:3],
        rows,
        rows * _flash_width(width),
        expanded,
        expanded,
    )


# -- memory-efficient ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tile:
    """A kernel of ``generate_kernels.py``: queries by keys, and where it sums dK and dV."""

    queries: int
    keys: int
    sums_in_memory: bool = False


_SMALL, _TALL, _LARGE = _Tile(64, 64), _Tile(128, 64), _Tile(128, 128)
_SMALL_IN_MEMORY, _TALL_IN_MEMORY = _Tile(64, 64, True), _Tile(128, 64, True)


def _tile(width: int, is_half: bool, capability: tuple[int, int], dropout: bool) -> _Tile:
    """The first kernel that takes the head width and finds enough shared memory."""
    if width <= 64:
        return _SMALL
    if not is_half:
        ample = capability >= (8, 0) and not _has_little_shared_memory(capability)
        return _TALL if ample else _SMALL
    if capability < (7, 0):
        return _SMALL_IN_MEMORY
    return _TALL_IN_MEMORY if width > 128 else _half_tile(width, capability, dropout)


def _half_tile(width: int, capability: tuple[int, int], dropout: bool) -> _Tile:
    """For 64 < width <= 128."""
    if capability < (8, 0):
        return _TALL
    if not _has_little_shared_memory(capability):
        return _LARGE
    special = width <= 96 and not dropout and capability[0] == 8  # kernels for a width of 80
    return _TALL if special else _SMALL_IN_MEMORY


def _has_little_shared_memory(capability: tuple[int, int]) -> bool:
    """99 KiB per block; 8.0, 8.7 and 9.0 to 11.0 have 163 KiB and more."""
    return capability in ((8, 6), (8, 9)) or capability[0] == 12


def _workspace_bytes(
    query: TensorFacts, key: TensorFacts, value: TensorFacts, tile: _Tile, device: DeviceFacts
) -> int:
    """``workspace_size``: float32 tiles of dQ, each with a 16-byte lock; also dK and dV."""
    batch, heads, length, width = query.shape
    can_split = device.compute_capability >= (7, 0)
    if not can_split and query.dtype_bytes == _FLOAT_BYTES:
        return 0
    tiles = ceil(length / tile.queries) * ceil(width / tile.keys)
    elements = tiles * (4 + tile.queries * tile.keys)
    if tile.sums_in_memory:
        splits = _key_splits(batch * heads, key.shape[2], tile) if can_split else 1
        columns = sum(_round_up(size, tile.queries) for size in (width, value.shape[3]))
        elements += splits * tile.keys * columns
    return batch * heads * _round_up(elements, 4) * _FLOAT_BYTES


def _key_splits(blocks: int, keys: int, tile: _Tile) -> int:
    splits = ceil(keys / tile.keys)
    if blocks >= 256 and keys <= 2 * tile.keys:
        splits = 1
    return max(1, min(splits, 200 // blocks))


def _efficient_backward(arguments: Arguments, _outputs: Outputs, device: DeviceFacts) -> Scope:
    """The row sums of dO*O, then the workspace of the kernel."""
    gradient, query, key, value = (tensor_at(arguments, index) for index in range(4))
    if query.shape[0] > _GRID_LIMIT and device.torch_version < (2, 15):
        return _chunked_backward(arguments, device)
    dropout = bool(argument(arguments, 9, 0.0))
    batch, heads, length, width = query.shape
    is_half = query.dtype_bytes == 2
    tile = _tile(max(width, value.shape[3]), is_half, device.compute_capability, dropout)
    rows = batch * heads * length * _FLOAT_BYTES
    shares = key.shape[1] != heads
    expanded = [
        batch * heads * key.shape[2] * tensor.shape[3] * key.dtype_bytes if shares else 0
        for tensor in (key, value)
    ]
    always: Scope = (Copy(_copy_for_kernel(gradient)), *_RESULTS[:4], *expanded)
    workspace = Returned(_workspace_bytes(query, key, value, tile, device))
    volta = (7, 0) <= device.compute_capability < (7, 5)
    if is_half and not (volta and tile.sums_in_memory):
        return (*always, (rows, workspace))
    product = rows * value.shape[3]
    copies = (product, product) if is_half else ()
    is_turned = heads > 1 and length > 1
    delta: Scope = (rows, Returned(rows)) if is_turned else (Returned(rows),)
    return (*always, ((*copies, product, *delta), workspace))


def _efficient(arguments: Arguments, outputs: Outputs, device: DeviceFacts) -> Scope:
    """Beside heads wider than 128, half types are summed up in float32 first."""
    query, value = tensor_at(arguments, 0), tensor_at(arguments, 2)
    batch, heads, length, width = query.shape
    if batch > _GRID_LIMIT and device.torch_version < (2, 15):
        parts = _chunk_shares(batch)
        return tuple(int(size.size_bytes * part) for size in outputs[:2] for part in parts)
    output, logsumexp, seed, offset = _RESULTS[:4]
    is_summed = query.dtype_bytes == 2 and max(width, value.shape[3]) > 128
    sums = batch * heads * length * value.shape[3] * _FLOAT_BYTES if is_summed else 0
    return seed, offset, output, logsumexp, sums


def _chunk_shares(batch: int) -> tuple[float, float]:
    """The first chunk stays until the end; of the others one is alive at a time."""
    return _GRID_LIMIT / batch, min(batch - _GRID_LIMIT, _GRID_LIMIT) / batch


def _chunked_backward(arguments: Arguments, device: DeviceFacts) -> Scope:
    """The gradients of the first chunk, and what its kernel needs."""
    chunk = tuple(
        replace(value, shape=(_GRID_LIMIT, *value.shape[1:]))
        if isinstance(value, TensorFacts) and len(value.shape) == 4
        else value
        for value in arguments
    )
    gradients = [tensor_at(chunk, index).size_bytes for index in (1, 2, 3)]
    return (*gradients, *_efficient_backward(chunk, (), device))


# -- cuDNN ---------------------------------------------------------------------------------------


def _cudnn_backward(arguments: Arguments, _outputs: Outputs, _device: DeviceFacts) -> Scope:
    """An estimate from below: cuDNN's own plan may ask for more.

    cudnn-frontend adds to the workspace float32 row sums and a float32 query gradient, and with
    shared key heads expanded gradients (``CompositeSDPABackwardNode`` in
    ``node/scaled_dot_product_flash_attention.h``, version 1.17).
    """
    query, key, value = (tensor_at(arguments, index) for index in (1, 2, 3))
    batch, heads, length, width = query.shape
    rows = batch * heads * length * _FLOAT_BYTES
    columns = key.shape[3] + value.shape[3] if key.shape[1] != heads else 0
    expanded = batch * heads * key.shape[2] * columns * key.dtype_bytes
    return rows, rows * width, expanded


ATTENTION_RULES: dict[str, Rule] = {
    "aten._scaled_dot_product_flash_attention.default": _flash,
    "aten._scaled_dot_product_flash_attention_backward.default": _flash_backward,
    "aten._scaled_dot_product_efficient_attention.default": _efficient,
    "aten._scaled_dot_product_efficient_attention_backward.default": _efficient_backward,
    "aten._scaled_dot_product_cudnn_attention_backward.default": _cudnn_backward,
}
