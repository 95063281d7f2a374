"""The transactional step, against plain PyTorch and against a run with the smaller size."""

from __future__ import annotations

import doctest
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import memfit
from memfit.errors import DoesNotFit, StepError, UsageError
from memfit.memory.recording.cpu_budget import CpuBudget
from memfit.memory.tape.tape import Phase
from memfit.trainer.recovery import recover
from memfit.trainer.recovery.transaction import (
    MicroBatchEvent,
    batch_dependent_layers,
    even_slices,
    fit_micro_batch,
)

BATCH = 12
PLENTY = 1024**3
Build = Callable[[], nn.Module]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 4))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)
    )


def dropout() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Dropout(), nn.Linear(32, 4))


def batch_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten(),
        nn.Linear(216, 4),
    )  # fmt: skip


BUILDS: dict[str, Build] = {"mlp": mlp, "cnn": cnn, "dropout": dropout, "batch_norm": batch_norm}


def batch(step: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, 3, 8, 8, generator=generator)
    return images, torch.randint(0, 4, (BATCH,), generator=generator)


class Run:
    """A model, its optimizer and its transactional step, from the same seed every time."""

    def __init__(self, build: Build, sizes: int | tuple[int, ...], **options: Any) -> None:
        torch.manual_seed(0)
        self.model = build()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        options = {"grow_after": None} | options
        self.fitting = fit_micro_batch(self.model, self.optimizer, sizes, **options)
        torch.manual_seed(1)

    def loss(self, step: int) -> Callable[[slice], Tensor]:
        images, labels = batch(step)
        return lambda part: F.cross_entropy(self.model(images[part]), labels[part])

    def backward(self, step: int = 0, compute: Callable[[slice], Tensor] | None = None) -> Tensor:
        self.optimizer.zero_grad()
        return self.fitting.backward(BATCH, compute or self.loss(step))

    def gradients(self) -> list[Tensor]:
        return [p.grad.clone() for p in self.model.parameters() if p.grad is not None]

    def tensors(self) -> list[Tensor]:
        return [*self.model.state_dict().values(), torch.get_rng_state()]


def failing(
    compute: Callable[[slice], Tensor], budget: CpuBudget, call: int, phase: Phase, after: int
) -> Callable[[slice], Tensor]:
    """Ask for a failure in the ``call``-th micro-batch."""
    calls = iter(range(1, 10_000))

    def wrapped(part: slice) -> Tensor:
        if next(calls) == call:
            budget.fail(phase, after)
        return compute(part)

    return wrapped


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


@contextmanager
def budget_for(run: Run, capacity_bytes: int = PLENTY) -> Iterator[CpuBudget]:
    with CpuBudget(capacity_bytes) as budget:
        budget.adopt(run.model)
        yield budget


# -- what a step is ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [12, 5, 1])
def test_is_plain_accumulation(size: int) -> None:
    run, plain = Run(mlp, (size,)), Run(mlp, (size,))
    loss = run.backward()
    expected = torch.zeros(())
    for part in even_slices(BATCH, size):
        share = (part.stop - part.start) / BATCH
        one = plain.loss(0)(part) * share if share != 1 else plain.loss(0)(part)
        one.backward()
        expected = expected + one.detach()
    assert equal(run.gradients(), plain.gradients())
    assert torch.equal(loss, expected)
    assert not loss.requires_grad
    whole = Run(mlp, (BATCH,))
    whole.backward()
    for one, other in zip(run.gradients(), whole.gradients(), strict=True):
        torch.testing.assert_close(one, other)


@given(st.integers(1, 300), st.integers(1, 300))
def test_slices_cover_everything_evenly(count: int, size: int) -> None:
    parts = even_slices(count, size)
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    lengths = {part.stop - part.start for part in parts}
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) == -(-count // size)


def test_a_scaler_scales_each_loss_before_its_backward() -> None:
    run, scaled = Run(mlp, (4,)), Run(mlp, (4,), scale=lambda loss: loss * 1024)
    assert torch.equal(run.backward(), scaled.backward()), "the loss that is told is not scaled"
    assert equal([g * 1024 for g in run.gradients()], scaled.gradients())


# -- recovery ---------------------------------------------------------------------------------

INJECTIONS = [
    pytest.param(call, phase, after, id=f"{phase}-micro-batch-{call}-allocation-{after}")
    for call in (1, 2)
    for phase, after in (
        (Phase.FORWARD, 1),
        (Phase.FORWARD, 4),
        (Phase.BACKWARD, 1),
        (Phase.BACKWARD, 3),
    )
]


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize(("call", "phase", "after"), INJECTIONS)
def test_a_recovered_step_is_the_smaller_ones(
    name: str, call: int, phase: Phase, after: int
) -> None:
    small = Run(BUILDS[name], (3,))
    loss = small.backward()
    gradients, tensors = small.gradients(), small.tensors()
    run = Run(BUILDS[name], (6, 3))
    with budget_for(run) as budget:
        recovered = run.backward(0, failing(run.loss(0), budget, call, phase, after))
        assert not budget.is_failure_pending
    assert equal(run.gradients(), gradients)
    assert equal(run.tensors(), tensors), "buffers or random state"
    assert torch.equal(recovered, loss)
    (event,) = run.fitting.events
    assert (event.step, event.phase, event.from_size, event.to_size) == (0, str(phase), 6, 3)
    assert "virtual budget" in event.message


@pytest.mark.parametrize("name", BUILDS)
def test_training_goes_on_as_with_the_smaller_size(name: str) -> None:
    run, small = Run(BUILDS[name], (BATCH, 4)), Run(BUILDS[name], (4,))
    for step in range(4):
        small.backward(step)
        small.optimizer.step()
    small_tensors = small.tensors()
    torch.manual_seed(1)
    with budget_for(run) as budget:
        for step in range(4):
            compute = run.loss(step)
            if step == 0:
                compute = failing(compute, budget, 1, Phase.BACKWARD, 2)
            run.backward(step, compute)
            run.optimizer.step()
    assert run.fitting.size == 4
    assert equal(run.tensors(), small_tensors)


def test_a_real_lack_of_memory_finds_the_size_that_fits() -> None:
    def large() -> nn.Module:
        return nn.Sequential(
            nn.Upsample(scale_factor=8), nn.Conv2d(3, 96, 3), nn.ReLU(), nn.AvgPool2d(31),
            nn.Flatten(), nn.Linear(384, 4),
        )  # fmt: skip

    small, run = Run(large, (3,)), Run(large, (12, 6, 3, 1))
    small.backward()
    with budget_for(run, 24 * 1024**2) as budget:
        run.backward()
        assert budget.max_reserved_bytes <= budget.capacity_bytes
    assert [event.to_size for event in run.fitting.events] == [6, 3]
    assert equal(run.gradients(), small.gradients())


@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(BUILDS)),
    failures=st.lists(
        st.tuples(
            st.integers(1, 6),
            st.sampled_from([Phase.FORWARD, Phase.BACKWARD]),
            st.integers(1, 30),
        ),
        max_size=3,
    ),
)
def test_wherever_it_fails(name: str, failures: list[tuple[int, Phase, int]]) -> None:
    run = Run(BUILDS[name], (12, 6, 5, 2))
    with budget_for(run) as budget:
        compute = run.loss(0)
        for failure in failures:
            compute = failing(compute, budget, *failure)
        run.backward(0, compute)
    recovered = [*run.gradients(), *run.tensors()]
    small = Run(BUILDS[name], (run.fitting.size,))
    small.backward()
    assert equal(recovered, [*small.gradients(), *small.tensors()])
    assert len(run.fitting.events) <= len(failures)


# -- gradients that were there ------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.FORWARD, Phase.BACKWARD])
def test_earlier_gradients_survive(phase: Phase) -> None:
    small, run = Run(mlp, (6,)), Run(mlp, (BATCH, 6))
    for step in (0, 1):
        small.fitting.backward(BATCH, small.loss(step))
    run.fitting._sizes._take(1, 0, "growth", "")
    run.fitting.backward(BATCH, run.loss(0))
    run.fitting._sizes._take(0, 0, "growth", "")
    first = [p.grad for p in run.model.parameters()]
    with budget_for(run) as budget:
        run.fitting.backward(BATCH, failing(run.loss(1), budget, 1, phase, 2))
    assert equal(run.gradients(), small.gradients())
    assert all(p.grad is g for p, g in zip(run.model.parameters(), first, strict=True))


def test_zeros_and_none_are_set_back() -> None:
    run = Run(mlp, (6,))
    parameters = list(run.model.parameters())
    zeros = parameters[0].grad = torch.zeros_like(parameters[0])
    filled = []

    def compute(part: slice) -> Tensor:
        if part.start:
            filled.append(zeros.count_nonzero().item())
            raise torch.OutOfMemoryError("no room")
        return run.loss(0)(part)

    with pytest.raises(DoesNotFit):
        run.fitting.backward(BATCH, compute)
    assert filled[0] > 0, "the first micro-batch left its gradient"
    assert parameters[0].grad is zeros
    assert zeros.count_nonzero() == 0
    assert all(p.grad is None for p in parameters[1:])


# -- what is let go -----------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.FORWARD, Phase.BACKWARD])
def test_nothing_of_the_step_lives_when_the_cache_is_released(phase: Phase) -> None:
    seen: list[tuple[int, int]] = []
    outputs: list[weakref.ref[Tensor]] = []
    errors: list[BaseException] = []

    def release() -> None:
        seen.append((budget.allocated_bytes, sum(ref() is not None for ref in outputs)))
        budget.empty_cache()

    run = Run(cnn, (BATCH, 3), release_cache=release)
    images, labels = batch()

    def compute(part: slice) -> Tensor:
        try:
            hidden = run.model[:3](images[part])
            outputs.append(weakref.ref(hidden))
            return F.cross_entropy(run.model[3:](hidden), labels[part])
        except RuntimeError as error:
            errors.append(error)  # its frames would keep `hidden`
            raise

    with budget_for(run) as budget:
        run.fitting._has_state = True
        before = budget.allocated_bytes
        run.backward(0, failing(compute, budget, 1, phase, 5))
        assert not budget.is_failure_pending
    assert seen == [(before, 0)]
    assert outputs
    assert len(errors) == (phase is Phase.FORWARD)


# -- the end of the ladder ------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDS)
def test_when_nothing_fits_all_is_as_before(name: str) -> None:
    run = Run(BUILDS[name], (4, 2))
    run.backward()
    run.optimizer.step()
    before = [*run.gradients(), *run.tensors()]

    def compute(part: slice) -> Tensor:
        run.loss(1)(part).backward()
        raise torch.OutOfMemoryError("no\nroom")

    with pytest.raises(DoesNotFit, match=r"micro-batch of 2 fits.*: no\n") as error:
        run.fitting.backward(BATCH, compute)
    assert error.value.__context__ is None
    assert error.value.hint
    assert equal([*run.gradients(), *run.tensors()], before)


def test_a_batch_smaller_than_the_size_shrinks_below_itself() -> None:
    run = Run(mlp, (64, 32, 16, 4))
    with budget_for(run) as budget:
        run.backward(0, failing(run.loss(0), budget, 1, Phase.FORWARD, 1))
    assert [(e.from_size, e.to_size) for e in run.fitting.events] == [(64, 4)]


# -- other errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm`"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("CUDA out of memory"),
        KeyboardInterrupt(),
    ],
    ids=str,
)
def test_other_errors_pass_through(error: BaseException) -> None:
    run = Run(mlp, 8)

    def compute(part: slice) -> Tensor:
        raise error

    with pytest.raises(type(error)) as caught:
        run.backward(0, compute)
    assert caught.value is error
    assert run.fitting.size == 8


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "CUDA driver error: out of memory",
        "HIP out of memory. Tried to allocate 2.00 GiB.",
        "MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB).",
        "[enforce fail at alloc_cpu.cpp:127] err == 0. "
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.",
        "cuDNN SDPA execution failed with error code 5: err 2 != CUDA_SUCCESS\n"
        "CUDA ran out of memory outside PyTorch's allocator. If this workload",
    ],
)
def test_libraries_that_could_not_allocate_are_out_of_memory(text: str) -> None:
    run = Run(mlp, (6, 3))
    calls = []

    def compute(part: slice) -> Tensor:
        calls.append(part)
        if len(calls) == 1:
            raise RuntimeError(text)
        return run.loss(0)(part)

    run.backward(0, compute)
    (event,) = run.fitting.events
    assert event.message == text.splitlines()[0]


@pytest.mark.parametrize("loss", [torch.ones(2), 1.0])
def test_a_loss_must_be_one_number(loss: Any) -> None:
    with pytest.raises(StepError, match="one number"):
        Run(mlp, 4).backward(0, lambda part: loss)


@pytest.mark.parametrize("bad", [0, -3, (), (4, 4), (2, 4), (4, 0)])
def test_bad_sizes_are_usage_errors(bad: Any) -> None:
    with pytest.raises(UsageError, match="no micro-batches"):
        Run(mlp, bad)


def test_other_bad_input_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="grow_after=0"):
        Run(mlp, 4, grow_after=0)
    run = Run(mlp, 4)
    with pytest.raises(UsageError, match="0 samples"):
        run.fitting.backward(0, run.loss(0))


# -- growing back -----------------------------------------------------------------------------


def test_grows_back_and_waits_twice_as_long_when_that_fails() -> None:
    heard: list[MicroBatchEvent] = []
    run = Run(mlp, (12, 6, 3), grow_after=2, on_event=heard.append)
    most = 6  # what "fits"
    used = []

    def compute(part: slice) -> Tensor:
        if part.stop - part.start > most:
            raise torch.OutOfMemoryError("too large")
        return run.loss(0)(part)

    for _ in range(16):
        run.backward(0, compute)
        used.append(run.fitting.size)
    told = [(e.step, e.phase, e.to_size) for e in run.fitting.events]
    assert told == [
        (0, "forward", 6),
        (2, "growth", 12),
        (2, "forward", 6),
        (6, "growth", 12),  # four clean steps
        (6, "forward", 6),
        (14, "growth", 12),  # eight
        (14, "forward", 6),
    ]
    assert heard == run.fitting.events
    most = 12
    for _ in range(20):
        run.backward(0, compute)
    assert run.fitting.size == 12
    assert run.fitting.events[-1].phase == "growth"


def test_a_size_that_has_held_does_not_double_the_wait() -> None:
    run = Run(mlp, (12, 6), grow_after=1)
    limits = iter([6, 6, 12, 6, 6, 12, 12])
    for _ in range(3):
        limit = next(limits)
        run.backward(0, limited(run, limit))
    assert run.fitting._wait == 2, "the first trial failed at once"
    run = Run(mlp, (12, 6), grow_after=1)
    for limit in (6, 12, 6):
        run.backward(0, limited(run, limit))
    assert run.fitting._wait == 1


def limited(run: Run, most: int) -> Callable[[slice], Tensor]:
    def compute(part: slice) -> Tensor:
        if part.stop - part.start > most:
            raise torch.OutOfMemoryError("too large")
        return run.loss(0)(part)

    return compute


def test_never_grows_when_told_so() -> None:
    run = Run(mlp, (12, 6))
    run.backward(0, limited(run, 6))
    for _ in range(5):
        run.backward(0, limited(run, 12))
    assert run.fitting.size == 6


# -- ranks ------------------------------------------------------------------------------------


def test_all_redo_when_one_failed_elsewhere() -> None:
    answers = iter([True, False])
    asked = []

    def agree(failed: bool) -> bool:
        asked.append(failed)
        return next(answers)

    small, run = Run(batch_norm, (6,)), Run(batch_norm, (BATCH, 6), agree=agree)
    small.backward()
    expected = [*small.gradients(), *small.tensors()]
    torch.manual_seed(1)
    run.backward()
    assert equal([*run.gradients(), *run.tensors()], expected)
    assert asked == [False, False]
    assert run.fitting.events[0].phase == "another rank"


def test_two_ranks_keep_one_size() -> None:
    barrier = threading.Barrier(2, timeout=300)
    flags = [False, False]
    limits = [6, 3]  # what fits on each
    runs: list[Run] = []
    for rank in (0, 1):

        def agree(failed: bool, rank: int = rank) -> bool:
            flags[rank] = failed
            barrier.wait()
            any_failed = any(flags)
            barrier.wait()
            return any_failed

        runs.append(Run(mlp, (12, 6, 4, 3), agree=agree))

    def work(rank: int) -> None:
        for _ in range(2):
            runs[rank].backward(0, limited(runs[rank], limits[rank]))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.fitting.size for run in runs] == [3, 3]
    assert [[e.to_size for e in run.fitting.events] for run in runs] == [[6, 4, 3]] * 2
    assert equal(runs[0].gradients(), runs[1].gradients())


# -- layers that see the batch ------------------------------------------------------------------


def test_batch_dependent_layers_are_named_once_a_batch_is_split() -> None:
    model = batch_norm()
    assert batch_dependent_layers(model) == ["1"]
    assert batch_dependent_layers(model.eval()) == []
    assert batch_dependent_layers(nn.BatchNorm1d(2, track_running_stats=False).eval()) == [""]
    assert batch_dependent_layers(nn.GroupNorm(1, 2)) == []
    run = Run(batch_norm, (BATCH, 6))
    run.backward()
    assert run.fitting.note is None
    run.backward(0, limited(run, 6))
    assert run.fitting.note is not None
    assert run.fitting.note.startswith("1: BatchNorm")
    plain = Run(mlp, (4,))
    plain.backward()
    assert plain.fitting.note is None


def test_buffers_that_were_replaced_or_moved_are_put_back() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(192, 4)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.seen + len(x)
            return self.linear(x.flatten(1))

    run = Run(Counts, (12, 6, 3))
    run.model.to(torch.float64).to(torch.float32)  # other buffers than when it was made

    def compute(part: slice) -> Tensor:
        loss = run.loss(0)(part)
        if part.stop - part.start > 3:
            raise torch.OutOfMemoryError("too large")
        return loss

    run.backward(0, compute)
    assert len(run.fitting.events) == 2
    assert run.model.seen == BATCH
    run.backward(0, compute)
    assert run.model.seen == 2 * BATCH


def test_the_optimizers_state_is_there_before_the_first_micro_batch() -> None:
    run = Run(mlp, 4)
    ready = []

    def compute(part: slice) -> Tensor:
        ready.append(len(run.optimizer.state))
        return run.loss(0)(part)

    run.backward(0, compute)
    assert ready[0] == 4


def test_autocasts_cache_is_cleared() -> None:
    seen: list[int] = []
    run = Run(mlp, (BATCH, 6), release_cache=lambda: seen.append(budget.allocated_bytes))
    run.fitting._has_state = True
    with budget_for(run) as budget, torch.autocast("cpu", dtype=torch.bfloat16):
        compute = failing(run.loss(0), budget, 1, Phase.BACKWARD, 2)
        before = budget.allocated_bytes
        run.backward(0, compute)
    assert seen == [before], "weights in half precision would be left"
    small = Run(mlp, (6,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        small.backward()
    assert equal(run.gradients(), small.gradients())


# -- any block ----------------------------------------------------------------------------------


def test_a_block_is_run_again_with_the_next_size() -> None:
    tried, drawn = [], []
    fitting = memfit.recover(sizes=(8, 4, 2))
    for attempt in fitting:
        with attempt as size:
            tried.append(size)
            drawn.append(torch.rand(()))
            if size > 2:
                raise torch.OutOfMemoryError("no room")
    assert tried == [8, 4, 2]
    assert drawn[0] == drawn[1] == drawn[2]
    assert [(e.phase, e.from_size, e.to_size) for e in fitting.events] == [
        ("block", 8, 4),
        ("block", 4, 2),
    ]
    again = [attempt.size for attempt in fitting]
    assert again == [2], "it remembers"


def test_a_block_that_never_fits() -> None:
    with pytest.raises(DoesNotFit) as error:
        run_block(torch.OutOfMemoryError("no room"))
    assert error.value.__context__ is None


def test_other_errors_leave_a_block() -> None:
    with pytest.raises(ZeroDivisionError):
        run_block(ZeroDivisionError())


def run_block(error: Exception) -> None:
    for attempt in memfit.recover(sizes=2):
        with attempt:
            raise error


def test_nothing_of_a_block_lives_when_the_cache_is_released() -> None:
    model = cnn()
    images, _ = batch()
    seen = []

    def evaluate(size: int) -> Tensor:
        with torch.no_grad():
            return torch.cat([model(part) for part in images.split(size)])

    with CpuBudget(PLENTY) as budget:
        budget.adopt(model)
        before = budget.allocated_bytes
        budget.fail(Phase.FORWARD, after=9)
        sizes = memfit.recover((4, 2), release_cache=lambda: seen.append(budget.allocated_bytes))
        for attempt in sizes:
            with attempt as size:
                outputs = evaluate(size)
    assert seen == [before]
    assert torch.equal(outputs, evaluate(2))


# -- documents ----------------------------------------------------------------------------------


def test_the_example_is_ten_lines() -> None:
    for function in (fit_micro_batch, recover.recover):
        example = doctest.DocTestFinder().find(function)[0].examples
        assert sum(len(part.source.splitlines()) for part in example) <= 10
