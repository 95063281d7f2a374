"""Single operators, forward and backward, and the blocks that each makes and frees.

Run as a program behind the stubs it prints what PyTorch's own allocator did, by name; the test
asks the virtual GPU for the same.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Case = Callable[[], object]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def _trained(
    function: Callable[..., Tensor], dtype: torch.dtype, *shapes: Sequence[int]
) -> Callable[[], object]:
    def run() -> None:
        given = [torch.empty(s, dtype=dtype, device="cuda", requires_grad=True) for s in shapes]
        output = function(*given)
        output.backward(torch.empty_like(output))

    return run


def _rows(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.long, device="cuda")


def _last(x: Tensor) -> Tensor:
    return x.to(memory_format=torch.channels_last)


def _hardswish_of_two_layouts(x: Tensor) -> Tensor:
    """A leaf in channels-last whose gradient comes contiguous."""
    leaf = _last(x.detach()).requires_grad_()
    F.hardswish(leaf).backward(torch.empty_like(x))
    return x * 2


def _layer(kind: type[nn.RNNBase], dtype: torch.dtype, **options: Any) -> Case:
    def run() -> None:
        layer = kind(32, 256, **options).to("cuda", dtype)
        output, _ = layer(torch.empty(9, 4, 32, dtype=dtype, device="cuda", requires_grad=True))
        output.backward(torch.empty_like(output))

    return run


def _cases(dtype: torch.dtype) -> Iterator[tuple[str, Case]]:
    image, tokens = (4, 64, 14, 14), (8, 197, 768)
    for name, function, *shapes in (
        ("sum of a bias", lambda x, b: x + b, (4096, 768), (768,)),
        ("sum", lambda x: x.sum(0), (65536, 96)),
        ("mean of channels", lambda x: x.mean((2, 3)), image),
        ("variance", lambda x: x.var(-1), (64, 1000)),
        ("norm", lambda x: x.norm(dim=-1), (4096, 768)),
        ("softmax", lambda x: x.softmax(1), (2, 21, 65, 65)),
        ("log softmax", lambda x: x.transpose(1, 2).log_softmax(-1), (8, 12, 97)),
        ("layer norm", lambda x, w, b: F.layer_norm(x, (768,), w, b), tokens, (768,), (768,)),
        (
            "layer norm of a view",
            lambda x, w: F.layer_norm(x.transpose(1, 2), (8,), w).transpose(1, 2),
            (9, 8, 7), (8,),
        ),
        ("group norm", lambda x, w, b: F.group_norm(x, 32, w, b), image, (64,), (64,)),
        ("group norm nhwc", lambda x, w: F.group_norm(_last(x), 32, w), image, (64,)),
        ("linear", F.linear, tokens, (300, 768), (300,)),
        ("matmul", lambda x, y: x @ y.transpose(-1, -2), (2, 4, 50, 32), (2, 4, 50, 32)),
        ("convolution", F.conv2d, image, (32, 64, 3, 3), (32,)),
        ("max pool", lambda x: F.max_pool2d(_last(x), 3, 2, 1), image),
        ("average pool", lambda x: F.adaptive_avg_pool2d(x, 7), image),
        ("interpolation", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), image),
        ("roll", lambda x: x.roll((3, 3), (2, 3)), image),
        ("gelu", F.gelu, tokens),
        ("dropout", lambda x: F.dropout(x, 0.1), tokens),
        ("embedding", lambda w: F.embedding(_rows(8, 32), w), (1000, 64)),
        ("embedding, sorted", lambda w: F.embedding(_rows(8, 512), w), (1000, 64)),
        ("embedding, int32", lambda w: F.embedding(_rows(8, 512).int(), w), (1000, 64)),
        ("index", lambda w: w[_rows(2401)], (169, 12)),
        ("index of two", lambda w: w[_rows(100), _rows(100)], (169, 12, 7)),
        ("index_select", lambda w: w.index_select(0, _rows(5000)), (169, 12)),
        ("gather", lambda w: w.gather(1, _rows(169, 5)), (169, 12)),
        ("cross entropy", lambda x: F.cross_entropy(x, _rows(64)), (64, 1000)),
        ("smoothed", lambda x: F.cross_entropy(x, _rows(64), label_smoothing=0.1), (64, 1000)),
        ("mse", lambda x: F.mse_loss(x, torch.zeros_like(x)), (64, 1000)),
        ("embedding bag", lambda w: F.embedding_bag(_rows(8, 512), w), (1000, 64)),
        ("cumulative sum", lambda x: x.cumsum(-1), (64, 1000)),
        ("mish", F.mish, image),
        ("hardswish of two layouts", _hardswish_of_two_layouts, image),
        (
            "binary cross entropy",
            lambda x: F.binary_cross_entropy_with_logits(x, torch.zeros_like(x)), (64, 1000),
        ),
    ):  # fmt: skip
        yield name, _trained(function, dtype, *shapes)
    for backend in ("efficient", "math", "chosen"):
        yield f"attention, {backend}", _attention(dtype, backend)
    yield "attention with dropout", _attention(dtype, "efficient", 0.1)
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        yield kind.__name__, _layer(kind, dtype, num_layers=2, batch_first=True)
        yield f"{kind.__name__}, both ways", _layer(kind, dtype, bidirectional=True)
    yield "LSTM, projected", _layer(nn.LSTM, dtype, proj_size=24)
    yield "LSTM without biases", _layer(nn.LSTM, dtype, bias=False)


def _attention(dtype: torch.dtype, backend: str, dropout: float = 0.0) -> Case:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {"efficient": [SDPBackend.EFFICIENT_ATTENTION], "math": [SDPBackend.MATH]}
    chosen = backends.get(backend, list(SDPBackend.__members__.values())[1:4])

    def attend(*heads: Tensor) -> Tensor:
        with sdpa_kernel(chosen):
            return F.scaled_dot_product_attention(*heads, dropout_p=dropout)

    return _trained(attend, dtype, *[(2, 4, 50, 32)] * 3)


CASES = {f"{name}, {word}": case for word, dtype in DTYPES.items() for name, case in _cases(dtype)}


def settled(events: list[int]) -> list[int]:
    """Allocations with what is freed between two of them in order of size; the last frees left out.

    In which order a scope frees its tensors changes nothing.
    """
    found: list[int] = []
    freed: list[int] = []
    for size in events:
        if size < 0:
            freed.append(size)
        else:
            found += [*sorted(freed), size]
            freed = []
    return found


def _by_pytorch(case: Case) -> list[int]:
    """Sizes in order, negative where they are freed."""
    from memfit.torch_inside import allocator_trace, start_allocator_trace

    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    gc.disable()
    torch.cuda.memory._record_memory_history(None)
    start_allocator_trace()
    case()
    live: dict[int, int] = {}
    events = []
    for event in allocator_trace():
        if event["action"] == "alloc":
            live[event["addr"]] = event["size"]
            events.append(event["size"])
        elif event["action"] == "free_requested" and event["addr"] in live:
            events.append(-live.pop(event["addr"]))
    return events


def main() -> None:
    """Print the events of every case."""
    torch.zeros(1, device="cuda")
    print(json.dumps({name: _by_pytorch(case) for name, case in CASES.items()}), flush=True)
    os._exit(0)  # threads of CUDA's libraries can end badly at a usual exit


if __name__ == "__main__":
    sys.exit(main())
