"""Several processes on the CPU: the same as one, whatever fails on one of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rank_scenarios
import torch
import torch.multiprocessing as mp
from rank_scenarios import JOBS, MODEL, train
from torch import Tensor, nn

import memfit
from memfit.cli import main
from memfit.errors import UsageError
from memfit.files.metrics_file import MetricsFile
from memfit.trainer.ranks.gradients import GradientBuckets
from memfit.trainer.ranks.ranks import Ranks
from memfit.trainer.ranks.shard import blocks_of, check_shardable, plan_of_shards
from memfit.trainer.run.run import train as train_recipe
from memfit.trainer.run.trained import open_trained
from memfit.trainer.step.devices import choose_device
from memfit.trainer.weights.checkpoint import load_checkpoint

TWO = (
    "adamw", "adamw/shard", "sgd", "sgd/shard", "plain-sgd/shard", "bf16", "norm", "norm/shard",
    "partly", "fails_on_one_rank", "fails_in_the_optimizer", "unreadable_on_one_rank",
    "stops_on_two", "goes_on", "sees_other_data",
    "shares_statistics", "own_model",
)  # fmt: skip
THREE = ("adamw", "adamw/shard", "sgd")

#: Ranks add the same gradients in another order, in float32. For SGD weights then differ by a few
#: roundings (measured: 7e-9). Adam divides by the gradient's own size, so that where a gradient is
#: almost nothing its rounding becomes a visible part of a step: in units of the learning rate
#: (measured: 0.3 %). bfloat16 has 8 bits, and kernels round differently for other batch sizes
#: (measured: 5e-6).
TOLERANCE = {
    "adamw": 0.01 * 0.003,
    "sgd": 1e-7,
    "plain-sgd": 1e-7,
    "bf16": 1e-4,
    "norm": 1e-6,
    "own": 0.01 * 0.003,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything trained by two and by three processes, and by this one."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "model.py").write_text(MODEL)
    for name in ("stopped-1", "stopped-1shard"):
        rank_scenarios.stops(folder, name)
    mp.spawn(rank_scenarios.work, (2, folder, TWO), nprocs=2)
    mp.spawn(rank_scenarios.work, (3, folder, THREE), nprocs=3)
    torch.set_num_threads(1)
    for key in JOBS:
        options = {"batch_size": 16} if key == "norm" else {}
        train(key, folder, f"{key}-1", **options)
    return folder


def last(folder: Path, name: str) -> dict[str, Any]:
    return load_checkpoint(folder / name / "checkpoints" / "last.pt")


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest, over all weights; not of BatchNorm's running statistics."""
    assert one.keys() == other.keys()
    names = [name for name in one if "running" not in name and "tracked" not in name]
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in names)


def assert_equal(one: Any, other: Any) -> None:
    """To the bit."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        for each, its in zip(one, other, strict=True):
            assert_equal(each, its)
    else:
        assert one == other


SAME = [(k, f"{k}-2") for k in ("adamw", "sgd", "bf16", "norm", "partly")] + [
    ("adamw", "adamw-3"), ("sgd", "sgd-3"), ("adamw", "adamw-2shard"),
    ("adamw", "adamw-3shard"), ("sgd", "sgd-2shard"), ("plain-sgd", "plain-sgd-2shard"),
    ("norm", "norm-2shard"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "name"), SAME, ids=[name for _, name in SAME])
def test_several_ranks_train_the_same_as_one(runs: Path, key: str, name: str) -> None:
    one, several = last(runs, f"{key}-1"), last(runs, name)
    limit = TOLERANCE.get(key, 1e-5)
    assert several["step"] == one["step"]
    assert difference(one["model"], several["model"]) <= limit
    if one["model_average"] is not None:
        assert difference(one["model_average"], several["model_average"]) <= limit
    state, its = one["optimizer"]["state"], several["optimizer"]["state"]
    assert state.keys() == its.keys()
    losses = [MetricsFile(runs / n / "metrics.jsonl").read() for n in (f"{key}-1", name)]
    assert [r["step"] for r in losses[0]] == [r["step"] for r in losses[1]]
    for here, there in zip(*losses, strict=True):
        if key == "norm" and here["event"] == "evaluation":
            continue  # running statistics are the first rank's
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-2 if key == "bf16" else 1e-4)


@pytest.mark.parametrize("name", ["adamw-2", "adamw-3", "sgd-2shard", "norm-2"])
def test_evaluation_counts_every_sample_once(runs: Path, name: str) -> None:
    found = open_trained(runs / name, device="cpu").evaluate()
    told = (runs / name / "summary.json").read_text()
    assert found.samples == 33
    assert f'"samples": {found.samples}' in told


def test_a_layer_that_no_sample_reaches_is_left_alone(runs: Path) -> None:
    before = load_checkpoint(runs / "partly-1" / "checkpoints" / "last.pt")["model"]
    after = last(runs, "partly-2")["model"]
    assert torch.equal(before["never.weight"], after["never.weight"])


@pytest.mark.parametrize("phase", ["FORWARD", "BACKWARD"])
def test_out_of_memory_on_one_rank_shrinks_all_and_leaves_no_trace(runs: Path, phase: str) -> None:
    ranks = [torch.load(runs / f"fails-{phase}-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert ranks[0]["events"] == [(2, "another rank", 16, 5)]
    assert ranks[1]["events"] == [(2, phase.lower(), 16, 5)]
    assert ranks[0]["failed"]["micro_batch"] == ranks[1]["failed"]["micro_batch"]
    for part in ("model", "optimizer"):
        assert_equal(ranks[0]["failed"][part], ranks[1]["failed"][part])
        assert_equal(ranks[0]["failed"][part], ranks[0]["other"][part])


def test_out_of_memory_in_one_ranks_optimizer_takes_all_back(runs: Path) -> None:
    ran, failed = last(runs, "sgd-2"), last(runs, "optimizer-failed")
    assert_equal(ran["model"], failed["model"])
    assert_equal(ran["optimizer"], failed["optimizer"])


def test_ranks_without_a_readable_sample_follow(runs: Path) -> None:
    states = [torch.load(runs / f"unreadable-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert states[0]["step"] == 1, "a batch without samples is no step"
    assert_equal(states[0]["model"], states[1]["model"])


@pytest.mark.parametrize("name", ["stopped-1", "stopped-1shard", "stopped-2", "stopped-2shard"])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(runs: Path, name: str) -> None:
    if "-2" in name:
        train_recipe(resume=runs / name, device="cpu")
    one, other = last(runs, "adamw-1"), last(runs, name)
    assert other["step"] == one["step"] == 8
    assert difference(one["model"], other["model"]) <= TOLERANCE["adamw"]
    assert difference(one["model_average"], other["model_average"]) <= TOLERANCE["adamw"]


# -- by themselves ---------------------------------------------------------------------------------


def test_torchruns_variables_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not Ranks.join(torch.device("cpu")).are_many
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="RANK, MASTER_ADDR, MASTER_PORT are not set"):
        Ranks.join(torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="WORLD_SIZE is 'two'"):
        Ranks.join(torch.device("cpu"))


def test_every_rank_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UsageError, match="2 ranks on this machine, which has 1 GPU"):
        choose_device("cuda")
    with pytest.raises(UsageError, match="cuda:0 is one GPU for 2 ranks"):
        choose_device("cuda:0")


def test_gradients_are_views_of_their_buckets() -> None:
    weights = [
        torch.ones(3, 2, requires_grad=True),
        torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True),
        torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_(),
    ]
    buckets = GradientBuckets(weights, Ranks())
    buckets.clear_gradients()
    before = [weight.grad for weight in weights]
    sum(weight.float().sum() * 2 for weight in weights[:2]).backward()  # type: ignore[union-attr]
    assert [weight.grad is b for weight, b in zip(weights, before, strict=True)] == [True] * 3
    assert buckets.used == [1.0, 1.0, 0.0]
    assert [float(flat.sum()) for flat in buckets.flat] == [12.0, 12.0, 0.0]
    assert weights[2].grad is not None
    assert weights[2].grad.stride() == weights[2].stride()
    buckets.sum(buckets.used)
    assert weights[2].grad is None, "no sample reached it"


def test_blocks_are_what_is_called_as_a_whole() -> None:
    blocks = nn.ModuleList([nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))])
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    model = nn.Module()
    model.stem, model.blocks, model.tied = nn.Linear(2, 2), blocks, tied
    assert blocks_of(model) == [blocks[0], blocks[1]]


def test_shards_leave_room_for_a_larger_micro_batch() -> None:
    made = memfit.plan("torchvision:vit_b_16", optimizer="adamw", gpu="4GiB")
    model = made.step.model
    two, eight = (plan_of_shards(made, model, number) for number in (2, 8))
    assert made.gpu is not None
    assert two.gpu is not None
    assert eight.gpu is not None
    weights = 4 * 86_567_656
    block = 4 * 7_087_872  # of the encoder: the largest group
    for number, plan in ((2, two.gpu), (8, eight.gpu)):
        saved = plan.usable_bytes - made.gpu.usable_bytes
        assert saved == pytest.approx(4 * weights * (1 - 1 / number) - 3 * block, rel=0.01)
    assert made.max_batch_size < two.max_batch_size < eight.max_batch_size  # type: ignore[operator]


@pytest.mark.parametrize("options", [{"compile": True}, {"precision": "amp-fp16"}])
def test_what_does_not_go_with_shards_is_refused(options: dict[str, Any]) -> None:
    recipe = JOBS["sgd"].but(shard=True, **options).recipe
    with pytest.raises(UsageError, match="shard"):
        check_shardable(recipe, None, torch.device("cpu"))
    with pytest.raises(UsageError, match="--memory"):
        check_shardable(JOBS["sgd"].recipe, 1 << 30, torch.device("cpu"))


def test_before_they_meet_the_first_rank_of_a_machine_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert main(["train", "mlp", "--global-batch", "0"]) == 2
        assert capsys.readouterr().err.count("error:") == lines


# -- under torchrun --------------------------------------------------------------------------------


def torchrun(
    folder: Path, *arguments: str, restarts: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "--max-restarts", str(restarts), "-m", "memfit", "train", *arguments, "--device", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False,
        timeout=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recipe(runs: Path) -> str:
    """What the run "own-2" trained, as a file: 9 steps, a checkpoint every 2."""
    return str(runs / "own-2" / "recipe.toml")


def test_a_killed_rank_ends_the_run_which_resumes_to_the_bit(runs: Path, recipe: str) -> None:
    killed = torchrun(runs, recipe, "--name", "killed", TEST_ACT="kill")
    assert killed.returncode == 1
    assert len(re.findall(r"^error: Another rank ended", killed.stderr, re.M)) == 1
    assert killed.stderr.count("run folder") == 1, "one rank speaks"
    assert last(runs / "runs", "killed")["step"] == 4
    resumed = torchrun(runs, "--resume", "runs/killed")
    assert resumed.returncode == 0, resumed.stderr
    assert "Warning" not in resumed.stderr
    one, other = last(runs, "own-2"), last(runs / "runs", "killed")
    for part in ("model", "optimizer", "micro_batch", "progress", "step"):
        assert_equal(one[part], other[part])


def test_a_sharded_run_out_of_memory_starts_again_smaller(runs: Path, recipe: str) -> None:
    done = torchrun(runs, recipe, "--shard", restarts=1, TEST_ACT="memory")
    assert done.returncode == 0, done.stderr
    sizes = re.findall(r"^error: Memory ran out.*micro-batch of (\d+)", done.stderr, re.M)
    assert sizes == ["16"], "told once"
    assert "resumed after step 4" in done.stderr
    (run,) = [path.name for path in (runs / "runs").iterdir() if path.name != "killed"]
    found = last(runs / "runs", run)
    assert found["micro_batch"]["size"] == 8
    assert difference(last(runs, "own-2")["model"], found["model"]) <= TOLERANCE["own"]


def test_an_error_of_one_rank_is_told_once(runs: Path, recipe: str) -> None:
    failed = torchrun(runs, recipe, "--name", "mistake", TEST_ACT="raise")
    assert failed.returncode == 1
    assert failed.stderr.count("ZeroDivisionError: a mistake") == 1
    assert "Another rank" not in failed.stderr
    assert not (runs / "runs" / "mistake").exists() or last(runs / "runs", "mistake")["step"] == 4
