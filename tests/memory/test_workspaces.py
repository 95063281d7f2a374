import pytest
import torch  # noqa: F401  its import brings cuDNN within reach

from memfit.memory.kernels.blas_workspaces import (
    cublas_workspace_bytes,
    cublaslt_workspace_bytes,
    held_blas_workspaces,
    operation_blas_workspace_bytes,
)
from memfit.memory.kernels.cudnn import convolution_workspace
from memfit.memory.kernels.cudnn.convolution_problem import ConvolutionProblem
from memfit.memory.kernels.cudnn.convolution_workspace import (
    convolution_workspace_bytes,
    convolution_workspace_rule_bytes,
)
from memfit.memory.kernels.cudnn.plans import (
    cudnn_version,
    heuristic_workspace_bytes,
)
from memfit.memory.kernels.scope import Held

MIB = 1 << 20
needs_cudnn = pytest.mark.skipif(cudnn_version() is None, reason="no cuDNN that can be asked")


def problem(kind="forward", dtype="float32", channels_last=False, batch=32):
    return ConvolutionProblem(
        kind,
        (batch, 64, 56, 56),
        (128, 64, 3, 3),
        (batch, 128, 56, 56),
        (1, 1),
        (1, 1),
        (1, 1),
        dtype,
        channels_last,
    )


X, W, Y = 32 * 64 * 56 * 56, 128 * 64 * 9, 32 * 128 * 56 * 56


@pytest.mark.parametrize(
    ("capability", "version", "expected"),
    [
        ((8, 0), (2, 15), 8_519_680),
        ((8, 6), (2, 11), 8_519_680),
        ((9, 0), (2, 11), 32 * MIB),
        ((10, 0), (2, 11), 8_519_680),
        ((10, 0), (2, 12), 32 * MIB),
        ((12, 0), (2, 15), 32 * MIB),
    ],
)
def test_default_cublas_workspace(capability, version, expected):
    assert cublas_workspace_bytes(capability, None, version) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [(":4096:8", 32 * MIB), (":16:8:4096:2", 8_519_680), ("nonsense", 8_519_680), ("", 8_519_680)],
)
def test_cublas_workspace_config(config, expected):
    assert cublas_workspace_bytes((8, 0), config) == expected


def test_cublaslt_has_its_own_workspace_except_from_2_12_to_2_14():
    sizes = [cublaslt_workspace_bytes(torch_version=(2, minor)) for minor in range(11, 16)]
    assert sizes == [MIB, 0, 0, 0, MIB]


@pytest.mark.parametrize(("size_kib", "expected"), [("2048", 2 * MIB), ("many", MIB)])
def test_cublaslt_workspace_size(size_kib, expected):
    assert cublaslt_workspace_bytes(size_kib) == expected


def test_a_workspace_is_either_held_or_for_one_operation():
    for minor in range(11, 16):
        held = held_blas_workspaces("cublas", (8, 0), (2, minor))
        once = operation_blas_workspace_bytes("cublas", (8, 0), (2, minor))
        assert bool(held) != bool(once)


def test_cublaslt_of_2_11_holds_both():
    held = held_blas_workspaces("cublaslt", (8, 0), (2, 11))
    assert held == (Held("cublas", 8_519_680), Held("cublaslt", MIB))


@pytest.mark.parametrize(
    ("kind", "channels_last", "dtype", "expected"),
    [
        ("forward", False, "float32", 4 * (X + W)),
        ("backward_data", False, "float32", 4 * (X + W + Y)),
        ("backward_data", True, "float32", 4 * (Y + W)),
        ("backward_filter", True, "float32", 4 * (X + Y)),
        ("forward", False, "float16", 2 * (X + W + Y)),
        ("forward", True, "float16", 0),
        ("forward", False, "float64", 0),
    ],
)
def test_rule_is_the_sum_of_the_tensors_copied(kind, channels_last, dtype, expected):
    asked = problem(kind, dtype, channels_last)
    assert convolution_workspace_rule_bytes(asked, (8, 0)) == expected


def test_rule_is_affine_in_the_batch():
    sizes = [convolution_workspace_rule_bytes(problem(batch=b), (8, 0)) for b in (4, 8, 12)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] > 0


def test_depthwise_needs_nothing():
    depthwise = ConvolutionProblem(
        "forward", (8, 64, 9, 9), (64, 1, 3, 3), (8, 64, 9, 9), (1, 1), (1, 1), (1, 1), "float16", 0
    )
    assert convolution_workspace_rule_bytes(depthwise, (8, 0)) == 0


def test_the_rule_stands_in_where_cudnn_does_not_answer(monkeypatch):
    monkeypatch.setattr(convolution_workspace, "heuristic_workspace_bytes", lambda *_, **__: None)
    assert convolution_workspace_bytes(problem(), (8, 0)) == 4 * (X + W)


def test_a_pointwise_convolution_asks_cudnn_but_on_an_a100(monkeypatch):
    monkeypatch.setattr(convolution_workspace, "heuristic_workspace_bytes", lambda *_, **__: 7)
    pointwise = ConvolutionProblem(
        "forward",
        (8, 64, 9, 9),
        (32, 64, 1, 1),
        (8, 32, 9, 9),
        (0, 0),
        (1, 1),
        (1, 1),
        "float32",
        0,
    )
    asked = [convolution_workspace_bytes(pointwise, card) for card in [(8, 0), (8, 6), (9, 0)]]
    assert asked == [0, 7, 7]


@needs_cudnn
@pytest.mark.parametrize("kind", ["forward", "backward_data", "backward_filter"])
@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (9, 0)])
def test_rule_against_cudnn_for_half_contiguous(kind, capability):
    """Contiguous half tensors are all transposed: little is added to that."""
    asked = problem(kind, "float16")
    answer = heuristic_workspace_bytes(asked, capability, allow_tf32=True)
    rule = convolution_workspace_rule_bytes(asked, capability)
    assert answer == pytest.approx(rule, rel=0.15)


@needs_cudnn
def test_cudnn_answers_the_transposed_input_and_weight_to_the_byte():
    """Recorded with cuDNN 9.19 and 9.26: input + weight + 16 bytes."""
    asked = ConvolutionProblem(
        "forward",
        (32, 64, 56, 56),
        (64, 64, 3, 3),
        (32, 64, 56, 56),
        (1, 1),
        (1, 1),
        (1, 1),
        "float32",
        False,
    )
    assert heuristic_workspace_bytes(asked, (8, 6), allow_tf32=True) == 25_837_584


@needs_cudnn
@pytest.mark.parametrize("capability", [(6, 1), (7, 0)])
def test_unsupported_gpus_are_not_answered_for(capability):
    assert heuristic_workspace_bytes(problem(), capability, allow_tf32=True) is None


@needs_cudnn
def test_tf32_off_needs_no_copies_of_contiguous_float32():
    with_tf32 = heuristic_workspace_bytes(problem(), (8, 0), allow_tf32=True)
    without = heuristic_workspace_bytes(problem(), (8, 0), allow_tf32=False)
    assert without < with_tf32
