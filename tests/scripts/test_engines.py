"""Meta tensors play the card for the same scripts, and count what PyTorch itself counts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memfit.cards.catalogue import gpu
from memfit.cli import main
from memfit.memory.allocator.timeline import replay
from memfit.scripts.process import on_card
from memfit.scripts.told.answer import Answer, Status
from memfit.scripts.told.job import FakeData

RunSample = Callable[..., Answer]

CARD = gpu("rtx-3090")
SAMPLES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "mnist_like.py": (("--batch-size", "32", "--save-model"), {"fake_data": FakeData(length=5000)}),
    "gan.py": ((), {}),
    "by_hand.py": ((), {}),
    "gpt_like.py": (("--batch_size={batch}", "--eval_iters=3"), {"batch": 8}),
    "folders.py": (
        ("/data/imagenet",),
        {"fake_data": FakeData((3, 80, 100), 20, 200), "is_benchmark_off": True},
    ),
    "ddp.py": ((), {"ranks": 8}),
}


@pytest.fixture
def run_meta(run_script_in: RunSample) -> RunSample:
    """Run a sample, or code, on meta tensors."""
    return lambda *words, **options: run_script_in(
        dict(on_card(CARD, engine="meta")), *words, engine="meta", **options
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_the_engines_agree(name: str, run_sample: RunSample, run_meta: RunSample) -> None:
    words, options = SAMPLES[name]
    real = run_sample(name, *words, **options)
    meta = run_meta(name, *words, **options)
    assert (real.engine, meta.engine) == ("pytorch", "meta")
    assert (real.status, real.knob) == (meta.status, meta.knob)
    assert [kept.path for kept in real.kept] == [kept.path for kept in meta.kept]
    assert len(real.steps) == len(meta.steps) >= 3
    for a, b in zip(
        [*real.steps, *real.evaluations], [*meta.steps, *meta.evaluations], strict=True
    ):
        assert b.allocated_bytes == pytest.approx(a.allocated_bytes, rel=1e-3)
        assert b.reserved_bytes == pytest.approx(a.reserved_bytes, rel=1e-2)
    assert real.tape is not None
    assert meta.tape is not None
    assert replay(meta.tape).peak.parts == replay(real.tape).peak.parts


def test_the_tape_knows_the_users_lines(run_meta: RunSample) -> None:
    answer = run_meta(
        "mnist_like.py", *SAMPLES["mnist_like.py"][0], fake_data=FakeData(length=5000)
    )
    assert answer.tape is not None
    timeline = replay(answer.tape)
    live = [answer.tape.allocations[n] for n in timeline.live_at(timeline.peak.position)]
    assert all(allocation.place.startswith("mnist_like.py:") for allocation in live)
    assert timeline.peak_allocated_bytes == max(
        row.allocated_bytes for row in (*answer.steps, *answer.evaluations)
    )


def test_what_was_made_up_is_told(run_meta: RunSample) -> None:
    code = """
import torch
model = torch.nn.Linear(8, 1).cuda()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(5):
    loss = model(torch.rand(4, 8).cuda()).mean()
    loss.backward()
    optimizer.step()
    print(loss.item())
"""
    answer = run_meta("train.py", code=code)
    (value,) = answer.values
    assert (value.place, value.value, value.is_made_up) == ("train.py:9", "1.0", True)


def test_what_it_lacks_is_said_in_a_sentence(run_meta: RunSample) -> None:
    code = """
import torch
x = torch.rand(1000, 1000, device="cuda", requires_grad=True)
x[x > 0.5].sum().backward()
"""
    answer = run_meta("train.py", code=code)
    assert (answer.status, answer.place, answer.exit_code) == (Status.FAILED, "train.py:4", 1)
    assert "asks for values" in answer.message
    assert "aten.nonzero" in answer.message or "aten.index" in answer.message
    assert answer.traceback == ""


def test_an_error_of_the_script_is_its_own(run_meta: RunSample) -> None:
    code = "import torch\ntorch.nn.Linear(3, 4).cuda()(torch.rand(2, 5).cuda())\n"
    answer = run_meta("train.py", code=code)
    assert (answer.status, answer.place) == (Status.FAILED, "train.py:2")
    assert "RuntimeError" in answer.message
    assert "train.py" in answer.traceback


def test_a_script_that_stays_on_the_cpu_leaves_no_tape(run_meta: RunSample) -> None:
    code = "import torch\ntorch.ones(3, requires_grad=True).sum().backward()\n"
    answer = run_meta("train.py", code=code)
    assert (answer.status, answer.tape) == (Status.ENDED, None)


def test_without_a_compiler_meta_tensors_run_it_and_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(Path(__file__).parent / "samples" / "by_hand.py", tmp_path / "train.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert main(["run", "--gpu", "t4", "--quick", "train.py"]) == 0
    assert "Worked out on meta tensors (" in capsys.readouterr().out
