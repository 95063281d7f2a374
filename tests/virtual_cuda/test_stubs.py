"""PyTorch's own CUDA build trains on a card that is not there, and memfit measures on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memfit.cards.catalogue import gpu
from memfit.errors import NoStubs
from memfit.virtual_cuda.child import child_environment
from memfit.virtual_cuda.stubs import Stubs, build_stubs

CARD = gpu("rtx-3060")
END = "import os, sys; sys.stdout.flush(); os._exit(0)"
MIB = 1 << 20

Child = Callable[..., Any]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def stubs(cache: Path) -> Stubs:
    try:
        return build_stubs(cache / "memfit")
    except NoStubs as error:
        pytest.skip(f"PyTorch itself does not run here without a GPU: {error.message}")


@pytest.fixture
def run_child(stubs: Stubs) -> Child:
    """Run code behind the stubs; what it prints last is JSON."""

    def run(code: str, **options: Any) -> Any:
        here = dict(os.environ)
        environment = here | child_environment(stubs, CARD, **options)
        done = subprocess.run(
            [sys.executable, "-c", f"import json, torch\nfrom torch import nn\n{code}\n{END}"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert dict(os.environ) == here
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


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
