from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import stat
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from memfit.errors import (
    CheckpointError,
    DamagedCheckpoint,
    MemfitError,
    OtherVersion,
    UsageError,
)
from memfit.files.durable import link_or_copy, replacing, write_whole
from memfit.trainer.weights import checkpoint as checkpoint_module
from memfit.trainer.weights.checkpoint import content_bytes, load_checkpoint, save_checkpoint
from memfit.trainer.weights.checkpoints import Checkpoints


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def content(fill: float = 1.0) -> dict[str, Any]:
    model = net()
    for parameter in model.parameters():
        nn.init.constant_(parameter, fill)
    return {"model": model.state_dict(), "step": int(fill), "rng": torch.get_rng_state()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "a.pt"
    save_checkpoint(path, content())
    return path.read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damaged_reason(path: Path) -> str:
    with pytest.raises(DamagedCheckpoint) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    return caught.value.reason


# ---- what is stored comes back


def test_content_comes_back_and_the_size_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    written = content(7)
    assert save_checkpoint(path, written) == path.stat().st_size
    read = load_checkpoint(path)
    assert read.pop("schema_version") == 1
    assert read.keys() == written.keys()
    assert read["step"] == 7
    torch.testing.assert_close(read["model"], written["model"], rtol=0, atol=0)
    assert read["model"]._metadata == written["model"]._metadata
    assert "schema_version" not in written


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**1999), 2**1999)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from([torch.float16, torch.device("cpu"), torch.Size([2, 3]), 1j]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text("ab", max_size=3) | st.integers(), inner, max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40)
@given(value=plain)
def test_whatever_is_accepted_can_be_read_back(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    path = tmp_path_factory.mktemp("plain") / "a.pt"
    save_checkpoint(path, {"value": value})
    read = load_checkpoint(path)["value"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.zeros(2), "numpy.ndarray"),
        (np.float64(1), "numpy.float64"),
        (Path("a"), "Path"),
        (errno, "module"),
        (b"bytes", "bytes"),
        (2**2050, "int"),
        (OrderedDict(a=[np.int64(3)]), "content['value']['a'][0]"),
        ({Path("a"): 1}, "a key of content['value']"),
        (torch.empty(2, device="meta"), "meta device"),
    ],
)
def test_what_could_not_be_read_back_is_refused_when_written(
    tmp_path: Path, value: Any, named: str
) -> None:
    save_checkpoint(tmp_path / "a.pt", {"value": "old"})
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(tmp_path / "a.pt", {"value": value})
    assert named in str(caught.value)
    assert "content['value']" in str(caught.value)
    assert load_checkpoint(tmp_path / "a.pt")["value"] == "old"


def test_plain_pytorch_loads_it_in_two_lines(tmp_path: Path) -> None:
    path, model = tmp_path / "last.pt", net()
    save_checkpoint(path, content(3))
    for mmap in (False, True):
        state = torch.load(path, weights_only=True, mmap=mmap)
        assert str(model.load_state_dict(state["model"])) == "<All keys matched successfully>"
    assert all(bool((p == 3).all()) for p in model.parameters())


def test_it_is_a_valid_zip_file_whose_comment_is_the_seal(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        assert file.comment.startswith(b"memfit checkpoint 0001 sha256 ")


def test_tied_weights_stay_tied_and_count_once(tmp_path: Path) -> None:
    weight = torch.zeros(1000, 10)
    tied = {"model": {"a": weight, "b": weight, "c": [nn.Parameter(torch.zeros(5))]}}
    assert content_bytes(tied) == 40_000 + 20
    assert 40_000 < save_checkpoint(tmp_path / "a.pt", tied) < 50_000
    model = load_checkpoint(tmp_path / "a.pt")["model"]
    assert model["a"].data_ptr() == model["b"].data_ptr()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_of_a_gpu_are_stored_for_the_cpu_and_stay_tied(tmp_path: Path) -> None:
    weight = torch.randn(2, 3, 4, 4, device="cuda").to(memory_format=torch.channels_last)
    model = OrderedDict(a=weight, b=weight, c=nn.Parameter(weight[0]))
    save_checkpoint(tmp_path / "a.pt", {"model": model})
    read = torch.load(tmp_path / "a.pt", weights_only=True)["model"]
    for name, tensor in model.items():
        assert tensor.device.type == "cuda"
        assert read[name].device.type == "cpu"
        assert read[name].stride() == tensor.stride()
        assert torch.equal(read[name], tensor.cpu())
    assert read["a"].data_ptr() == read["b"].data_ptr()


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    fixed = content()
    save_checkpoint(tmp_path / "a.pt", fixed)
    save_checkpoint(tmp_path / "b.pt", fixed)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_the_file_has_the_rights_that_any_new_file_gets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_checkpoint(tmp_path / "a.pt", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.pt").stat().st_mode) == 0o640


# ---- damage


@settings(max_examples=60)
@given(data=st.data())
def test_every_truncation_is_detected(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.pt"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    damaged_reason(path)


@settings(max_examples=100)
@given(data=st.data())
def test_every_altered_byte_is_detected(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / "a.pt"
    altered = bytearray(whole)
    # the last 200 bytes are the zip's end and the seal: as likely as all the rest
    first = data.draw(st.sampled_from([0, len(whole) - 200]))
    altered[data.draw(st.integers(first, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(altered)
    damaged_reason(path)


def test_every_byte_of_the_zips_end_and_the_seal_counts(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for place in range(len(whole) - 120, len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 1
        path.write_bytes(altered)
        damaged_reason(path)


@pytest.mark.parametrize("more", [b"\0", b"x" * 500])
def test_bytes_after_the_end_are_detected(whole: bytes, tmp_path: Path, more: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(whole + more)
    assert "checksum" in damaged_reason(path)


def test_zeros_where_the_disk_lost_a_block_are_detected(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(whole[:512] + bytes(512) + whole[1024:])
    assert damaged_reason(path) == "its content does not agree with its checksum"


class Opens:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def test_foreign_files_are_refused_and_not_run(tmp_path: Path) -> None:
    path, victim = tmp_path / "a.pt", tmp_path / "victim"
    for write in (torch.save, lambda value, p: p.write_bytes(pickle.dumps(value))):
        write(Opens(victim), path)
        assert "not written by memfit" in damaged_reason(path) or "long" in damaged_reason(path)
    path.write_bytes(b"")
    assert damaged_reason(path) == "empty"
    assert not victim.exists()


def test_code_under_a_valid_seal_is_not_run(tmp_path: Path, monkeypatch: Any) -> None:
    path, victim = tmp_path / "a.pt", tmp_path / "victim"
    monkeypatch.setattr(checkpoint_module, "_storable", lambda value, *_: value)
    save_checkpoint(path, {"evil": Opens(victim)})
    assert "it holds a io.open" in damaged_reason(path)
    assert not victim.exists()


@pytest.mark.parametrize(("number", "age"), [(2, "newer"), (0, "older")])
def test_another_format_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, age: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "SCHEMA_VERSION", number)
        save_checkpoint(tmp_path / "a.pt", content())
    with pytest.raises(OtherVersion, match=rf"{age} memfit: checkpoint format {number}.*format 1"):
        load_checkpoint(tmp_path / "a.pt")
    # what the hint says works
    assert torch.load(tmp_path / "a.pt", weights_only=True)["model"]


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="directory"):
        load_checkpoint(tmp_path)


# ---- a place that cannot be written


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk; the file size limit is tested instead")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("elements", [70_000, 40_000])  # beyond the disk, and beyond what is left
def test_on_a_full_disk_the_old_one_survives(small_disk: Path, elements: int) -> None:
    path = small_disk / "a.pt"
    save_checkpoint(path, {"weights": torch.arange(25_000)})
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(path, {"weights": torch.zeros(elements)})
    message = str(caught.value)
    assert str(path) in message
    assert "No space left on device" in message
    assert f"about {elements * 4 / 1024:.1f} KiB needed" in message
    assert "56.0 KiB free" in message
    assert names(small_disk) == ["a.pt"]
    assert torch.equal(load_checkpoint(path)["weights"], torch.arange(25_000))


def test_on_a_full_disk_the_checkpoints_before_stay(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk)
    checkpoints.save(1, {"weights": torch.zeros(25_000)}, is_best=True)
    checkpoints.save(2, {"weights": torch.zeros(25_000)})
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.save(3, {"weights": torch.zeros(25_000)})
    assert checkpoints.steps() == [1, 2]
    assert checkpoints.newest()[0] == checkpoints.path(2)


def test_beyond_the_file_size_limit_the_old_one_survives(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"weights": torch.ones(3)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"File too large \(about 1.9 MiB needed, .* free"
        ):
            save_checkpoint(path, {"weights": torch.zeros(500_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["a.pt"]
    assert torch.equal(load_checkpoint(path)["weights"], torch.ones(3))


def test_a_disk_that_fails_at_the_flush_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "a.pt"
    save_checkpoint(path, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(CheckpointError, match="Input/output error"):
            save_checkpoint(path, {"a": 2})
    assert names(tmp_path) == ["a.pt"]
    assert load_checkpoint(path)["a"] == 1


def test_an_interruption_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_whole(path, b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:  # noqa: PT012
        file.write(b"ne")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["a.pt"]
    assert path.read_bytes() == b"old"


AS_NOBODY = """
import os, sys
from pathlib import Path
from memfit.errors import CheckpointError
from memfit.trainer.weights.checkpoint import load_checkpoint, save_checkpoint
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    save_checkpoint(Path(sys.argv[1]), {"a": 2})
except CheckpointError as error:
    print(error)
print(load_checkpoint(Path(sys.argv[1]))["a"])
save_checkpoint(Path(sys.argv[1]).parent.parent / "b.pt", {"a": 2})
"""


def test_a_folder_that_may_not_be_written_is_a_clear_error(open_folder: Path) -> None:
    path = open_folder / "sealed" / "a.pt"
    path.parent.mkdir()
    save_checkpoint(path, {"a": 1})
    path.parent.chmod(0o555)
    ran = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(path)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    path.parent.chmod(0o755)
    assert f"Cannot write the checkpoint {path}: Permission denied." in ran.stdout
    assert ran.stdout.endswith("\n1\n")
    assert (open_folder / "b.pt").exists(), "the rights were the reason"


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        save_checkpoint(tmp_path / "none" / "a.pt", {})


# ---- the checkpoints of a run


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=2)
    for step in (10, 20, 30, 40):
        assert checkpoints.save(step, {"step": step}, is_best=step == 20).name == (
            f"step-000000{step}.pt"
        )
    assert names(tmp_path) == ["best.pt", "last.pt", "step-00000030.pt", "step-00000040.pt"]
    assert load_checkpoint(checkpoints.best_path)["step"] == 20
    assert load_checkpoint(checkpoints.last_path)["step"] == 40
    assert checkpoints.newest()[1]["step"] == 40
    assert checkpoints.last_path.stat().st_ino == checkpoints.path(40).stat().st_ino


def test_the_same_step_can_be_written_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for value in (1, 2):
        checkpoints.save(5, {"value": value}, is_best=True)
    assert names(tmp_path) == ["best.pt", "last.pt", "step-00000005.pt"]
    for name in names(tmp_path):
        assert load_checkpoint(tmp_path / name)["value"] == 2


def test_linking_what_is_linked_already_leaves_no_third_name(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"x")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["a", "b"]


def test_a_disk_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuses)
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, {"step": step}, is_best=step == 1)
    assert names(tmp_path) == ["best.pt", "last.pt", "step-00000002.pt", "step-00000003.pt"]
    assert load_checkpoint(checkpoints.last_path)["step"] == 3
    assert load_checkpoint(checkpoints.best_path)["step"] == 1


def test_after_going_back_the_other_future_is_gone(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=3)
    for step in (10, 20, 30):
        checkpoints.save(step, {"run": 1})
    checkpoints.save(15, {"run": 2})
    assert checkpoints.steps() == [10, 15]
    assert checkpoints.newest()[1]["run"] == 2


def test_steps_of_nine_digits_sort_as_numbers(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(99_999_999, {})
    checkpoints.save(100_000_000, {})
    assert checkpoints.steps() == [99_999_999, 100_000_000]


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Checkpoints(tmp_path, keep_last=0)


def test_a_damaged_newest_is_reported_and_the_one_before_is_used(tmp_path: Path) -> None:
    checkpoints, told = Checkpoints(tmp_path), []
    for step in (1, 2):
        checkpoints.save(step, {"step": step})
    damaged = checkpoints.path(2)
    os.truncate(damaged, damaged.stat().st_size // 2)
    path, read = checkpoints.newest(lambda path, reason: told.append((path, reason)))
    assert (path, read["step"]) == (checkpoints.path(1), 1)
    assert [path for path, _ in told] == [damaged]  # last.pt is the same file: told once
    assert "truncated" in told[0][1]
    checkpoints.save(2, {"step": 2})
    assert checkpoints.newest()[0] == damaged


def test_a_whole_copy_under_another_name_is_used(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "a")
    checkpoints.folder.mkdir()
    checkpoints.save(1, {"step": 1}, is_best=True)
    checkpoints.save(2, {"step": 2})
    copied = Checkpoints(tmp_path / "b")
    shutil.copytree(checkpoints.folder, copied.folder)  # copies have no links
    copied.path(2).write_bytes(b"")
    assert copied.newest()[0] == copied.last_path
    copied.last_path.write_bytes(b"")
    copied.path(1).write_bytes(b"")
    assert copied.newest()[0] == copied.best_path


def test_when_all_are_damaged_every_reason_is_listed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, {"step": step})
    checkpoints.path(1).write_bytes(b"")
    os.truncate(checkpoints.path(2), 300)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.newest()
    message = str(caught.value)
    assert "step-00000001.pt: empty" in message
    assert "step-00000002.pt: its end" in message
    assert message.count("\n  ") == 2


def test_without_any_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        Checkpoints(tmp_path).newest()


def test_another_format_is_not_passed_over(tmp_path: Path, monkeypatch: Any) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "SCHEMA_VERSION", 2)
        checkpoints.save(2, {})
    with pytest.raises(OtherVersion):
        checkpoints.newest()


#: For each line that it reads it starts a process that saves for ever, and kills it: after as many
#: saves as the line says, and if it says so not before the next one has begun.
SAVES_AND_KILLS = """
import os, signal, sys, torch
from itertools import count
from pathlib import Path
from memfit.trainer.weights.checkpoints import Checkpoints
folder = Path(sys.argv[1])
torch.set_num_threads(1)
checkpoints = Checkpoints(folder)
for line in sys.stdin:
    saves, within = map(int, line.split())
    told, tells = os.pipe()
    child = os.fork()
    if child == 0:
        first = (checkpoints.steps() or [0])[-1] + 1
        for step in count(first):
            content = {"step": step, "w": torch.full((1_000_000,), step)}
            checkpoints.save(step, content, step % 3 == 0)
            os.write(tells, step.to_bytes(8, "big"))
    for _ in range(saves):
        step = int.from_bytes(os.read(told, 8), "big")
    while within and not any(folder.glob(".*")):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(step, flush=True)
"""


def test_killed_while_it_saves_the_newest_always_loads(tmp_path: Path) -> None:
    checkpoints, leftovers = Checkpoints(tmp_path), 0
    with subprocess.Popen(
        [sys.executable, "-c", SAVES_AND_KILLS, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as killer:  # fmt: skip
        assert killer.stdin is not None
        assert killer.stdout is not None
        for kill in range(10):
            killer.stdin.write(f"{1 + kill % 4} {int(kill % 4 > 0)}\n")
            killer.stdin.flush()
            acknowledged = int(killer.stdout.readline())
            leftovers += len(checkpoints.remove_leftovers())
            path, read = checkpoints.newest(lambda path, reason: pytest.fail(f"{path}: {reason}"))
            assert read["step"] >= acknowledged
            assert bool((read["w"] == read["step"]).all())
            assert path == checkpoints.path(read["step"])
            for further in (checkpoints.last_path, checkpoints.best_path):
                if further.exists():
                    load_checkpoint(further)
            assert not [name for name in names(tmp_path) if name.startswith(".")]
    assert leftovers > 0, "no kill met a save"


def test_all_errors_are_memfits_own() -> None:
    error = DamagedCheckpoint("a.pt", "empty")
    assert isinstance(error, MemfitError)
    assert error.exit_code == 1
    assert str(error) == "a.pt is no usable checkpoint: empty."
