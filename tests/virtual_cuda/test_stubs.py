"""PyTorch's own CUDA build trains on a card that is not there, and memfit measures on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from memfit.cards.catalogue import gpu
from memfit.virtual_cuda.stubs import Stubs, build_stubs

CARD = gpu("rtx-3060")
MIB = 1 << 20

Child = Callable[..., Any]


def memfit(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "memfit", *words],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_they_are_built_once(stubs: Stubs, cache: Path) -> None:
    times = [path.stat().st_mtime_ns for path in stubs.libraries]
    assert build_stubs(cache / "memfit") == stubs
    assert [path.stat().st_mtime_ns for path in stubs.libraries] == times


def test_networks_train(run_child: Child) -> None:
    """Linear, convolutions with batch norm, and what the allocator counts of their weights."""
    found = run_child("""
linear = nn.Linear(1024, 1024, bias=False, device="cuda")
weights = torch.cuda.memory_allocated()
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                    nn.Linear(8 * 30 * 30, 10)).cuda()
for model, shape in (linear, (4, 1024)), (net, (4, 3, 32, 32)):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        model(torch.randn(shape, device="cuda")).sum().backward()
        optimizer.step()
states = [len(optimizer.state), len(list(net.parameters()))]
print(json.dumps([torch.cuda.get_device_name(), torch.cuda.get_device_capability(), weights,
                  states, linear.weight.grad.is_cuda]))
""")
    assert found == [CARD.name, list(CARD.compute_capability), 4 * MIB, [6, 6], True]


def test_memory_ends_where_the_card_does(run_child: Child) -> None:
    """PyTorch's own error, at the first block of 64 MiB that the capacity has no room for."""
    found = run_child(
        """
blocks = []
try:
    while len(blocks) < 100:
        blocks.append(torch.empty(64 << 20, dtype=torch.uint8, device="cuda"))
except torch.cuda.OutOfMemoryError as error:
    is_pytorchs = "CUDA out of memory" in str(error)
    print(json.dumps([len(blocks), torch.cuda.memory_reserved(), is_pytorchs]))
""",
        capacity_bytes=300 * MIB,
    )
    assert found == [4, 256 * MIB, True]


@pytest.mark.parametrize("options", ["", "bidirectional=True", "proj_size=8", "num_layers=2"])
def test_recurrent_layers_run_forward_and_backward(run_child: Child, options: str) -> None:
    shape, has_gradients = run_child(f"""
net = nn.LSTM(16, 32, {options}).cuda()
out, _ = net(torch.randn(5, 4, 16, device="cuda"))
out.sum().backward()
print(json.dumps([out.shape, all(p.grad is not None for p in net.parameters())]))
""")
    width = {"bidirectional=True": 64, "proj_size=8": 8}.get(options, 32)
    assert shape == [5, 4, width]
    assert has_gradients


@pytest.mark.parametrize("model", ["cnn", "mlp"])
@pytest.mark.usefixtures("stubs")
def test_a_plan_is_what_pytorch_counts(model: str, cache: Path, tmp_path: Path) -> None:
    words = ["measure", model, "--batch-size", "8", "--on", "virtual:rtx-3060"]
    words += ["--records", str(tmp_path)]
    done = memfit(*words, "--json", XDG_CACHE_HOME=str(cache))
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)["outcomes"]
    allocated = outcome["comparison"]["figures"][0]
    assert allocated["name"] == "peak allocated"
    assert allocated["measured_bytes"] > 0
    predicted = pytest.approx(allocated["measured_bytes"], rel=1e-3)
    assert allocated["predicted_bytes"] == predicted
    assert outcome["measurement"]["step_seconds"] is None
    assert list(tmp_path.glob("virtual-rtx-3060/*.json"))

    text = " ".join(memfit(*words, XDG_CACHE_HOME=str(cache)).stdout.split())
    assert "No kernel ran: there are no times" in text
    assert "ms a step" not in text
    assert "not a GPU's" not in text


def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    words = ["measure", "mlp", "--batch-size", "8", "--on", "virtual:rtx-3060"]
    done = memfit(*words, PATH=str(tmp_path), CC="", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert not done.stdout
    assert "Traceback" not in done.stderr
    reasons = ("no C compiler", "build without CUDA", "on Linux only", "is not there")
    assert any(reason in " ".join(done.stderr.split()) for reason in reasons)


STAND_IN = """
import json, ctypes, sys
from memfit.virtual_cuda.stubs import build_stubs
stubs = build_stubs()
runtime = ctypes.CDLL(str(stubs.libraries[0]), ctypes.RTLD_GLOBAL)
version = ctypes.c_int()
runtime.cudaRuntimeGetVersion(ctypes.byref(version))
card = ctypes.create_string_buffer(4096)
runtime.cudaGetDeviceProperties(card, 0)
print(json.dumps([[path.name for path in stubs.libraries], stubs.cuda_major, version.value,
                  card.raw.index((12 << 30).to_bytes(8, "little"))]))
"""


@pytest.mark.usefixtures("stubs")
@pytest.mark.parametrize(("major", "solver", "moved_bytes"), [(12, 11, 0), (13, 12, 32)])
def test_they_follow_the_cuda_that_is_installed(
    tmp_path: Path, major: int, solver: int, moved_bytes: int
) -> None:
    """Names, version and layout are those of the libraries and headers that torch came with.

    A torch is laid out that has little of one: libraries of each name that export a function, and
    the headers of the installed one, in which a field of ``cudaDeviceProp`` has moved.
    """
    (installed,) = {
        path.parent for path in Path(torch.__file__).parents[1].glob("nvidia/*/include/cuda.h")
    }
    packages, nvidia = tmp_path / "packages", tmp_path / "packages" / "nvidia" / "cuda"
    for folder in (nvidia / "lib", packages / "torch"):
        folder.mkdir(parents=True)
    shutil.copytree(installed, nvidia / "include")
    (packages / "triton").symlink_to(installed.parents[2] / "triton")
    header = nvidia / "include" / "driver_types.h"
    text = header.read_text(encoding="utf-8")
    name = "char         name[256];"
    assert name in text
    header.write_text(text.replace(name, f"{name} char moved[{moved_bytes}];"))
    (packages / "torch" / "__init__.py").touch()
    (packages / "torch" / "version.py").write_text(f"cuda: Optional[str] = '{major}.1'\n")
    names = [f"lib{name}.so.{major}" for name in ("cudart", "cublas", "cublasLt", "nvrtc")]
    names += [f"libcusolver.so.{solver}", "libcusparse.so.12", f"libcufft.so.{solver}"]
    names += ["libcudnn.so.9"]
    for file in names:
        command = ["cc", "-shared", "-x", "c", "-", "-o", str(nvidia / "lib" / file)]
        subprocess.run(command, input="int nothing;", text=True, check=True)

    environment = {"PYTHONPATH": os.pathsep.join([str(packages), *sys.path]),
                   "XDG_CACHE_HOME": str(tmp_path)}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", STAND_IN],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    libraries, found_major, version, memory_at = json.loads(done.stdout)
    assert set(libraries) == {*names, "libcuda.so.1", "libnvidia-ml.so.1"}
    assert (found_major, version) == (major, 1000 * major + 10)
    is_plain = 256 + 32  # name, uuid, luid and its mask, then bytes of memory
    assert memory_at == is_plain + moved_bytes
