"""Hold the recorder against an oracle that it shares nothing with: PyTorch's own profiler.

The same two training steps run three times: on the CPU under ``torch.profiler``, which reports
every call of the CPU allocator; on the CPU under memfit's recorder; and on meta tensors under the
recorder, without the rules that play CUDA. The three lists of allocated and freed bytes should be
the same list.

What CPU kernels allocate and free inside one operator is no tensor of the training step (a GPU's
kernels have their own, see ``memfit.memory.kernels.transients``): it is left out of the comparison
and listed by operator. What still differs is listed by operator too.

    python bench/oracle.py [--only NAME ...]        # writes bench/results/oracle.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from memfit.memory.recording.recorder import Recorder
from memfit.memory.tape.tape import max_live_bytes
from memfit.models.meta import construct_on_meta, meta_twin
from profiler_memory import CpuRun, profile_memory

RESULTS = Path(__file__).resolve().parent / "results" / "oracle.json"
BATCH = 2
STEPS = 2  # the momentum buffers appear in the first
CLASSES = 10

#: Library, model, pixels, and options that make it small. The smallest input that it accepts.
MODELS: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("torchvision", "resnet18", 64, {}), ("torchvision", "resnet50", 64, {}),
    ("torchvision", "vgg11_bn", 64, {}), ("torchvision", "densenet121", 64, {}),
    ("torchvision", "mobilenet_v3_small", 64, {}), ("torchvision", "efficientnet_b0", 64, {}),
    ("torchvision", "convnext_tiny", 64, {}), ("torchvision", "regnet_y_400mf", 64, {}),
    ("torchvision", "swin_t", 64, {}), ("torchvision", "squeezenet1_1", 64, {}),
    ("torchvision", "shufflenet_v2_x1_0", 64, {}), ("torchvision", "mnasnet1_0", 64, {}),
    ("torchvision", "googlenet", 64, {"aux_logits": False, "init_weights": False}),
    ("torchvision", "inception_v3", 96, {"aux_logits": False, "init_weights": False}),
    ("torchvision", "vit_b_16", 64, {"image_size": 64}),
    ("timm", "deit_tiny_patch16_224", 64, {"img_size": 64}),
    ("timm", "beit_base_patch16_224", 64, {"img_size": 64}),
    ("timm", "mixer_s16_224", 64, {"img_size": 64}),
    ("timm", "resmlp_12_224", 64, {"img_size": 64}), ("timm", "levit_128s", 224, {}),
    ("timm", "poolformer_s12", 64, {}), ("timm", "coatnet_0_rw_224", 64, {"img_size": 64}),
    ("timm", "cait_xxs24_224", 64, {"img_size": 64}),
    ("timm", "maxvit_tiny_tf_224", 64, {"img_size": 64}),
    ("timm", "pit_ti_224", 64, {"img_size": 64}), ("timm", "mobilevit_s", 64, {}),
    ("timm", "edgenext_small", 64, {}), ("timm", "efficientformer_l1", 224, {}),
    ("timm", "ghostnet_100", 64, {}), ("timm", "swinv2_tiny_window8_256", 64, {"img_size": 64}),
    ("timm", "pvt_v2_b0", 64, {}), ("timm", "xcit_nano_12_p16_224", 64, {}),
    ("timm", "hrnet_w18_small", 64, {}), ("timm", "repvgg_a0", 64, {}), ("timm", "dla34", 64, {}),
    ("timm", "volo_d1_224", 64, {"img_size": 64}), ("timm", "nfnet_f0", 64, {}),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """What one way of watching saw.

    Args:
        peak_bytes: the most bytes alive at once, parameters and buffers left out.
        allocated_bytes: the sum of all allocations.
        allocations: how many.
    """

    peak_bytes: int
    allocated_bytes: int
    allocations: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model.

    Args:
        name: library and model.
        pixels: height and width of the images.
        profiler: tensors that the profiler saw.
        profiler_peak_bytes: with the scratch memory of CPU kernels.
        cpu: the recorder on real tensors.
        meta: the recorder on meta tensors.
        cpu_is_same: the recorder's allocations and frees on the CPU are the profiler's, in order.
        meta_is_same: those on meta are, too.
        peak_error: of meta against the profiler.
        cpu_differences: operator and bytes, with how often more (or less) than in the profile.
        meta_differences: the same against the recorder on the CPU.
        scratch_bytes: what CPU kernels allocated and freed inside, by operator.
    """

    name: str
    pixels: int
    profiler: Column
    profiler_peak_bytes: int
    cpu: Column
    meta: Column
    cpu_is_same: bool
    meta_is_same: bool
    peak_error: float
    cpu_differences: dict[str, int]
    meta_differences: dict[str, int]
    scratch_bytes: dict[str, int]


Event = tuple[int, str]  # signed bytes, operator without its overload ("aten::add")


def compare(library: str, name: str, pixels: int, options: dict[str, Any]) -> Comparison:
    """Run one model the three ways; dropout and the like draw the same numbers each time."""

    def steps(device: str) -> Callable[[], None]:
        model = _build(library, name, options, device)
        return lambda: _train(model, (BATCH, 3, pixels, pixels), device)

    with sdpa_kernel(SDPBackend.MATH):  # the only attention that both devices have
        dispatched = _dispatched_operators(steps("cpu"))
        profile = profile_memory(steps("cpu"), dispatched)
        cpu = _recorded(_build(library, name, options, "cpu"), pixels, "cpu")
        meta = _recorded(_build(library, name, options, "meta"), pixels, "meta")
    tensors = _tensor_events(profile)
    truth = _column(tensors)
    return Comparison(
        name=f"{library}:{name}",
        pixels=pixels,
        profiler=truth,
        profiler_peak_bytes=_peak(profile.signed_bytes()),
        cpu=_column(cpu),
        meta=_column(meta),
        cpu_is_same=_in_runs(cpu) == _in_runs(tensors),
        meta_is_same=_in_runs(meta) == _in_runs(tensors),
        peak_error=_column(meta).peak_bytes / truth.peak_bytes - 1,
        cpu_differences=_differences(cpu, tensors),
        meta_differences=_differences(meta, cpu),
        scratch_bytes=_scratch(profile),
    )


# -- the training steps -------------------------------------------------------------------------


def _build(library: str, name: str, options: dict[str, Any], device: str) -> nn.Module:
    torch.manual_seed(0)
    if library == "timm":
        import timm

        make = lambda: timm.create_model(name, num_classes=CLASSES, **options)  # noqa: E731
    else:
        import torchvision

        make = lambda: getattr(torchvision.models, name)(num_classes=CLASSES, **options)  # noqa: E731
    if device == "cpu":
        return make().train()
    model = construct_on_meta(make)
    assert isinstance(model, nn.Module)
    return meta_twin(model).train()


def _train(model: nn.Module, shape: tuple[int, ...], device: str) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, foreach=False)
    for _ in range(STEPS):
        images = torch.ones(shape, device=device)
        labels = torch.zeros(shape[0], dtype=torch.long, device=device)
        optimizer.zero_grad()
        output = model(images)
        loss = cross_entropy(output, labels)
        loss.backward()
        optimizer.step()


class _Names(TorchDispatchMode):
    """The names of the operators that any dispatch mode sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.seen.add(func._schema.name)
        return func(*args, **(kwargs or {}))


def _dispatched_operators(run: Callable[[], None]) -> set[str]:
    with _Names() as names:
        run()
    return names.seen


# -- what each way of watching saw ----------------------------------------------------------------


def _recorded(model: nn.Module, pixels: int, device: str) -> list[Event]:
    recorder = Recorder(device)
    with recorder:
        recorder.adopt_module(model)
        before = len(recorder.tape().events)
        _train(model, (BATCH, 3, pixels, pixels), device)
    tape = recorder.tape()
    named = [
        (a.size_bytes, a.operator.replace("aten.", "aten::").rpartition(".")[0])
        for a in tape.allocations
    ]
    events = [named[e] if e >= 0 else (-named[~e][0], named[~e][1]) for e in tape.events[before:]]
    return [event for event in events if event[0]]


def _tensor_events(profile: CpuRun) -> list[Event]:
    """Every allocation and free of a tensor, by the operator that a dispatch mode would name."""
    sizes = profile.signed_bytes(tensors_only=True)
    owners = [
        allocation
        for event in profile.events
        if (allocation := profile.allocations[event if event >= 0 else ~event]).dispatched
        and not allocation.is_scratch
    ]
    events = [(size, a.dispatched) for size, a in zip(sizes, owners, strict=True)]
    return [event for event in events if event[0]]


def _column(events: list[Event]) -> Column:
    made = [size for size, _ in events if size > 0]
    return Column(_peak([size for size, _ in events]), sum(made), len(made))


def _peak(signed_bytes: list[int]) -> int:
    return max_live_bytes([abs(size) for size in signed_bytes], [
        number if size > 0 else ~number for number, size in enumerate(signed_bytes)
    ])  # fmt: skip


def _in_runs(events: list[Event]) -> list[list[int]]:
    """Bytes in order; allocations without a free between are one set, and so are frees.

    In which order one operator makes its outputs differs between devices and means nothing here.
    """
    return [
        sorted(size for size, _ in run) for _, run in groupby(events, lambda event: event[0] > 0)
    ]


def _differences(found: list[Event], truth: list[Event]) -> dict[str, int]:
    """Allocations by operator and bytes, with how many more were found than are true."""
    sizes = Counter(size for size, _ in found if size > 0)
    sizes.subtract(size for size, _ in truth if size > 0)
    differences: Counter[str] = Counter()
    for size, count in sizes.items():
        if count:
            side = Counter(op for s, op in found if s == size)
            side.subtract(op for s, op in truth if s == size)
            operators = [op for op, more in side.items() if more * count > 0] or ["?"]
            differences[f"{'/'.join(operators)} of {size:,} B"] = count
    return dict(differences)


def _scratch(profile: CpuRun) -> dict[str, int]:
    scratch: Counter[str] = Counter()
    for allocation in profile.allocations:
        if allocation.is_scratch:
            scratch[allocation.dispatched] += allocation.size_bytes
        elif not allocation.dispatched:
            scratch["(Python numbers)"] += allocation.size_bytes
    return dict(scratch.most_common())


# -- the report -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these models; writes no file")
    only = parser.parse_args(arguments).only
    began = time.monotonic()
    torch.set_num_threads(1)  # tiny kernels: threads would wait for each other on a busy machine
    chosen = [model for model in MODELS if not only or model[1] in only]
    print(f"{'model':34} {'profiler':>13} {'cpu':>13} {'meta':>13} {'error':>8}  same sequence")
    comparisons = []
    for model in chosen:
        with _quiet_profiler():
            comparisons.append(compare(*model))
        print(_row(comparisons[-1]), flush=True)
    close = sum(abs(c.peak_error) < 0.01 for c in comparisons)
    print(f"\n{close} of {len(comparisons)} peaks within 1 %; peaks in bytes, without parameters")
    if not only:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(_report(comparisons, time.monotonic() - began), indent=1))
    return 0 if close == len(comparisons) else 1


def _row(c: Comparison) -> str:
    same = f"cpu {'yes' if c.cpu_is_same else 'NO'}, meta {'yes' if c.meta_is_same else 'NO'}"
    lines = [
        f"{c.name:34} {c.profiler.peak_bytes:13,} {c.cpu.peak_bytes:13,} {c.meta.peak_bytes:13,} "
        f"{c.peak_error:+8.3%}  {same}"
    ]
    for title, differences in (("cpu", c.cpu_differences), ("meta", c.meta_differences)):
        if differences:
            words = "; ".join(f"{count:+} {what}" for what, count in differences.items())
            lines.append(f"    {title}: {words}")
    return "\n".join(lines)


def _report(comparisons: list[Comparison], seconds: float) -> dict[str, Any]:
    return {
        "machine": {
            "platform": platform.platform(),
            "cpu_count": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "date": datetime.now(UTC).date().isoformat(),
        },
        "batch": BATCH,
        "steps": STEPS,
        "seconds": round(seconds),
        "models": [asdict(comparison) for comparison in comparisons],
    }


@contextlib.contextmanager
def _quiet_profiler() -> Iterator[None]:
    """The profiler's C++ code writes to stderr that it starts and that there is no GPU."""
    sys.stderr.flush()
    saved = os.dup(2)
    with Path(os.devnull).open("w") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


if __name__ == "__main__":
    sys.exit(main())
