"""Sizes that grow faster than the batch: two traces must not pass for a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import memfit
from memfit.memory.allocator.timeline import replay
from memfit.memory.tape.tape import Curve, NotAffine


def similarities(output: Tensor, _target: Tensor) -> Tensor:
    """InfoNCE over the batch: N x N scores."""
    scores = F.normalize(output, dim=1) @ F.normalize(output, dim=1).T
    return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


class AcrossTheBatch(nn.Module):
    """Attention in which each sample looks at all others."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(16, 2), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, None]
        scores: Tensor = self.head(self.attention(tokens, tokens, tokens)[0][:, 0])
        return scores


class AllPairs(nn.Module):
    """The distances of all pairs, each once: N (N - 1) / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
        return (y[first] - y[second]).pow(2).sum(1).mean()


@pytest.mark.parametrize(
    ("model", "loss"),
    [(lambda: nn.Linear(16, 32), similarities), (AcrossTheBatch, None), (AllPairs, None)],
)
@pytest.mark.parametrize("batch", [3, 50, 200])
def test_any_batch_is_what_a_trace_of_it_says(
    model: Callable[[], nn.Module], loss: Any, batch: int
) -> None:
    plan = memfit.plan(model, input_shape=(16,), loss=loss, gpu="8GiB", verify=False)
    traced = replay(plan.step.trace(batch), settings=plan.settings)
    assert plan.at(batch).peak_allocated_bytes == traced.peak.allocated_bytes
    assert plan.at(batch).peak_reserved_bytes == traced.peak_reserved_bytes


def test_lengths_of_every_sample_are_no_other_step() -> None:
    """CTC is told the length of each sample: a longer list for a larger batch."""
    plan = memfit.plan(
        lambda: nn.Linear(16, 30), input="20xNx16", loss="ctc", target="5:int64", gpu="8GiB",
        verify=False,
    )  # fmt: skip
    assert plan.is_affine
    traced = replay(plan.step.trace(50), settings=plan.settings)
    assert plan.at(50).peak_reserved_bytes == traced.peak_reserved_bytes
    assert plan.at(50).timeline.sizes_bytes == traced.sizes_bytes


def test_a_square_is_said() -> None:
    plan = memfit.plan(lambda: nn.Linear(16, 32), input_shape=(16,), loss=similarities, gpu="8GiB")
    assert plan.is_affine
    assert any("square of the batch" in sentence for sentence in plan.assumptions)


def test_a_usual_model_is_traced_twice() -> None:
    traced: list[int] = []
    from memfit.planner.planning import plan_job
    from memfit.step.job import resolve

    job = resolve("mlp", input_shape=(1, 28, 28))
    plan_job(job, verify=False, watch=lambda batch, _: traced.append(batch))
    assert traced == [4, 8]


def test_three_points_show_a_parabola_and_two_a_line() -> None:
    def values(batch: int) -> list[int]:
        return [7, 3 * batch, 5 + batch * batch, 2 * batch * batch - 6 * batch]

    curve = Curve.through({batch: values(batch) for batch in (4, 8, 12)})
    assert all(curve.at(batch) == values(batch) for batch in (1, 2, 5, 100))
    line = Curve.through({4: [7, 12], 8: [7, 24]})
    assert line.squares == ()
    assert line.at(10) == [7, 30]


def test_a_parabola_without_whole_coefficients_is_refused() -> None:
    triangles = {batch: [batch * (batch - 1) // 2] for batch in (4, 8, 12)}
    with pytest.raises(NotAffine):
        Curve.through(triangles)
