from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from memfit.errors import (
    CheckpointError,
    DamagedCheckpoint,
    ModelError,
    RunError,
    UsageError,
    WeightsMismatch,
)
from memfit.trainer.run.export import export_weights, without_shared
from memfit.trainer.run.run_folder import RunFolder
from memfit.trainer.weights.weights import apply_weights, load_weights


class Tied(nn.Module):
    """Two names for one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.z_embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.z_embed.weight


def net(classes: int = 4, *, width: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, classes))


def filled(model: nn.Module, value: float) -> nn.Module:
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    """Step 1 (the best): ones, average 10. Step 2: twos, average 20."""
    with RunFolder.create(tmp_path / "runs", "a") as run:
        for step in (1, 2):
            average = dict(filled(net(), 10 * step).named_parameters())
            content = {"model": filled(net(), step).state_dict(), "model_average": average}
            run.save_checkpoint(step, content, is_best=step == 1)
        yield run


# ---- export


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    ("options", "value", "averaged"),
    [
        ({}, 10, True),
        ({"average": False}, 1, False),
        ({"which": "last"}, 20, True),
        ({"which": "last", "average": False}, 2, False),
    ],
)
def test_the_asked_weights_load_in_plain_pytorch(
    run: RunFolder, tmp_path: Path, suffix: str, options: Any, value: int, averaged: bool
) -> None:
    target = tmp_path / f"weights{suffix}"
    exported = export_weights(run, target, **options)
    assert exported.averaged is averaged
    assert exported.size_bytes == target.stat().st_size
    assert exported.tensors == len(net().state_dict())
    model = net()
    if suffix == ".pt":
        model.load_state_dict(torch.load(target, weights_only=True))
    else:
        model.load_state_dict(safetensors.torch.load_file(target))
    assert same(model.state_dict(), filled(net(), value).state_dict())
    assert same(load_weights(target), filled(net(), value).state_dict())


def test_without_an_average_or_a_best_one_the_last_weights_are_taken(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "runs", "a") as run:
        run.save_checkpoint(3, {"model": net().state_dict(), "model_average": None})
        exported = export_weights(run, tmp_path / "a.pt")
        assert not exported.averaged
        assert exported.checkpoint == run.checkpoints.path(3)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_tied_weights_come_back(tmp_path: Path, suffix: str) -> None:
    model, target = Tied(), tmp_path / f"a{suffix}"
    with RunFolder.create(tmp_path / "runs", "a") as run:
        run.save_checkpoint(1, {"model": model.state_dict()})
        exported = export_weights(run, target)
    assert same(load_weights(target), model.state_dict())
    if suffix == ".safetensors":
        assert exported.shared == {"z_embed.weight": "head.weight"}
        assert exported.tensors == len(model.state_dict()) - 1
        other = Tied()
        assert safetensors.torch.load_model(other, target) == (set(), [])
        assert same(other.state_dict(), model.state_dict())
        with safetensors.safe_open(target, framework="pt") as file:
            assert file.metadata() == {"format": "pt", "z_embed.weight": "head.weight"}


def test_parts_and_strides_of_one_storage_become_tensors_of_their_own() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    weights = {
        "t": base.T, "base": base, "row": base[1], "again": base, "a": torch.empty(0),
        "b": torch.empty(0),
    }  # fmt: skip
    kept, dropped = without_shared(weights)
    assert dropped == {"base": "again"}
    safetensors.torch.save(kept)  # refuses tensors that share memory or are not contiguous
    assert all(torch.equal(kept[name], weights[name]) for name in kept)
    assert kept.keys() == weights.keys() - {"base"}


def test_nothing_is_overwritten_without_force(run: RunFolder, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    target.write_text("mine")
    with pytest.raises(RunError, match=r"exists(.|\n)*--force"):
        export_weights(run, target)
    assert target.read_text() == "mine"
    export_weights(run, target, force=True)
    assert load_weights(target)


@pytest.mark.parametrize("name", ["a.bin", "a", "a.pth.zip"])
def test_other_endings_are_refused(run: RunFolder, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.safetensors or \.pt"):
        export_weights(run, tmp_path / name)


def test_targets_that_cannot_be_are_clear_errors(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        export_weights(run, tmp_path / "folder.pt", force=True)
    with pytest.raises(RunError, match="no folder"):
        export_weights(run, tmp_path / "none" / "a.pt")
    with pytest.raises(RunError, match=r"Cannot write .*File name too long"):
        export_weights(run, tmp_path / f"{'x' * 240}.pt")


def test_checkpoints_that_cannot_be_used_are_told(run: RunFolder, tmp_path: Path) -> None:
    told: list[Path] = []
    os.truncate(run.checkpoints.path(2), 100)
    exported = export_weights(
        run, tmp_path / "a.pt", which="last", on_damaged=lambda path, _: told.append(path)
    )
    assert exported.checkpoint == run.checkpoints.path(1)
    assert told == [run.checkpoints.path(2)]
    os.truncate(run.checkpoints.best_path, 100)
    with pytest.raises(DamagedCheckpoint, match=r"best\.pt"):
        export_weights(run, tmp_path / "b.pt")
    run.save_checkpoint(3, {"step": 3})
    with pytest.raises(CheckpointError, match="holds no model"):
        export_weights(run, tmp_path / "b.pt", which="last")
    assert not (tmp_path / "b.pt").exists()


# ---- weights from a file


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": weights, "optimizer": {"state": {}}},
        lambda weights: {"model_state_dict": weights},
        lambda weights: {f"module.{name}": value for name, value in weights.items()},
        lambda weights: {
            "state_dict": {f"module._orig_mod.{name}": value for name, value in weights.items()}
        },
        lambda weights: {
            "model": {},
            "state_dict_ema": weights,
            "state_dict": {"x": torch.ones(1)},
        },
        lambda weights: {"model": {"state_dict": weights}},
        lambda weights: nn.ParameterDict(weights).state_dict(),
    ],
)
def test_wrappers_are_taken_off(tmp_path: Path, wrap: Any) -> None:
    weights = net().state_dict()
    weights = {name.replace(".", "_"): value.float() for name, value in weights.items()}
    torch.save(wrap(weights), tmp_path / "a.pth")
    assert same(load_weights(tmp_path / "a.pth"), weights)


def test_an_averaged_model_is_unwrapped(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(net())
    torch.save(averaged.state_dict(), tmp_path / "a.pt")
    assert load_weights(tmp_path / "a.pt").keys() == net().state_dict().keys()


def test_a_models_own_parts_named_like_wrappers_stay(tmp_path: Path) -> None:
    model = nn.ModuleDict({"model": nn.Linear(1, 1), "module": nn.Linear(1, 1)})
    torch.save(model.state_dict(), tmp_path / "a.pt")
    assert same(load_weights(tmp_path / "a.pt"), model.state_dict())


class Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def test_files_with_code_are_refused_and_not_run(tmp_path: Path) -> None:
    path, victim = tmp_path / "a.pt", tmp_path / "victim"
    for write in (
        lambda: torch.save({"model": Touches(victim)}, path),
        lambda: torch.save(net(), path),
        lambda: path.write_bytes(pickle.dumps(Touches(victim))),
    ):
        write()
        with pytest.raises(ModelError, match="cannot be read as weights") as caught:
            load_weights(path)
        assert "weights_only" not in str(caught.value)
        assert "state_dict()" in str(caught.value)
    assert not victim.exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("damage", [b"", b"hello", b"PK\3\4" + bytes(50), bytes(100), b"\x80\x02"])
def test_files_that_are_no_weights_are_clear_errors(
    tmp_path: Path, name: str, damage: bytes
) -> None:
    (tmp_path / name).write_bytes(damage)
    with pytest.raises(ModelError, match=f"{name} cannot be read as weights"):
        load_weights(tmp_path / name)


def test_files_without_weights_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        load_weights(tmp_path / "none.pt")
    for value in ({}, {"epoch": 3}, [torch.zeros(1)], torch.zeros(1)):
        torch.save(value, tmp_path / "a.pt")
        with pytest.raises(ModelError, match="holds no weights"):
            load_weights(tmp_path / "a.pt")


# ---- into a model


def test_all_weights_are_applied() -> None:
    model, source = net(), filled(net(), 2)
    applied = apply_weights(model, source.state_dict(), allow_head_mismatch=False)
    assert applied.loaded == tuple(source.state_dict())
    assert (applied.missing, applied.unexpected, applied.reshaped) == ((), (), ())
    assert same(model.state_dict(), source.state_dict())


def test_the_model_keeps_its_dtype() -> None:
    model = net().half()
    apply_weights(model, filled(net(), 2).state_dict(), allow_head_mismatch=False)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


def test_files_from_before_batchnorm_counted_are_whole() -> None:
    weights = net().state_dict()
    del weights["1.num_batches_tracked"]
    assert apply_weights(net(), weights, allow_head_mismatch=False).missing == ()


def test_another_number_of_classes_leaves_the_head_where_that_is_allowed() -> None:
    model = filled(net(classes=7), 5)
    weights = filled(net(classes=4), 2).state_dict()
    with pytest.raises(WeightsMismatch) as caught:
        apply_weights(model, weights, allow_head_mismatch=False)
    assert "2.weight: 4×6 in the file, 7×6 here" in str(caught.value)
    assert "2 tensors differ, 7 agree" in str(caught.value)
    assert bool((model[0].weight == 5).all()), "a refused file changes nothing"
    applied = apply_weights(model, weights, allow_head_mismatch=True)
    assert applied.reshaped == ("2.weight", "2.bias")
    assert bool((model[0].weight == 2).all())
    assert bool((model[2].weight == 5).all())


def test_a_head_that_one_side_lacks_or_names_otherwise_is_allowed() -> None:
    body = {name: value for name, value in net().state_dict().items() if name[0] != "2"}
    applied = apply_weights(net(), body, allow_head_mismatch=True)
    assert applied.missing == ("2.weight", "2.bias")
    head = {"fc.weight": torch.zeros(9, 6), "fc.bias": torch.zeros(9)}
    applied = apply_weights(net(), body | head, allow_head_mismatch=True)
    assert applied.unexpected == ("fc.weight", "fc.bias")
    for weights in (body, body | head):
        with pytest.raises(WeightsMismatch):
            apply_weights(net(), weights, allow_head_mismatch=False)


def mlp(*widths: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


@pytest.mark.parametrize(
    ("here", "file"),
    [
        (mlp(3, 6, 4), mlp(3, 6, 6, 4)),  # one layer more in the file
        (mlp(3, 6, 6, 4), mlp(3, 6, 4)),  # one layer less
        (mlp(3, 6, 4), mlp(3, 8, 4)),  # wider: the head's inputs differ
        (mlp(3, 6, 4), mlp(1, 6, 4)),  # other channels
        # images of another size: the head alone differs, but not in its classes
        (
            nn.Sequential(nn.Conv2d(3, 6, 1), nn.Flatten(), nn.Linear(24, 4)),
            nn.Sequential(nn.Conv2d(3, 6, 1), nn.Flatten(), nn.Linear(54, 4)),
        ),
        (mlp(3, 6, 4), nn.Sequential(nn.Conv2d(3, 6, 1), nn.Linear(6, 4))),
    ],
)
def test_more_than_the_head_is_refused_also_where_the_head_may_differ(
    here: nn.Module, file: nn.Module
) -> None:
    before = {name: value.clone() for name, value in here.state_dict().items()}
    with pytest.raises(WeightsMismatch, match="Only the classifier's head may differ"):
        apply_weights(here, file.state_dict(), allow_head_mismatch=True)
    assert same(here.state_dict(), before)


def test_no_weights_at_all_are_a_mismatch() -> None:
    with pytest.raises(WeightsMismatch):
        apply_weights(net(), {}, allow_head_mismatch=True)


def test_the_first_ten_are_listed_and_the_rest_counted() -> None:
    here, file = mlp(*[3] * 9), mlp(*[4] * 8)
    with pytest.raises(WeightsMismatch) as caught:
        apply_weights(here, file.state_dict(), allow_head_mismatch=False)
    lines = str(caught.value).splitlines()
    assert "16 tensors differ, 0 agree" in lines[0]
    assert lines[1].strip() == "0.weight: 4×4 in the file, 3×3 here"
    assert lines[11].strip() == "and 6 more"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}), ("squeezenet1_0", {}), ("mobilenet_v3_small", {}),
        ("vit_b_16", {}), ("googlenet", {"init_weights": False, "aux_logits": True}),
    ],
)  # fmt: skip
def test_the_heads_of_torchvisions_models_are_found(name: str, options: Any) -> None:
    from torchvision import models

    with torch.device("meta"):
        weights = models.get_model(name, weights=None, **options).state_dict()
        model = models.get_model(name, weights=None, num_classes=7, **options)
    applied = apply_weights(model, weights, allow_head_mismatch=True)
    assert len(applied.reshaped) == (6 if name == "googlenet" else 2)
    assert all(weights[tensor].shape[0] == 1000 for tensor in applied.reshaped)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "resnet18"]
)
def test_the_heads_of_timms_models_are_found(name: str) -> None:
    timm = pytest.importorskip("timm")
    file, model, bare = (timm.create_model(name, num_classes=n) for n in (1000, 7, 0))
    applied = apply_weights(model, file.state_dict(), allow_head_mismatch=True)
    assert all(file.state_dict()[tensor].shape[0] == 1000 for tensor in applied.reshaped)
    assert len(applied.reshaped) == (4 if "distilled" in name else 2)
    if "distilled" not in name:  # whose two heads are more than its last layer
        applied = apply_weights(bare, file.state_dict(), allow_head_mismatch=True)
        assert len(applied.unexpected) == 2
