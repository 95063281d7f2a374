"""Scripts in the styles that people write reach steps that look alike, and end by themselves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from memfit.memory.allocator.timeline import replay
from memfit.memory.tape.tape import Part
from memfit.scripts.told.answer import Answer, Kept, Status
from memfit.scripts.told.job import FakeData
from memfit.scripts.told.knob import Knob, KnobKind

SAMPLES = Path(__file__).parent / "samples"
RunSample = Callable[..., Answer]


def has_namespaces() -> bool:
    """Asked of another program, so that memfit giving up on them is seen."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork"]
    return bool(shutil.which("unshare")) and not subprocess.call([*command, "true"])


def check_tape(answer: Answer) -> None:
    """The tape replayed is what PyTorch's own allocator counted, by step and evaluation."""
    assert answer.tape is not None
    timeline = replay(answer.tape)
    seen = [*answer.steps, *answer.evaluations]
    assert timeline.peak_allocated_bytes == max(row.allocated_bytes for row in seen)
    assert timeline.peak_reserved_bytes == max(row.reserved_bytes for row in seen)
    live = timeline.live_at(timeline.peak.position)
    assert all(answer.tape.allocations[number].place for number in live)


def test_digits_with_fake_data(run_sample: RunSample) -> None:
    answer = run_sample(
        "mnist_like.py", "--batch-size", "32", "--save-model", fake_data=FakeData(length=5000)
    )
    assert answer.status is Status.STOPPED, answer
    assert len(answer.steps) == 3
    assert answer.steps[-1] == answer.steps[-2]
    assert answer.knob == Knob(KnobKind.FLAG, "--batch-size", 32)
    (evaluation,) = answer.evaluations
    assert (evaluation.when, evaluation.forwards) == ("after", 3)
    assert evaluation.place == "mnist_like.py:39"
    assert [kept.path for kept in answer.kept] == ["mnist_cnn.pt"]
    assert any("MNIST was made up" in note for note in answer.notes)
    check_tape(answer)


def test_two_optimizers(run_sample: RunSample) -> None:
    answer = run_sample("gan.py")
    assert answer.status is Status.STOPPED, answer
    assert [step.optimizer for step in answer.steps] == [0, 1] * 3
    assert answer.knob == Knob(KnobKind.LOADER, "DataLoader", 32, (0,))
    assert [kept.path for kept in answer.kept] == ["fake_0.pt"]
    check_tape(answer)


def test_another_batch_of_the_same_loader(run_sample: RunSample) -> None:
    first = run_sample("gan.py")
    again = run_sample("gan.py", batch=64, loaders=first.knob.loaders)
    assert again.knob.batch == 64
    assert first.tape is not None
    assert again.tape is not None
    small, large = (
        sum(a.size_bytes for a in tape.allocations if a.part is Part.BATCH and a.step == 2)
        for tape in (first.tape, again.tape)
    )
    assert large == 2 * small > 0


def test_no_optimizer(run_sample: RunSample) -> None:
    answer = run_sample("by_hand.py")
    assert answer.status is Status.STOPPED, answer
    assert len(answer.steps) >= 3
    assert answer.knob == Knob()
    check_tape(answer)


def test_small_language_model(run_sample: RunSample) -> None:
    answer = run_sample("gpt_like.py", "--batch_size={batch}", "--eval_iters=3", batch=8)
    assert answer.status is Status.STOPPED, answer
    assert answer.knob == Knob(KnobKind.TEMPLATE, "{batch}", 8)
    assert [(e.when, e.forwards) for e in answer.evaluations] == [("before", 3)]
    assert any("torch.compile" in note for note in answer.notes)
    check_tape(answer)
    again = run_sample("gpt_like.py", "--batch_size={batch}", "--eval_iters=3", batch=8)
    assert answer.tape is not None
    assert again.tape is not None
    assert answer.tape.events == again.tape.events  # autocast clears its cache in any order


def test_folders_of_photographs(run_sample: RunSample) -> None:
    answer = run_sample(
        "folders.py", "/data/imagenet", fake_data=FakeData((3, 80, 100), 20, 200),
        is_benchmark_off=True,
    )  # fmt: skip
    assert answer.status is Status.STOPPED, answer
    assert answer.knob == Knob(KnobKind.LOADER, "DataLoader", 8, (0,))
    assert [kept.path for kept in answer.kept] == ["checkpoints/best.pth"]
    assert answer.is_benchmarked
    check_tape(answer)


@pytest.mark.parametrize("protection", ["auto", "python"])
def test_both_protections_keep_a_checkpoint(run_sample: RunSample, protection: str) -> None:
    code = (
        "import torch; from pathlib import Path\n"
        "Path('out').mkdir(); torch.save(torch.ones(3), 'out/a.pt')\n"
        "assert torch.load('out/a.pt').sum() == 3; Path('train.py').unlink()\n"
        "assert not Path('train.py').exists()\n"
    )
    answer = run_sample("train.py", code=code, protection=protection)
    assert answer.status is Status.NO_TRAINING, answer
    held = "namespaces" if protection == "auto" and has_namespaces() else "python"
    assert answer.protection == held
    kept = {kept.path: kept.is_deleted for kept in answer.kept}
    assert kept["out/a.pt"] is False
    assert kept["train.py"] is True
    assert isinstance(answer.kept[0], Kept)


def test_one_rank_of_eight(run_sample: RunSample) -> None:
    answer = run_sample("ddp.py", ranks=8)
    assert answer.status is Status.STOPPED, answer
    assert any("Rank 0 of 8" in note for note in answer.notes)
    assert answer.knob == Knob(KnobKind.LOADER, "DataLoader", 16, (0,))
    assert [kept.path for kept in answer.kept] == ["last.pt"]
    check_tape(answer)


def test_a_process_for_each_gpu(run_sample: RunSample) -> None:
    code = (
        "import sys, os, torch.multiprocessing as mp\n"
        "def work(rank, code): os.environ['LOCAL_RANK'] = str(rank); exec(code)\n"
        f"mp.spawn(work, args=({(SAMPLES / 'ddp.py').read_text()!r},), nprocs=8)\n"
    )
    answer = run_sample("train.py", code=code, ranks=8)
    assert answer.status is Status.STOPPED, answer
    assert len(answer.steps) >= 3


def test_a_check_before_and_a_batch_ahead(run_sample: RunSample) -> None:
    """As trainers of libraries do: some evaluation first, and loaders read one batch ahead."""
    code = """
import torch
from torch.utils.data import DataLoader
model = torch.nn.Linear(512, 512).cuda()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
train = DataLoader(torch.rand(4096, 512), batch_size=32)
val = DataLoader(torch.rand(4096, 512), batch_size=128)
def ahead(loader):
    batches = iter(loader)
    current = next(batches)
    for following in batches:
        yield current
        current = following
    yield current
@torch.no_grad()
def check(most):
    model.eval()
    for number, x in enumerate(val):
        model(x.cuda())
        if number == most:
            break
    model.train()
check(1)
for epoch in range(3):
    for x in ahead(train):
        model(x.cuda()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    check(100)
"""
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.STOPPED, answer
    assert len(answer.steps) == 3
    assert answer.knob == Knob(KnobKind.LOADER, "DataLoader", 32, (0,))
    assert [(e.when, e.forwards) for e in answer.evaluations] == [("before", 2), ("after", 3)]


def test_loaders_that_keep_their_iterator(run_sample: RunSample) -> None:
    """As libraries do to keep their workers: each epoch takes so many batches of an endless one."""
    code = """
import torch
from torch.utils.data import BatchSampler, DataLoader
class Again(BatchSampler):
    def __iter__(self):
        while True:
            yield from super().__iter__()
class EndlessLoader(DataLoader):
    def __init__(self, data, size):
        sampler = Again(range(len(data)), size, drop_last=True)
        super().__init__(data, batch_sampler=sampler)
        self.iterator = super().__iter__()
    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.iterator)
model = torch.nn.Linear(512, 512).cuda()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
train, val = EndlessLoader(torch.rand(4096, 512), 32), EndlessLoader(torch.rand(4096, 512), 64)
def check():
    model.eval()
    with torch.inference_mode():
        assert [model(x.cuda()) for x in val]
    model.train()
for epoch in range(3):
    for x in train:
        model(x.cuda()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    check()
    check()
"""
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.STOPPED, answer.traceback
    assert len(answer.steps) == 3
    assert [(e.when, e.forwards) for e in answer.evaluations] == [("after", 6)]
    assert not any("raised" in note for note in answer.notes)


def test_sets_that_hold_their_images(run_sample: RunSample) -> None:
    code = """
from torchvision import datasets
digits, photos = datasets.MNIST("gone"), datasets.CIFAR10("gone")
assert digits.data[digits.targets == 3].shape == (30, 28, 28)
assert photos.data.shape == (300, 32, 32, 3) and photos.targets[:2] == [0, 1]
assert digits[3][1] == 3 and (photos.data[1] == photos[1][0]).all()
"""
    answer = run_sample("train.py", code=code, fake_data=FakeData(length=300))
    assert answer.status is Status.NO_TRAINING, answer.traceback


def test_a_graph_is_traced_and_kernels_compiled_where_they_run(run_sample: RunSample) -> None:
    """TorchScript, and kernels that PyTorch compiles when they are first used."""
    code = """
import torch
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Sigmoid()).cuda()
traced = torch.jit.trace(model, torch.rand(2, 3, 8, 8).cuda())
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(9):
    x = torch.special.i0(torch.rand(2, 3, 8, 8).cuda())
    traced(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.STOPPED, answer.traceback
    assert len(answer.steps) >= 3


def test_shards_of_a_model(run_sample: RunSample) -> None:
    """FSDP2: its tensors have operators of their own, and its shapes are found by fake ones."""
    code = """
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
dist.init_process_group("nccl")
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
for layer in model:
    fully_shard(layer)
fully_shard(model)
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(9):
    loss = model(torch.rand(8, 64, device="cuda")).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(loss.item())
"""
    answer = run_sample("train.py", code=code, ranks=4)
    assert answer.status is Status.STOPPED, answer.traceback
    assert len(answer.steps) >= 3
    assert answer.tape is not None
    assert replay(answer.tape).peak_allocated_bytes == answer.peak_allocated_bytes
    shards = [a for a in answer.tape.allocations if a.part is Part.PARAMETERS]
    assert sum(a.size_bytes for a in shards) >= 2 * (64 * 64 + 64)  # a fourth of four bytes each
