"""Figures that other people read on their GPUs and reported, with where."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import memfit

MIB = 1 << 20


def test_one_linear_layer_applied_a_hundred_times() -> None:
    """4,044.00390625 MiB allocated after forward: github.com/TylerYep/torchinfo/issues/144."""
    with memfit.VirtualGPU("rtx-3090") as gpu:
        layer = nn.Linear(1024, 1024).cuda()
        x = torch.zeros(10240, 1024).cuda()
        for _ in range(100):
            x = layer(x)
        assert gpu.timeline.allocated_bytes[-1] / MIB == 4044.00390625


def test_a_convolution_and_two_pools_without_gradients() -> None:
    """5,014 MiB reserved after the first pass: github.com/pytorch/pytorch/issues/69526."""
    with memfit.VirtualGPU("rtx-3090") as gpu, torch.no_grad():
        pools = (nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1))
        net = nn.Sequential(nn.Conv2d(3, 28, 3), *pools).cuda()
        net(torch.randn(512, 3, 224, 224).cuda())
        assert gpu.timeline.reserved_bytes[-1] == 5014 * MIB


def test_swin_v2_as_torchvision_trains_it() -> None:
    """14,880 MiB at 128 images on each of 4 GPUs: github.com/pytorch/vision/pull/6246.

    Buckets of DistributedDataParallel, 108 MiB, are not in the plan.
    """
    plan = memfit.plan(
        "torchvision:swin_v2_t", input_shape=(3, 256, 256), optimizer="adamw",
        precision="amp-fp16", ema=True, clip_grad_norm=5, gpu="a100-40gb", verify=False,
    )  # fmt: skip
    assert plan.at(128).peak_allocated_bytes / MIB == pytest.approx(14_880, rel=0.02)
