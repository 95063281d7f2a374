"""What scripts ask of a GPU beside memory: libraries, the monitor, graphs, pinned memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memfit.virtual_cuda.stubs import Stubs

Child = Callable[..., Any]
MIB = 1 << 20

NOT_COUNTED = "from memfit.virtual_cuda.inside import not_counted"


@pytest.mark.parametrize(
    ("expression", "library"),
    [
        ("torch.linalg.eigh(a @ a.T)[0]", "cuSOLVER"),
        ("torch.linalg.svd(a)[1]", "cuSOLVER"),
        ("torch.linalg.qr(a)[1]", "cuSOLVER"),
        ("torch.linalg.cholesky_ex(a @ a.T)[0]", "cuSOLVER"),
        ("torch.linalg.solve_ex(a, a)[0]", "cuSOLVER"),
        ("torch.fft.ifft2(torch.fft.fft2(a)).real", "cuFFT"),
        ("torch.stft(a.flatten(), 16, window=torch.ones(16, device='cuda'), return_complex=True)",
         "cuFFT"),
    ],
)  # fmt: skip
def test_a_library_answers_and_is_said_to_be_uncounted(
    run_child: Child, expression: str, library: str
) -> None:
    said, has_result = run_child(f"""
{NOT_COUNTED}
a = torch.randn(64, 64, device="cuda")
before = list(not_counted())
result = {expression}
print(json.dumps([[before, list(not_counted())], result.is_cuda]))
""")
    assert said == [[], [library]]
    assert has_result


def test_sparse_products_run_and_sparse_results_end_clearly(run_child: Child) -> None:
    """How many values a product of two sparse matrices has, only its values say."""
    shape, said, error = run_child(f"""
{NOT_COUNTED}
index = torch.arange(8, device="cuda")
rows = torch.arange(9, device="cuda")
a = torch.sparse_csr_tensor(rows, index, torch.ones(8, device="cuda"), (8, 8),
                            check_invariants=False)
shape = list((a @ torch.ones(8, 3, device="cuda")).shape)
try:
    a @ a
except RuntimeError as failed:
    error = str(failed)
print(json.dumps([shape, list(not_counted()), error]))
""")
    assert shape == [8, 3]
    assert said == ["cuSPARSE"]
    assert "does not know this size" in error


@pytest.mark.parametrize("name", ["solver", "sparse", "fourier"])
def test_every_work_area_that_is_asked_for_is_answered(stubs: Stubs, name: str) -> None:
    """A size that is not written would be whatever lay there."""
    text = (stubs.libraries[0].parent / f"{name}-generated.c").read_text(encoding="utf-8")
    declared = [line for line in text.splitlines() if "(long" in line]
    asked = [line for line in declared if "bufferSize" in line or "MakePlan" in line]
    assert asked
    assert [line for line in asked if "memfit_not_counted" not in line] == []


def test_segments_that_grow(run_child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable is heeded; a segment grows by 20 MiB, and ends where the card does."""
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "expandable_segments:True")
        found = run_child(
            """
blocks = []
try:
    while len(blocks) < 100:
        blocks.append(torch.ones(30 << 18, device="cuda"))
except torch.cuda.OutOfMemoryError as error:
    pass
segments = torch.cuda.memory_snapshot()
count, taken = len(blocks), torch.cuda.memory_reserved()
blocks.clear()
torch.cuda.empty_cache()
free, total = torch.cuda.mem_get_info()
print(json.dumps([count, taken, all(s["is_expandable"] for s in segments), len(segments),
                  torch.cuda.memory_reserved()]))
""",
            capacity_bytes=110 * MIB,
        )
        assert found == [3, 100 * MIB, True, 1, 0]
        monkeypatch.delenv(name)


def test_a_captured_graph_has_memory_of_its_own(run_child: Child) -> None:
    """Memory of a graph is not given to others while the graph is there."""
    pools, kept = run_child("""
from torch import nn
net = nn.Linear(64, 64).cuda()
graphed = torch.cuda.make_graphed_callables(net, (torch.randn(8, 64, device="cuda"),))
for _ in range(2):
    graphed(torch.randn(8, 64, device="cuda")).sum().backward()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    big = torch.ones(1 << 20, device="cuda") * 2
graph.replay()
del big
torch.cuda.empty_cache()
segments = torch.cuda.memory_snapshot()
private = [s for s in segments if tuple(s["segment_pool_id"]) != (0, 0)]
print(json.dumps([len({tuple(s["segment_pool_id"]) for s in private}),
                  max(s["total_size"] for s in private)]))
""")
    assert pools == 2
    assert kept >= 4 * MIB


def test_pinned_memory_is_known(run_child: Child) -> None:
    assert run_child("""
host = torch.arange(5.0).pin_memory()
card = host.cuda(non_blocking=True)
other = torch.empty(5, pin_memory=True)
other.copy_(card, non_blocking=True)
print(json.dumps([host.is_pinned(), other.is_pinned(), torch.ones(5).is_pinned(), other.tolist()]))
""") == [True, True, False, [0.0, 1.0, 2.0, 3.0, 4.0]]


def test_the_monitor_shows_the_card(run_child: Child) -> None:
    used, own, total, idle, name = run_child("""
import os, pynvml
block = torch.ones(8 << 20, device="cuda")
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
(process,) = pynvml.nvmlDeviceGetComputeRunningProcesses(card)
assert process.pid == os.getpid()
free, total = torch.cuda.mem_get_info()
memory = pynvml.nvmlDeviceGetMemoryInfo(card)
assert (memory.total, memory.free) == (total, free)
print(json.dumps([memory.used, process.usedGpuMemory, memory.total,
                  [torch.cuda.utilization(), torch.cuda.memory_usage()],
                  pynvml.nvmlDeviceGetName(card)]))
""")
    assert used == own
    assert 32 * MIB < used < total
    assert idle == [0, 0]
    assert "3060" in name
