"""Which attention kernel CUDA takes: PyTorch's rules, worked out by hand from its source."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memfit.memory.cuda.attention_backend import AttentionProblem, choose_backend

AMPERE, DESKTOP_AMPERE, ADA, HOPPER, BLACKWELL = (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)


def backend(width: int, capability: tuple[int, int], **options: object) -> str | None:
    problem = AttentionProblem("float16", *3 * [(8, 4, 32, width)])
    return choose_backend(replace(problem, **options), capability).backend  # type: ignore[arg-type]


@pytest.mark.parametrize("capability", [DESKTOP_AMPERE, ADA, BLACKWELL])
@pytest.mark.parametrize(
    ("width", "expected"),
    [(64, "flash"), (192, "flash"), (200, "efficient"), (224, "efficient"), (232, "flash")],
)
def test_wide_heads_need_shared_memory_for_their_backward(
    capability: tuple[int, int], width: int, expected: str
) -> None:
    """``check_requires_grad_and_head_dim_gt192_constraints_on_sm86_89_or_120``.

    Above 192 there is no room for it; above 224 there is, but for dropout.
    """
    assert backend(width, capability) == expected
    assert backend(width, capability, requires_grad=False) == "flash"
    dropped = "flash" if width <= 192 else "efficient"
    assert backend(width, capability, dropout_p=0.1) == dropped
    assert backend(width, AMPERE, dropout_p=0.1) == "flash"


def test_no_flash_beyond_256_with_a_mask_in_float32_or_before_ampere() -> None:
    assert backend(256, AMPERE) == "flash"
    assert backend(264, AMPERE) == "efficient"
    assert backend(64, AMPERE, mask_shape=(32, 32)) == "efficient"
    assert backend(64, AMPERE, dtype="float32") == "efficient"
    assert backend(64, (7, 5)) == "efficient"
    assert backend(64, HOPPER) == "cudnn"
