"""The joined tape, against a stand-in for the CUDA allocator that tells what it really did."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from memfit.measure.history import HistoryRecorder, joined_tape, workspaces_of
from memfit.memory.allocator.timeline import replay
from memfit.memory.recording.follower import Follower
from memfit.memory.tape.tape import Part, Phase
from memfit.torch_inside import in_backward

WORKSPACE = 12_345


class AllocatorWithHistory(TorchDispatchMode):
    """Below the recorder: writes the entries that ``_snapshot()`` would have for CPU tensors.

    Each matrix product also takes a workspace, at an address that tensors use as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trace: list[dict[str, Any]] = []
        self.seen: dict[int, Any] = {}

    def count(self) -> int:
        return sum(entry["action"] == "alloc" for entry in self.trace)

    def own(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self.seen or not storage.nbytes():
            return
        address, size, key = storage.data_ptr(), storage.nbytes(), storage._cdata
        self._write("alloc", address, size)

        def freed(_: Any) -> None:
            self._write("free_requested", address, size)
            self._write("free_completed", address, size)
            del self.seen[key]

        self.seen[key] = weakref.ref(storage, freed)

    def _write(self, action: str, address: int, size: int) -> None:
        self.trace.append({"action": action, "addr": address, "size": size, "stream": 0})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [r for r in (result if isinstance(result, tuple) else (result,)) if r is not None]
        made = [t for t in tensors if isinstance(t, torch.Tensor)]
        if str(func) in ("aten.mm.default", "aten.addmm.default"):
            address = made[0].data_ptr()  # freed again before the result is made there
            self._write("alloc", address, WORKSPACE)
            self._write("free_requested", address, WORKSPACE)
        for tensor in made:
            self.own(tensor)
        return result


def recorded_step() -> tuple[HistoryRecorder, AllocatorWithHistory]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    allocator = AllocatorWithHistory()
    allocator._write("alloc", 0xABC, 77)  # something from before
    recorder = HistoryRecorder(allocator.count, "cpu")
    allocator.trace.clear()
    allocator._write("alloc", 0xABC0, 11)
    recorder.base = 0
    for parameter in model.parameters():
        allocator.own(parameter)
    follower = Follower(recorder)
    follower.adopt(model)
    with allocator, follower.hooks(), recorder:
        for _ in range(2):
            inputs = torch.ones(16, 32)
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            optimizer.step()
        del inputs, loss
    follower.tag_gradients()
    return recorder, allocator


def test_what_tensors_own_is_what_the_recorder_saw() -> None:
    recorder, allocator = recorded_step()
    joined = joined_tape(recorder, allocator.trace)
    mine = [a for a in recorder.tape().allocations if a.size_bytes]
    owned = [a for a in joined.allocations if a.part is not Part.WORKSPACES and a.size_bytes != 11]
    as_facts = [
        sorted((a.size_bytes, a.part, a.phase, a.operator, a.module, a.step) for a in allocations)
        for allocations in (mine, owned)
    ]
    assert as_facts[0] == as_facts[1]


def test_what_nobody_owns_belongs_to_the_running_operator() -> None:
    recorder, allocator = recorded_step()
    joined = joined_tape(recorder, allocator.trace)
    workspaces = [a for a in joined.allocations if a.part is Part.WORKSPACES]
    assert {a.size_bytes for a in workspaces} == {WORKSPACE}
    assert {(a.operator, a.phase) for a in workspaces} == {
        ("aten.addmm.default", Phase.FORWARD), ("aten.mm.default", Phase.BACKWARD),
    }  # fmt: skip
    assert {a.module for a in workspaces} == {"0", "2"}
    assert {a.step for a in workspaces} == {0, 1}
    (addmm, mm) = sorted(workspaces_of(joined), key=lambda w: w.operator)
    assert (addmm.count, addmm.is_held) == (4, False)
    assert mm.count == sum(a.operator == "aten.mm.default" for a in workspaces)


def test_the_sequence_is_the_allocators() -> None:
    recorder, allocator = recorded_step()
    joined = joined_tape(recorder, allocator.trace)
    sizes = [e["size"] for e in allocator.trace if e["action"] == "alloc"]
    assert joined.sizes_bytes == sizes
    live = sum(e["size"] * {"alloc": 1, "free_requested": -1}.get(e["action"], 0)
               for e in allocator.trace)  # fmt: skip
    timeline = replay(joined)
    assert sum(joined.sizes_bytes[n] for n in timeline.live_at(len(joined.events) - 1)) == live


def test_a_held_workspace_is_said_to_be_held() -> None:
    recorder, allocator = recorded_step()
    trace = [e for e in allocator.trace if e["size"] != WORKSPACE or e["action"] == "alloc"]
    assert all(workspace.is_held for workspace in workspaces_of(joined_tape(recorder, trace)))


class Checkpointed(nn.Module):
    """Two blocks whose activations are made again in backward."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
        self.second = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in (self.first, self.second):
            x = checkpoint(block, x, use_reentrant=False)
        return x


def test_a_second_forward_in_the_devices_thread_confuses_no_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a GPU it is numbered in a thread of its own, from the start."""
    number = torch._C._autograd._get_sequence_nr
    monkeypatch.setattr(
        torch._C._autograd,
        "_get_sequence_nr",
        lambda: number() - (1 << 40) if in_backward() else number(),
    )
    model = Checkpointed()
    recorder = HistoryRecorder(lambda: 0, "cpu")
    follower = Follower(recorder)
    follower.adopt(model)
    with follower.hooks(), recorder:
        model(torch.ones(4, 8, requires_grad=True)).sum().backward()
    found = recorder.tape().allocations
    products = [a.module for a in found if a.operator == "aten.mm.default"]
    layers = [f"{block}.{layer}" for block in ("second", "first") for layer in (3, 2, 1, 0)]
    assert products == [layer for layer in layers for _ in range(2)]
