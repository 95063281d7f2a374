"""How each peer is asked for the memory of one training configuration, as its own docs say.

The configuration is the one that the table of measurements comes from: float32, cross entropy,
SGD with momentum 0.9, one GPU. Every estimator takes a `Case` and returns bytes. They are called
in a process of their own (see peers.py), so each may import what it likes and may crash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["PEERS", "Case", "Peer"]

Counts = Literal["tensors", "reserved", "gpu"]


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration to estimate.

    Attributes:
        model: name in timm, or one of memfit's with a colon.
        batch_size: images per step.
        measured_bytes: peak of the whole GPU in the real run.
    """

    model: str
    batch_size: int
    measured_bytes: int


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool, what its figure covers, and how to ask it.

    Attributes:
        name: as shown in the table.
        package: its name on PyPI, for the version; None for a rule of thumb.
        counts: ``"tensors"`` bytes in tensors, ``"reserved"`` what the caching allocator holds,
            ``"gpu"`` everything nvidia-smi shows.
        knows_batch: the figure depends on the batch size.
        knows_optimizer: the figure depends on the optimizer.
        knows_lifetimes: tensors that backward does not need are not counted at the peak.
        runs: what it executes: nothing, shapes only, or the real model on the CPU.
        estimate: the prediction in bytes.
    """

    name: str
    package: str | None
    counts: Counts
    knows_batch: bool
    knows_optimizer: bool
    knows_lifetimes: bool
    runs: Literal["nothing", "shapes", "forward", "training"]
    estimate: Callable[[Case], int]


def input_shape(model: str) -> tuple[int, int, int]:
    """(channels, height, width) that timm's configuration names for this model.

    A name with a colon is one of memfit's, such as ``torchvision:resnet50``.
    """
    if ":" in model:
        from memfit.models import build as build_shapes

        shape = build_shapes(model).default_input_shape
        if shape is None or len(shape) != 3:
            raise ValueError(f"{model} has no image size of its own")
        return shape[0], shape[1], shape[2]
    import timm

    config = timm.get_pretrained_cfg(model)
    if config is None:
        raise ValueError(f"timm has no configuration for {model}")
    channels, height, width = config.input_size
    return channels, height, width


def build(model: str) -> nn.Module:
    """The model with random weights on the CPU."""
    if ":" in model:
        from memfit.models import build_for_training

        return build_for_training(model).module
    import timm

    return timm.create_model(model, pretrained=False)


def estimate_with_memfit(case: Case) -> int:
    """`memfit.plan`, the whole GPU."""
    import memfit

    plan = memfit.plan(
        case.model if ":" in case.model else f"timm:{case.model}",
        input_shape=input_shape(case.model),
        batch_size=case.batch_size,
        optimizer={"name": "sgd", "momentum": 0.9},
        precision="fp32",
    )
    return int(plan.at(case.batch_size).total_bytes)


def estimate_with_torchinfo(case: Case) -> int:
    """The "Estimated Total Size" line (torchinfo 1.8.0, model_statistics.py).

    On the meta device, where it gives the same figure as on the CPU in a tenth of the time.
    """
    from torchinfo import summary

    size = (case.batch_size, *input_shape(case.model))
    result = summary(build(case.model), input_size=size, mode="train", device="meta", verbose=0)
    return int(result.total_input + result.total_output_bytes + result.total_param_bytes)


def estimate_with_kitsune(case: Case) -> int:
    """`kitsune.predict.predict_memory` (torch-kitsune 0.7.0)."""
    from kitsune.predict import predict_memory

    result = predict_memory(
        build(case.model),
        input_shape(case.model),
        batch_size=case.batch_size,
        dtype="float32",
        optimizer="sgd_momentum",
        training=True,
    )
    return int(result.total_bytes)


def estimate_with_vram_check(case: Case) -> int:
    """`vram_check.analyze` (vram-check 0.1.1); its "sgd" is SGD with momentum."""
    from vram_check import analyze

    model = build(case.model)
    report = analyze(model, batch_size=case.batch_size, dtype="fp32", optimizer="sgd")
    return int(report["estimate"].total_bytes)


def estimate_with_accelerate(case: Case) -> int:
    """What ``accelerate estimate-memory`` prints as "Training using Adam" for float32.

    The command itself looks the model up on the hub; these are the two functions that it calls
    (accelerate 1.15.0, commands/estimate.py, `gather_data`).
    """
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes

    model_bytes, _ = calculate_maximum_sizes(build(case.model))
    return int(estimate_training_usage(model_bytes, "float32")["step"])


def estimate_by_rule_of_thumb(case: Case) -> int:
    """Four times the parameters (weights, gradients, two Adam states) plus saved activations."""
    model = build(case.model).to("meta").train()
    parameter_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    return 4 * parameter_bytes + saved_for_backward_bytes(model, case)


def saved_for_backward_bytes(model: nn.Module, case: Case) -> int:
    """Bytes of the storages that autograd keeps after a forward pass on the meta device.

    Args:
        model: on the meta device.
        case: gives the input [batch, channels, height, width].
    """
    import torch

    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in own:
            saved[key] = tensor
        return tensor

    images = torch.empty(case.batch_size, *input_shape(case.model), device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(images)
        torch.nn.functional.cross_entropy(
            logits, torch.empty(case.batch_size, dtype=torch.long, device="meta")
        )
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def estimate_with_mem_tracker(case: Case) -> int:
    """PyTorch's own MemTracker over two fake steps (torch 2.15, distributed/_tools).

    Fake CUDA tensors cannot run backward without a GPU, so these are fake CPU tensors. Two steps,
    because optimizer state appears in the first; `reset_mod_stats` is asked for between them.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    model = build(case.model).to("meta")
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu").train()
        # foreach: the default on CUDA, not on the CPU
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True)
        images = torch.randn(case.batch_size, *input_shape(case.model))
        labels = torch.zeros(case.batch_size, dtype=torch.long)
        tracker = MemTracker()
        tracker.track_external(model, optimizer, images, labels)
        with tracker:
            for _ in range(2):
                tracker.reset_mod_stats()
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
        peak = tracker.get_tracker_snapshot("peak")
    return sum(device["Total"] for device in peak.values())


def estimate_by_cpu_replay(case: Case) -> int:
    """A stand-in for xMem's method; see cpu_replay.py."""
    from cpu_replay import replayed_peak_bytes

    return replayed_peak_bytes(
        build(case.model), input_shape(case.model), batch_size=case.batch_size
    )


PEERS: tuple[Peer, ...] = (
    Peer("memfit", "memfit", "gpu", True, True, True, "shapes", estimate_with_memfit),
    Peer("CPU replay", None, "reserved", True, True, True, "training", estimate_by_cpu_replay),
    Peer("MemTracker", "torch", "tensors", True, True, True, "shapes", estimate_with_mem_tracker),
    Peer("torch-kitsune", "torch-kitsune", "gpu", True, True, False, "forward",
         estimate_with_kitsune),
    Peer("torchinfo", "torchinfo", "tensors", True, False, False, "shapes",
         estimate_with_torchinfo),
    Peer("vram-check", "vram-check", "tensors", True, True, False, "nothing",
         estimate_with_vram_check),
    Peer("accelerate", "accelerate", "tensors", False, False, False, "nothing",
         estimate_with_accelerate),
    Peer("4x + saved", None, "tensors", True, False, False, "shapes", estimate_by_rule_of_thumb),
)  # fmt: skip
