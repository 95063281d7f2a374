"""Rules by hand where the source gives the sum, and against properties where it does not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memfit.memory.kernels import convolution_temporaries as convolutions
from memfit.memory.kernels.facts import DeviceFacts, TensorFacts
from memfit.memory.kernels.no_temporaries import NO_TEMPORARIES
from memfit.memory.kernels.reduction_temporaries import reduction_buffers
from memfit.memory.kernels.scope import Held, Result, block_sizes
from memfit.memory.kernels.temporaries import RULES, temporaries

A100 = DeviceFacts((8, 0), 108, torch_version=(2, 13))
A100_215 = DeviceFacts((8, 0), 108, torch_version=(2, 15))
DTYPES = {"float32": 4, "float16": 2, "int64": 8}


def facts(*shape, dtype="float32", channels_last=False, transposed=False):
    tensor = torch.empty(shape, device="meta")
    if channels_last:
        tensor = tensor.to(memory_format=torch.channels_last)
    if transposed:
        tensor = tensor.transpose(0, 1)
    return TensorFacts(tuple(tensor.shape), tensor.stride(), DTYPES[dtype], dtype)


def convolution(image, weight, *, padding=(1, 1), stride=(1, 1), groups=1):
    return (image, weight, None, stride, padding, (1, 1), False, (0, 0), groups)


@pytest.fixture
def workspace_of_7(monkeypatch):
    asked = []
    monkeypatch.setattr(
        convolutions, "convolution_workspace_bytes", lambda p, *_, **__: asked.append(p) or 7
    )
    return asked


def test_convolution_copies_what_is_not_in_the_chosen_format(workspace_of_7):
    image, weight = facts(2, 8, 6, 6), facts(16, 8, 3, 3, channels_last=True)
    out = facts(2, 16, 6, 6, channels_last=True)
    scope = temporaries("aten.convolution.default", convolution(image, weight), (out,), A100)
    assert scope == (2 * 8 * 36 * 4, Result(0), (0, 7))
    assert workspace_of_7[0].channels_last


def test_convolution_backward_takes_each_workspace_for_its_own_gradient(workspace_of_7):
    image, weight, gradient = facts(2, 8, 6, 6), facts(16, 8, 3, 3), facts(2, 16, 6, 6)
    arguments = convolution(image, weight)
    call = (gradient, image, weight, None, *arguments[3:], [True, True, False])
    scope = temporaries("aten.convolution_backward.default", call, (), A100)
    assert scope == (0, 0, Result(0), (0, 7), Result(1), (7,))
    assert [p.kind for p in workspace_of_7] == ["backward_data", "backward_filter"]


def test_first_layer_needs_no_input_gradient(workspace_of_7):
    image, weight, gradient = facts(2, 3, 6, 6), facts(16, 3, 3, 3), facts(2, 16, 6, 6)
    call = (gradient, image, weight, None, *convolution(image, weight)[3:], [False, True, False])
    temporaries("aten.convolution_backward.default", call, (), A100)
    assert [p.kind for p in workspace_of_7] == ["backward_filter"]


@pytest.mark.parametrize(
    ("dtype", "channels_last", "width", "asks_cudnn"),
    [
        ("float32", False, 14, False),
        ("float16", False, 14, True),
        ("float16", False, 5, False),
        ("float32", True, 14, True),
    ],
)
def test_who_runs_a_depthwise_convolution(workspace_of_7, dtype, channels_last, width, asks_cudnn):
    image = facts(2, 64, width, width, dtype=dtype, channels_last=channels_last)
    weight = facts(64, 1, 3, 3, dtype=dtype)
    call = convolution(image, weight, groups=64)
    temporaries("aten.convolution.default", call, (image,), A100)
    assert bool(workspace_of_7) == asks_cudnn


def test_one_dimensional_convolution_runs_with_height_1(workspace_of_7):
    image, weight = facts(2, 8, 20), facts(16, 8, 3)
    call = (image, weight, None, [2], [1], [1], False, [0], 1)
    temporaries("aten.convolution.default", call, (facts(2, 16, 10),), A100)
    asked = workspace_of_7[0]
    assert asked.input_shape == (2, 8, 1, 20)
    assert asked.stride == (1, 2)
    assert asked.padding == (0, 1)


def test_transposed_convolution_is_the_gradient_of_a_convolution(workspace_of_7):
    image, weight = facts(2, 16, 6, 6), facts(16, 8, 3, 3)
    call = (image, weight, None, [1, 1], [1, 1], [1, 1], True, [0, 0], 1)
    temporaries("aten.convolution.default", call, (facts(2, 8, 6, 6),), A100)
    asked = workspace_of_7[0]
    assert (asked.kind, asked.input_shape[1], asked.output_shape[1]) == ("backward_data", 8, 16)


def test_matrix_products_copy_only_what_blas_cannot_read():
    plain, transposed = facts(8, 4), facts(8, 4, transposed=True)
    assert temporaries("aten.mm.default", (plain, transposed), (), A100_215) == (0, 0, 8_519_680)
    strided = TensorFacts((8, 4), (8, 2), 4, "float32")
    copy = 8 * 4 * 4
    call = (strided, transposed)
    assert temporaries("aten.mm.default", call, (), A100_215) == (copy, 0, 8_519_680)


def test_workspace_of_a_product_moves_from_held_to_temporary_in_2_15():
    call = (facts(8, 4), facts(4, 8))
    assert temporaries("aten.mm.default", call, (), A100) == (0, 0, Held("cublas", 8_519_680), 0)
    assert temporaries("aten.mm.default", call, (), A100_215) == (0, 0, 8_519_680)


def test_a_bias_goes_through_cublaslt():
    call = (facts(8), facts(8, 4), facts(4, 8))
    assert temporaries("aten.addmm.default", call, (), A100_215) == (0, 0, 1 << 20)


def test_sum_over_rows_allocates_blocks_times_outputs():
    """By hand from Reduce.cuh: 32x4 threads, 4 outputs each, 6 blocks in x, 288 in y on an A100."""
    rows = facts(1 << 16, 768)
    expected = (4 * 768 * 288 * 32 * 4, 4 * 6)
    assert (
        temporaries("aten.sum.dim_IntList", (rows, [0], True), (facts(1, 768),), A100) == expected
    )


def test_sum_of_short_rows_needs_nothing():
    call = (facts(4096, 768), [-1])
    assert temporaries("aten.sum.dim_IntList", call, (facts(4096),), A100) == (0, 0)


def test_what_is_no_float_is_converted_before_it_is_added_up():
    call, total = (facts(64, 10, dtype="float16"), [0]), facts(10, dtype="int64")
    assert temporaries("aten.sum.dim_IntList", call, (total,), A100) == (64 * 10 * 8, 0, 0)
    assert temporaries("aten.sum.dim_IntList", call, (facts(10),), A100) == (0, 0)


def test_sum_of_everything_splits_over_the_gpu():
    """By hand: 512 threads, 4 blocks for each of 108 multiprocessors, one partial sum each."""
    assert temporaries("aten.sum.default", (facts(1 << 22),), (facts(),), A100) == (4 * 432, 4)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300), st.sets(st.integers(0, 2)))
def test_reduction_buffers_hold_a_partial_result_for_every_output(a, b, c, dimensions):
    tensor = facts(a, b, c)
    sizes = reduction_buffers(tensor, dimensions, 4, A100)
    outputs = 1
    for index, size in enumerate((a, b, c)):
        outputs *= 1 if index in dimensions else size
    assert sizes == (0, 0) or sizes[0] >= 2 * 4 * outputs


@pytest.mark.parametrize(("rows", "blocks"), [(64 * 1024, 0), (64 * 1024 + 1, 2049)])
def test_layer_norm_backward_sums_blocks_of_32_rows_when_there_are_very_many(rows, blocks):
    image, stat, weight = facts(rows, 96), facts(rows, 1), facts(96)
    call = (image, image, [96], stat, stat, weight, weight, [True, True, True])
    scope = temporaries("aten.native_layer_norm_backward.default", call, (), A100)
    partial, total = blocks * 96 * 4, 96 * 4 if blocks else 0
    copies_and_partials = [0, 0, partial, partial]
    assert list(block_sizes(scope[:7])) == copies_and_partials
    of_weight, of_bias = scope[7:]
    assert of_weight == of_bias
    assert of_weight[0] == total


def test_group_norm_scale_and_shift_for_each_channel():
    image, weight = facts(4, 32, 8, 8, dtype="float16"), facts(32, dtype="float16")
    call = (image, weight, weight, 4, 32, 64, 8, 1e-5)
    scope = temporaries("aten.native_group_norm.default", call, (), A100)
    statistics, per_channel = 4 * 8 * 4, 4 * 32 * 4
    assert list(block_sizes(scope)) == [0, statistics, statistics, per_channel, per_channel]


def test_batch_norm_copies_a_gradient_in_another_format():
    image, gradient = facts(8, 16, 4, 4), facts(8, 16, 4, 4, channels_last=True)
    call = (gradient, image, *[facts(16)] * 5, True, 1e-5, [True] * 3)
    scope = temporaries("aten.native_batch_norm_backward.default", call, (), A100)
    assert scope == (8 * 16 * 16 * 4, 0, Result(0), Result(1), Result(2))


def test_channels_last_batch_norm_stages_partial_statistics():
    """By hand: tile 32 wide, 16 threads high, 16 elements each; 4 values, 64 channels."""
    image = facts(32, 64, 28, 28, channels_last=True)
    blocks = -(-32 * 28 * 28 // (16 * 16))
    scope = temporaries("aten.native_batch_norm.default", (image,), (), A100)
    assert tuple(block_sizes(scope)) == (0, 4 * 4 * 64 * min(blocks, 128))


def test_embedding_backward_allocates_nothing_for_few_indices():
    call = (facts(3072, 64), facts(3072, dtype="int64"), 1000, -1, False)
    scope = temporaries("aten.embedding_dense_backward.default", call, (), A100)
    assert not any(block_sizes(scope))


def test_embedding_backward_sums_segments_in_float32():
    call = (facts(4000, 64, dtype="float16"), facts(4000, dtype="int64"), 1000, -1, False)
    scope = temporaries("aten.embedding_dense_backward.default", call, (), A100)
    assert max(block_sizes(scope)) == (400 + 1000) * 64 * 4


def test_losses_keep_the_loss_of_each_element_before_the_mean():
    pair = (facts(8, 10), facts(8, 10))
    assert temporaries("aten.mse_loss.default", pair, (), A100) == (320, 0, 0)
    assert temporaries("aten.mse_loss.default", (*pair, 0), (), A100) == ()


def test_foreach_norm_has_a_partial_for_each_chunk_of_the_largest_tensor():
    call = ([facts(65537), facts(10)], 2)
    assert temporaries("aten._foreach_norm.Scalar", call, (), A100) == (2 * 2 * 4,)


def test_unknown_is_not_nothing():
    assert temporaries("aten.relu.default", (facts(2),), (), A100) == ()
    assert temporaries("aten.add_.Tensor", (facts(2), facts(2)), (), A100) == ()
    assert temporaries("aten.topk.default", (facts(2), 1), (), A100) is None
    assert temporaries("mylib.fancy.default", (), (), A100) is None


@pytest.mark.parametrize("op", sorted(RULES))
def test_every_rule_names_an_operator_that_exists(op):
    _, packet, overload = op.split(".")
    assert hasattr(getattr(torch.ops.aten, packet), overload)


def test_no_operator_is_in_both_tables():
    assert not {op.rpartition(".")[0] for op in RULES} & NO_TEMPORARIES
