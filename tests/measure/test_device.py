"""The CUDA calls, on a stand-in that records them; the same steps on the CPU and, if any, a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from memfit.cards.readings import GPUReading, ProcessReading
from memfit.errors import StepError
from memfit.measure.device import CpuDevice, CudaDevice, MeasuredScaler
from memfit.measure.process import PLAIN_STEPS
from memfit.measure.readings import Use, use_of
from memfit.measure.steps import Subject, measure_plain, measure_recorded
from memfit.measure.target import choose_target
from memfit.memory.tape.tape import Part
from memfit.recipe.recipe import Recipe
from memfit.step.job import resolve
from memfit.trainer.step.devices import MemoryPeaks
from memfit.units import MIB

SMALL = Recipe(model="mlp", input_shape=(1, 8, 8), optimizer={"name": "sgd", "momentum": 0.9})


class FakeCuda:
    """``torch.cuda`` as far as it is called, with figures of its own."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.is_started = False
        self.step = 0
        self.memory = SimpleNamespace(
            _record_memory_history=lambda *a, **k: self.calls.append(("history", a, k)),
            _snapshot=lambda: {"device_traces": [[]], "segments": []},
        )

    def init(self) -> None:
        self.is_started = True
        self.calls.append("init")

    def is_initialized(self) -> bool:
        return self.is_started

    def set_device(self, index: int) -> None:
        self.calls.append(("set_device", index))

    def set_per_process_memory_fraction(self, fraction: float, index: int) -> None:
        assert isinstance(fraction, float)  # torch refuses anything else
        self.calls.append(("fraction", fraction, index))

    def synchronize(self, index: int) -> None:
        self.calls.append("synchronize")

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")

    def _get_nvml_device_index(self, index: int) -> int:
        return index + 1

    def max_memory_allocated(self, index: int) -> int:
        return (100 + self.step) * MIB

    def max_memory_reserved(self, index: int) -> int:
        return 200 * MIB

    def reset_peak_memory_stats(self, index: int) -> None:
        self.step += 1

    def memory_stats(self, index: int) -> dict[str, int]:
        return {"num_alloc_retries": 3}

    def memory_stats_as_nested_dict(self, index: int) -> dict[str, Any]:
        return {"allocation": {"all": {"allocated": 42}}}

    def Event(self, *, enable_timing: bool) -> Any:  # as in torch
        assert enable_timing
        number = sum(call == "record" for call in self.calls)
        return SimpleNamespace(
            number=number,
            record=lambda: self.calls.append("record"),
            elapsed_time=lambda other: 10.0 * (other.number - number),  # milliseconds
        )


class FakeCudaDevice(CudaDevice):
    """Its tensors are on the CPU."""

    def __init__(self, read: Callable[..., Use | None], fraction: float = 1.0) -> None:
        self.fake = FakeCuda()
        super().__init__(fraction, self.fake, read)
        self.device = torch.device("cpu")


def driver(*used: int | None) -> Callable[[int, Use | None], Use | None]:
    """Readings one after the other, in MiB."""
    left = list(used)

    def read(index: int, before: Use | None) -> Use | None:
        assert index == 1  # NVML's number, not CUDA's
        size = left.pop(0)
        return None if size is None else Use(size * MIB, None, (), before)

    return read


def small() -> Subject:
    return Subject.of(resolve(SMALL, card=choose_target("cpu:64MiB").card))


def test_contexts_and_the_whole_gpu_come_from_the_driver() -> None:
    device = FakeCudaDevice(driver(5, 305, 655), fraction=0.5)
    found = measure_plain(small(), device, 4, PLAIN_STEPS)
    assert found["gpu_idle_bytes"] == 5 * MIB
    assert found["bare_context_bytes"] == 300 * MIB
    assert found["context_bytes"] == (655 - 5 - 200) * MIB
    assert found["gpu_used_bytes"] == 650 * MIB
    assert (
        found["peak_allocated_bytes"] == (100 + PLAIN_STEPS) * MIB
    )  # of all steps; one more at each reset, the first at the start
    assert found["retries"] == 3
    assert found["step_seconds"] == pytest.approx(0.010)
    assert ("fraction", 0.5, 0) in device.fake.calls
    first = device.fake.calls.index("init")
    assert device.fake.calls.index(("fraction", 0.5, 0)) > first
    assert "empty_cache" in device.fake.calls


@pytest.mark.parametrize("readings", [(None, None, None), (None, 300, 600)])
def test_without_a_reading_from_before_nothing_is_said_of_the_whole_gpu(readings: Any) -> None:
    found = measure_plain(small(), FakeCudaDevice(driver(*readings)), 4, PLAIN_STEPS)
    for name in ("bare_context_bytes", "context_bytes", "gpu_used_bytes", "gpu_idle_bytes"):
        assert found[name] is None
    assert found["peak_reserved_bytes"] == 200 * MIB


@pytest.mark.parametrize("error", [RuntimeError, OSError, IndexError, AttributeError])
def test_no_number_of_the_gpu_is_no_reading(error: type[Exception]) -> None:
    """A MIG slice, no NVML library, CUDA_VISIBLE_DEVICES with nothing in it."""
    device = FakeCudaDevice(driver())

    def fail(_index: int) -> int:
        raise error("no number")

    device.fake._get_nvml_device_index = fail  # type: ignore[method-assign]
    device.start()
    assert device.use() is None


def test_the_history_begins_before_the_model_and_has_no_stacks() -> None:
    device = FakeCudaDevice(driver(5, 5))
    device.start()
    recorder = device.recorder()
    assert ("history", ("all",), {"context": None, "stacks": "python"}) in device.fake.calls
    assert recorder.base == 42
    assert device.tape(recorder).events == ()
    assert device.fake.calls[-1] == ("history", (None,), {})  # and ends


def test_on_the_cpu_the_plain_and_the_recorded_run_agree() -> None:
    plain = measure_plain(small(), CpuDevice(64 * MIB), 8, PLAIN_STEPS)
    recorded = measure_recorded(small(), CpuDevice(64 * MIB), 8)
    assert recorded["recorded_allocated_bytes"] == plain["peak_allocated_bytes"]
    assert recorded["replayed_reserved_bytes"] == plain["peak_reserved_bytes"]
    assert plain["steady_allocated_bytes"] <= plain["peak_allocated_bytes"]
    assert plain["gpu_used_bytes"] is plain["context_bytes"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "amp-fp16", "clip_grad_norm": 1.0},
        {"precision": "bf16", "ema": True},
        {"accumulation": 3, "zero_grad": "zero", "optimizer": "adam"},
        {"data": "shapes", "input_shape": None, "augment": ("mixup=0.2",)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_measured_step_is_the_planned_one(changes: dict[str, Any]) -> None:
    import memfit

    recipe = SMALL.but(**changes)
    target = choose_target("cpu:64MiB")
    found = measure_recorded(Subject.of(resolve(recipe, card=target.card)), CpuDevice(64 * MIB), 8)
    parts = memfit.plan(recipe, gpu=target.card, verify=False).at(8).parts
    assert found["parts"][Part.PARAMETERS] == parts[Part.PARAMETERS]
    if recipe.data is None:  # the CPU's loader makes its batch from what is there already
        assert found["parts"][Part.BATCH] == parts[Part.BATCH]
    # on the CPU Adam counts its steps in tensors beside the others
    assert abs(found["parts"][Part.OPTIMIZER] - parts[Part.OPTIMIZER]) < 100


def test_the_scaler_never_skips_the_first_step() -> None:
    weight = torch.nn.Parameter(torch.full((4,), 100.0))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = MeasuredScaler("cpu")
    scaler.scale((weight * 1e36).sum()).backward()  # times 65,536 it would be infinite
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert (weight < 0).all()


def reading(*processes: tuple[int, str, int | None]) -> GPUReading:
    rows = tuple(ProcessReading(*process) for process in processes)
    return GPUReading(0, "GPU", 1000, 500, rows)


def test_who_else_is_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 7)
    before = use_of(reading((1, "/usr/bin/python secret.py", 100)), None)
    after = use_of(reading((1, "/usr/bin/python secret.py", 100), (7, "python", 300)), before)
    assert after.own_bytes == 300
    assert after.others == ("python (pid 1)",)  # without its arguments
    later = use_of(reading((7, "python", 300), (9, "game", 50)), use_of(reading(), None))
    assert later.others == ("game (pid 9)",)
    assert later.own_bytes == 300  # the driver lists it, whoever else is there


def test_beside_others_a_difference_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 7)
    alone = use_of(reading((7, "python", None)), use_of(reading(), None))
    assert alone.own_bytes == 0  # what the GPU holds more than before
    beside = use_of(reading((7, "python", None), (9, "game", None)), use_of(reading(), None))
    assert beside.own_bytes is None


def test_in_a_container_one_new_process_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 7)
    before = use_of(reading(), None)
    assert use_of(reading((4001, "", None)), before).others == ()
    assert use_of(reading((4001, "", None), (4002, "", None)), before).others == (
        "a process (pid 4002)",
    )


def test_a_step_that_the_scaler_leaves_out_is_no_measurement() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    scaler = MeasuredScaler("cpu")
    scaler.scale((weight * torch.inf).sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(StepError, match="not finite"):
        scaler.step(optimizer)
    assert not optimizer.state


def test_the_cpu_runs_out_of_its_budget() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        measure_plain(small(), CpuDevice(1 * MIB), 8, PLAIN_STEPS)


def test_limits_hold_only_inside() -> None:
    optimizer_hooks = import_module("torch.optim.optimizer")
    device = CpuDevice(64 * MIB)
    with device.running():
        assert "cpu" in optimizer_hooks._get_foreach_kernels_supported_devices()
    assert "cpu" not in optimizer_hooks._get_foreach_kernels_supported_devices()
    assert device.peaks == MemoryPeaks(0, 0)
    assert isinstance(CudaDevice().running(), nullcontext)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_real_gpu() -> None:
    from memfit.measure.process import Process, run_process

    target = choose_target()
    plain = run_process(Process(SMALL, target, 64))
    recorded = run_process(Process(SMALL, target, 64, is_recorded=True))
    assert plain["status"] == recorded["status"] == "ok", (plain, recorded)
    assert plain["peak_reserved_bytes"] >= plain["peak_allocated_bytes"] > 0
    assert plain["context_bytes"] >= 32 * MIB
    assert recorded["recorded_allocated_bytes"] == plain["peak_allocated_bytes"]
    assert recorded["parts"]["parameters"] > 0
