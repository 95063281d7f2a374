"""Live GPU memory against a plan, with NVML's answers faked."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from memfit.cards.readings import GPUReading, ProcessReading, read_gpus
from memfit.cli import main
from memfit.errors import NoGPU
from memfit.report.console.terminal import as_text
from memfit.report.watch import UsedSoFar, WatchGoal, render_readings
from memfit.units import GIB, MIB

TOTAL = 12 * GIB


class FakeNVMLError(Exception):
    """Stands in for pynvml's."""


class FakeNotSupported(FakeNVMLError):
    """Stands in for pynvml's."""


def process(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


def fake_nvml(*, count: int = 1, used: int = 7 * GIB, compute=(), graphics=()) -> SimpleNamespace:
    memory = SimpleNamespace(
        total=TOTAL + 300 * MIB, reserved=300 * MIB, used=used, free=TOTAL - used
    )
    calls: list[str] = []
    return SimpleNamespace(
        calls=calls,
        NVMLError=FakeNVMLError,
        NVMLError_NotSupported=FakeNotSupported,
        nvmlMemory_v2=2,
        nvmlInit=lambda: calls.append("init"),
        nvmlShutdown=lambda: calls.append("shutdown"),
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: f"NVIDIA Test {handle}",
        nvmlDeviceGetMemoryInfo=lambda handle, version: memory,
        NVML_CLOCK_MEM=2,
        nvmlDeviceGetCudaComputeCapability=lambda handle: (8, 6),
        nvmlDeviceGetNumGpuCores=lambda handle: 3584,
        nvmlDeviceGetMaxClockInfo=lambda handle, clock: 7501,
        nvmlDeviceGetMemoryBusWidth=lambda handle: 192,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: list(compute),
        nvmlDeviceGetGraphicsRunningProcesses=lambda handle: list(graphics),
    )


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    def put(nvml: SimpleNamespace) -> SimpleNamespace:
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        return nvml

    return put


def test_processes_are_named_the_largest_first(install) -> None:
    me = os.getpid()
    small, large = process(1 << 30, GIB), process(me, 5 * GIB)
    nvml = install(fake_nvml(compute=[small, large], graphics=[process(me, 4 * GIB)]))
    (reading,) = read_gpus()
    assert [p.pid for p in reading.processes] == [me, 1 << 30]
    assert reading.processes[0].used_bytes == 5 * GIB  # in both of the driver's lists, once here
    assert "python" in reading.processes[0].command
    assert reading.processes[1].command == ""  # no such process: not readable, not an error
    assert reading.total_bytes == TOTAL
    assert reading.unattributed_bytes == GIB
    assert nvml.calls == ["init", "shutdown"]


def test_memory_that_the_driver_does_not_tell_is_none(install) -> None:
    install(fake_nvml(compute=[process(os.getpid(), None)]))
    (reading,) = read_gpus(0)
    assert reading.processes[0].used_bytes is None


def test_one_gpu_of_several(install) -> None:
    install(fake_nvml(count=3))
    assert [r.index for r in read_gpus()] == [0, 1, 2]
    assert [r.name for r in read_gpus(2)] == ["NVIDIA Test 2"]
    with pytest.raises(NoGPU, match="no GPU 3"):
        read_gpus(3)


@pytest.mark.parametrize("failing", ["nvmlInit", "nvmlDeviceGetHandleByIndex"])
def test_a_driver_that_does_not_answer_is_an_error(install, failing: str) -> None:
    def refuse(*_: object) -> None:
        raise FakeNVMLError("Driver Not Loaded")

    nvml = install(fake_nvml())
    setattr(nvml, failing, refuse)
    with pytest.raises(NoGPU, match="Driver Not Loaded"):
        read_gpus()


def test_a_driver_without_a_list_of_processes_still_tells_memory(install) -> None:
    def refuse(_: object) -> None:
        raise FakeNotSupported

    nvml = install(fake_nvml())
    nvml.nvmlDeviceGetComputeRunningProcesses = refuse
    (reading,) = read_gpus()
    assert reading.processes == ()
    assert reading.unattributed_bytes == 7 * GIB


def test_a_driver_that_does_not_tell_the_memory(install) -> None:
    nvml = install(fake_nvml())
    nvml.nvmlDeviceGetMemoryInfo = lambda handle, version: SimpleNamespace(
        total=0, reserved=0, used=0, free=0
    )
    with pytest.raises(NoGPU, match="does not tell the memory"):
        read_gpus()


def test_without_a_gpu_it_says_so(install, capsys: pytest.CaptureFixture[str]) -> None:
    install(fake_nvml(count=0))
    assert main(["watch"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "sees no GPU" in said.err
    assert "memfit plan" in said.err


def test_lines_in_a_pipe(install, capsys: pytest.CaptureFixture[str]) -> None:
    install(fake_nvml(used=11 * GIB, compute=[process(os.getpid(), 10 * GIB)]))
    assert main(["watch", "--count", "2", "--interval", "0.001"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.startswith("GPU 0, 11.00 GiB of 12.00 GiB, 92%, 1.40 GiB above the 80% line")
    assert f"pid {os.getpid()} 10.00 GiB" in first


def test_against_a_plan_as_json(install, tmp_path: Path, capsys) -> None:
    install(fake_nvml(compute=[process(os.getpid(), 3 * GIB)]))
    assert main(["plan", "mlp", "--batch-size", "64", "--gpu", "12GiB", "--json", "--quick"]) == 0
    planned = capsys.readouterr().out
    (tmp_path / "plan.json").write_text(planned)
    for where in (tmp_path, tmp_path / "plan.json"):
        assert main(["watch", str(where), "--count", "1", "--json"]) == 0
        look = json.loads(capsys.readouterr().out)
        assert look["plan"]["total_bytes"] == json.loads(planned)["at"]["total_bytes"]
        assert look["gpus"][0]["safe_bytes"] == int(0.8 * TOTAL)
    assert main(["watch", "mlp", "--batch-size", "64", "--count", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["batch_size"] == 64


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--interval", "0"], "--interval"),
        (["--count", "0"], "--count"),
        (["--batch-size", "4"], "--batch-size needs a model"),
        (["missing.json"], "Cannot read the plan"),
        (["--safety", "2"], "safety"),
    ],
)
def test_bad_input(
    install, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    install(fake_nvml())
    assert main(["watch", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_is_no_plan(install, tmp_path: Path, capsys) -> None:
    install(fake_nvml())
    numbers = '"at": {"batch_size": 1, "total_bytes": %d}, "recipe": {"safety": %s}'
    nothing, too_safe = (
        f'{{"model": {{"name": "m"}}, {numbers % values}}}' for values in ((0, "0.8"), (1, "1e999"))
    )
    for content in ("[1]", "{}", "\x00", '{"at": {"batch_size": "many"}}', nothing, too_safe):
        (tmp_path / "p.json").write_text(content)
        assert main(["watch", str(tmp_path / "p.json")]) == 2
        assert "is no plan" in capsys.readouterr().err


def drawn(width: int, encoding: str, goal: WatchGoal) -> str:
    reading = GPUReading(
        0, "NVIDIA GeForce RTX 3060", TOTAL, 10 * GIB,
        (ProcessReading(7, "python train.py\x1b[2J --data images", 6 * GIB),
         ProcessReading(8, "", None)),
    )  # fmt: skip
    used = UsedSoFar()
    for size in (GIB, 11 * GIB, 10 * GIB):
        used.add(size)
    console = Console(
        width=width, file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), highlight=False
    )
    return as_text(console, render_readings([reading], goal, {0: used}, console))


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_screen(width: int, encoding: str) -> None:
    text = drawn(width, encoding, WatchGoal(0.8, "resnet50", 64, 9 * GIB))
    assert max(len(line) for line in text.splitlines()) <= max(width, 20)
    assert "\x1b[2J" not in text
    if width >= 80:
        assert "409.6 MiB above the 80% line" in text
        assert "highest seen 11.00 GiB" in text
        assert "67% of 9.00 GiB" in text
        assert "plan 9.00 GiB" in text
        assert "not told" in text


def test_the_history_is_bounded() -> None:
    used = UsedSoFar()
    for size in range(1000, 0, -1):
        used.add(size)
    assert used.highest_bytes == 1000
    assert len(used.recent_bytes) < 100
