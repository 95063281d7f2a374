from __future__ import annotations

import pytest
import torch

from memfit import models
from memfit.errors import InputShapeError
from memfit.models.builtin import cnn


def count(name: str, **options: object) -> int:
    module = models.build(name, **options).module  # type: ignore[arg-type]
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_courses_parameter_counts() -> None:
    assert count("mlp") == 784 * 128 + 128 + 128 * 10 + 10 == 101_770
    assert count("mlp", input_shape=(3, 32, 32)) == 394_634
    assert count("mlp", num_classes=2) == 101_770 - 8 * 129


def test_cnn_parameter_count_by_hand() -> None:
    convolutions = 9 * (32 + 32 * 64 + 64 * 128)
    norms = 2 * (32 + 64 + 128)
    assert count("cnn") == convolutions + norms + 129 * 10


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_output_is_one_score_per_class(name: str, shape: tuple[int, ...]) -> None:
    built = models.build(name, input_shape=shape, num_classes=7)
    assert built.module(torch.empty(2, *shape, device="meta")).shape == (2, 7)
    assert (built.default_input_shape, built.default_num_classes) == (shape, 7)
    assert (built.kind, built.task, built.name) == ("image", "classification", name)


def test_cnn_takes_images_only() -> None:
    with pytest.raises(InputShapeError, match="C x H x W"):
        models.build("cnn", input_shape=(784,))


def test_cnn_learns_to_tell_bright_from_dark() -> None:
    torch.manual_seed(0)
    net = cnn((1, 8, 8), 2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    labels = torch.arange(32) % 2
    images = torch.rand(32, 1, 8, 8) + labels.view(-1, 1, 1, 1)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    assert (net(images).argmax(1) == labels).all()
