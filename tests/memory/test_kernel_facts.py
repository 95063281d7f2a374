"""What the tensor facts say must be what torch says of the same tensor."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memfit.memory.kernels.facts import TensorFacts

SIZES = st.lists(st.integers(1, 4), min_size=4, max_size=4)


def facts(tensor: torch.Tensor) -> TensorFacts:
    return TensorFacts(tuple(tensor.shape), tensor.stride(), tensor.element_size(), "float32")


@given(SIZES, st.permutations(range(4)), st.booleans())
def test_a_copy_is_made_exactly_when_torch_makes_one(sizes, order, channels_last):
    tensor = torch.empty(sizes).permute(order)
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    moved = tensor.contiguous(memory_format=wanted).data_ptr() != tensor.data_ptr()
    copied = facts(tensor).copy_bytes(channels_last=channels_last)
    assert copied == (tensor.numel() * 4 if moved else 0)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_channels_last_is_what_torch_calls_channels_last(order):
    tensor = torch.empty(2, 3, 4, 5).permute(order)
    expected = tensor.is_contiguous(memory_format=torch.channels_last)
    assert facts(tensor).channels_last == expected


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (2, 1, 4, 5), (1, 1, 1, 1)])
def test_a_contiguous_tensor_of_ambiguous_shape_is_not_channels_last(shape):
    assert not facts(torch.empty(shape)).channels_last


def test_channels_last_3d():
    image = torch.empty(2, 3, 4, 5, 6)
    assert not facts(image).channels_last
    assert facts(image.to(memory_format=torch.channels_last_3d)).channels_last
