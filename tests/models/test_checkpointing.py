"""Checkpointed models keep less and give the gradients of the plain ones."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import DenseNet, ResNet, SwinTransformer
from torchvision.models.resnet import BasicBlock

from memfit import models
from memfit.models.checkpointing import repeated_blocks
from memfit.models.optional import optional_package


def saved_bytes(module: nn.Module, image: torch.Tensor) -> int:
    """Bytes that autograd keeps for backward, as torch's own hooks tell."""
    own = {id(parameter) for parameter in module.parameters()}
    total = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total += 0 if id(tensor) in own else tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        module(image)
    return total


def gradients(module: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(0)  # dropout, stochastic depth
    output = module(image)
    (output if isinstance(output, torch.Tensor) else output.logits).square().mean().backward()
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet18", 8),
        ("resnet50", 16),
        ("vit_b_16", 12),
        ("convnext_tiny", 18 + 3),  # blocks and the downsampling between stages
        ("swin_t", 12 + 3),  # blocks and the patch merging between stages
        ("densenet121", 58 + 3),  # dense layers and transitions
        ("regnet_y_400mf", 16),
        ("vgg11", 0),
    ],
)
def test_the_blocks_of_torchvision_models(name: str, blocks: int) -> None:
    module = models.build(f"torchvision:{name}").module
    found = list(repeated_blocks(module))
    assert models.enable_gradient_checkpointing(module) == len(found)
    assert len({id(block) for block in found}) == len(found)
    assert len(found) == blocks


def test_the_blocks_of_plain_modules() -> None:
    stage = [nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()) for _ in range(3)]
    assert list(repeated_blocks(nn.Sequential(*stage, nn.Flatten()))) == stage
    assert list(repeated_blocks(models.build("mlp").module)) == []
    assert len(list(repeated_blocks(models.build("cnn").module))) == 3


SMALL_NETS = {
    "densenet": lambda: DenseNet(4, (2, 2), 8, num_classes=3),
    "resnet": lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3),
    "swin": lambda: SwinTransformer([2, 2], 12, [2, 2], [2, 2], [4, 4], num_classes=3),
}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", sorted(SMALL_NETS))
def test_gradients_are_those_of_the_plain_model(name: str, reentrant: bool) -> None:
    torch.manual_seed(0)
    plain = SMALL_NETS[name]()
    twin = copy.deepcopy(plain)
    assert models.enable_gradient_checkpointing(twin, reentrant=reentrant) > 0
    image = torch.rand(2, 3, 32, 32)
    expected, actual = gradients(plain, image), gradients(twin, image)
    assert len(actual) == len(list(plain.parameters()))
    torch.testing.assert_close(actual, expected)


def test_the_first_block_gets_its_gradient_even_when_reentrant() -> None:
    net = models.build("cnn").module.to_empty(device="cpu")
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    models.enable_gradient_checkpointing(net, reentrant=True)
    assert len(gradients(net, torch.rand(2, 1, 8, 8))) == len(list(net.parameters()))


def test_less_is_kept_for_backward() -> None:
    image = torch.empty(2, 3, 64, 64, device="meta")
    plain = models.build("torchvision:resnet50").module
    twin = models.build("torchvision:resnet50").module
    models.enable_gradient_checkpointing(twin)
    assert saved_bytes(twin, image) < saved_bytes(plain, image) / 2


def test_evaluation_is_not_checkpointed() -> None:
    twin = models.build("torchvision:resnet18").module
    image = torch.empty(2, 3, 64, 64, device="meta")
    plain_bytes = saved_bytes(twin.eval(), image)
    models.enable_gradient_checkpointing(twin)
    assert saved_bytes(twin, image) == plain_bytes


def test_enabling_twice_is_enabling_once() -> None:
    twin = models.build("cnn").module
    assert models.enable_gradient_checkpointing(twin) == 3
    forward = twin[0].forward
    assert models.enable_gradient_checkpointing(twin) == 3
    assert twin[0].forward is forward


def test_a_copy_checkpoints_its_own_blocks() -> None:
    module = models.build("cnn").module
    models.enable_gradient_checkpointing(module)
    twin = copy.deepcopy(module)
    twin(torch.empty(2, 1, 8, 8, device="meta")).sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize(("name", "blocks"), [("test_vit", 6), ("resnet18", 8)])
@pytest.mark.parametrize("reentrant", [False, True])
def test_timm_uses_its_own_switch(name: str, blocks: int, reentrant: bool) -> None:
    module = models.build(f"timm:{name}").module
    layers = optional_package("timm").layers
    try:
        assert models.enable_gradient_checkpointing(module, reentrant=reentrant) == blocks
        assert module.grad_checkpointing
        assert layers.use_reentrant_ckpt() is reentrant
    finally:
        layers.set_reentrant_ckpt(False)


def test_timm_without_a_switch_is_wrapped() -> None:
    module = models.build("timm:ghostnet_050").module
    assert models.enable_gradient_checkpointing(module) > 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_transformers_uses_its_own_switch(reentrant: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit", "num_hidden_layers": 3}')
    module = models.build(f"transformers:{tmp_path}").module
    assert models.enable_gradient_checkpointing(module, reentrant=reentrant) == 3
    flagged = [each for each in module.modules() if getattr(each, "gradient_checkpointing", 0)]
    assert len(flagged) >= 3
    for each in flagged:
        assert each._gradient_checkpointing_func.keywords["use_reentrant"] is reentrant
