"""The estimator where the truth is known, and over a training."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from memfit.cli import main
from memfit.errors import UsageError
from memfit.recipe.recipe import Recipe
from memfit.step.job import resolve
from memfit.study.measuring.noise import measure_noise, micro_batches_of, noise_scale

DATA = "shapes,train=256,val=64,test=64,size=16"
Values = NDArray[np.float64]


class Quadratic:
    """``loss(w, x) = ½ (w − x)ᵀ H (w − x)`` with normal samples x: its gradients are known.

    At w the gradient of a sample is ``H (w − x)``, with mean ``H (w − E x)`` and covariance
    ``H C H`` where C is that of x.
    """

    def __init__(self, dimensions: int, noise: float) -> None:
        shape = np.random.default_rng(7)
        self.curvature = np.linspace(0.2, 2.0, dimensions)
        self.spread = noise * np.linspace(1.5, 0.5, dimensions)
        self.offset = shape.normal(size=dimensions)  # w − E x
        gradient = self.curvature * self.offset
        self.squared_norm = float(gradient @ gradient)
        self.trace = float(((self.curvature * self.spread) ** 2).sum())

    def squares(
        self, random: np.random.Generator, steps: int, small: int, count: int
    ) -> tuple[Values, Values]:
        """Mean over the micro-batches, and of their mean, for each step."""
        shape = (steps, count, len(self.offset))
        # the mean over b samples of x is normal with a b-th of the variance
        means = random.standard_normal(shape) * self.spread / math.sqrt(small)
        gradients = self.curvature * (self.offset - means)
        large = gradients.mean(axis=1)
        return (gradients**2).sum(2).mean(1), (large**2).sum(1)


@pytest.mark.parametrize(("small", "count"), [(8, 8), (4, 32), (16, 4)])
def test_the_truth_lies_in_the_interval_in_93_of_100_seeds(small: int, count: int) -> None:
    loss = Quadratic(20, noise=3.0)
    truth = loss.trace / loss.squared_norm
    inside = 0
    for seed in range(100):
        squares = loss.squares(np.random.default_rng(seed), 200, small, count)
        found = noise_scale(*squares, small, small * count, resamples=1000, seed=seed)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= truth <= found.high
    assert inside >= 93
    assert inside < 100  # an interval that is never wrong says nothing


@pytest.mark.parametrize("count", [2, 3, 8, 32])
def test_both_terms_are_unbiased(count: int) -> None:
    loss = Quadratic(20, noise=3.0)
    found = [
        noise_scale(
            *loss.squares(np.random.default_rng(seed), 20, 4, count), 4, 4 * count, resamples=2
        )
        for seed in range(400)
    ]
    for truth, values in (
        (loss.squared_norm, [each.grad_norm_squared for each in found]),
        (loss.trace, [each.trace for each in found]),
    ):
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        assert abs(float(np.mean(values)) - truth) < 3.5 * error
        assert error < 0.1 * truth


@settings(max_examples=40)
@given(
    scale=st.floats(1e-6, 1e6), count=st.integers(2, 32), seed=st.integers(0, 1000)
)  # fmt: skip
def test_scaling_the_gradients_changes_nothing(scale: float, count: int, seed: int) -> None:
    squares = Quadratic(5, noise=1.0).squares(np.random.default_rng(seed), 30, 4, count)
    plain = noise_scale(*squares, 4, 4 * count, resamples=200)
    scaled = noise_scale(*(scale**2 * each for each in squares), 4, 4 * count, resamples=200)
    for name in ("value", "low", "high"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-6)
    assert scaled.trace == pytest.approx(scale**2 * plain.trace, rel=1e-6)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=3, max_size=30
    ),
    st.integers(1, 64),
    st.integers(2, 32),
)  # fmt: skip
def test_whatever_the_squares_nothing_is_infinite_or_negative(
    pairs: list[tuple[float, float]], small: int, count: int
) -> None:
    columns = list(zip(*pairs, strict=True))
    found = noise_scale(columns[0], columns[1], small, small * count, resamples=50)
    for value in (found.value, found.low, found.high):
        assert value is None or (math.isfinite(value) and value >= 0)
    assert (found.value is None) == (found.reason is not None) == (found.high is None)
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_gradient_of_pure_noise_has_no_scale_but_a_least_one() -> None:
    loss = Quadratic(20, noise=3.0)
    loss.offset[:] = 0
    found = noise_scale(*loss.squares(np.random.default_rng(0), 100, 4, 8), 4, 32)
    assert found.value is None
    assert found.high is None
    assert found.low is not None
    assert found.low > 100  # samples: far above the batch at which it was looked
    assert "cannot be told from zero" in str(found.reason)


def test_equal_gradients_have_no_noise() -> None:
    found = noise_scale([4.0] * 5, [4.0] * 5, 2, 8)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.grad_norm_squared == pytest.approx(4.0)


def test_two_samples_by_hand() -> None:
    # gradients 3 and 1 (b = 1, k = 2): mean of squares 5, square of the mean 4
    found = noise_scale([5.0] * 3, [4.0] * 3, 1, 2)
    assert found.trace == 2.0  # the unbiased variance of 3 and 1
    assert found.grad_norm_squared == 3.0  # 4 minus half of it
    assert found.value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("small", "large", "batches", "words"),
    [
        ([1.0] * 4, [1.0] * 4, (8, 8), "at least"),
        ([1.0] * 4, [1.0] * 4, (0, 8), "at least"),
        ([1.0] * 2, [1.0] * 2, (4, 8), "at least 3"),
        ([1.0] * 4, [1.0] * 3, (4, 8), "4 small and 3 large"),
    ],
)
def test_what_makes_no_noise_scale(
    small: list[float], large: list[float], batches: tuple[int, int], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        noise_scale(small, large, *batches)
    assert words in f"{caught.value} {caught.value.hint}"


# -- over a training -------------------------------------------------------------------------------


def test_the_noise_of_a_training_is_that_of_its_samples_gradients() -> None:
    """Against the covariance of single samples' gradients, at weights that do not move."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
    recipe = resolve(model=model, data=DATA, lr=1e-12, schedule="constant")
    found = measure_noise(recipe, steps=8, micro_batch=8, micro_batches=4).overall.noise

    gradients = []
    for image, label in recipe.loader(batch_size=1).epoch(0):
        model.zero_grad()
        nn.functional.cross_entropy(model(image), label).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]).double())
    rows = torch.stack(gradients)
    trace = float(rows.var(dim=0).sum())
    # unbiased in expectation over orders; exact is the identity that both obey for one epoch:
    # B=32, b=8: the mean of |g_b|² over all micro-batches of the epoch
    order = rows.reshape(8, 4, 8, -1).mean(2)
    small, large = (order**2).sum(-1).mean(), (order.mean(1) ** 2).sum(-1).mean()
    assert found.trace == pytest.approx(float((small - large) / (1 / 8 - 1 / 32)), rel=1e-4)
    assert found.grad_norm_squared == pytest.approx(float((32 * large - 8 * small) / 24), rel=1e-3)
    assert found.trace == pytest.approx(trace, rel=0.25)


def test_measuring_changes_no_training() -> None:
    recipe = resolve(model="cnn", data=DATA, lr=0.05)
    all_steps = measure_noise(recipe, steps=12, micro_batch=8, micro_batches=4)
    some = measure_noise(recipe, steps=12, micro_batch=8, micro_batches=4, every=4)
    assert all_steps.losses == some.losses
    assert (all_steps.overall.noise.samples, some.overall.noise.samples) == (12, 3)


def test_clipping_does_not_hide_the_gradient() -> None:
    recipe = resolve(model="mlp", data=DATA, lr=1e-12)
    plain = measure_noise(recipe, steps=4, micro_batch=8, micro_batches=4)
    clipped = measure_noise(
        recipe.but(clip_grad_norm=1e-3), steps=4, micro_batch=8, micro_batches=4
    )
    assert clipped.overall.noise == plain.overall.noise


def test_points_follow_the_training_and_layers_sum_up() -> None:
    told = []
    found = measure_noise(
        resolve(model="mlp", data=DATA, lr=0.01), steps=60, micro_batch=4, micro_batches=4,
        by_layer=True, progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert [point.step for point in found] == sorted(point.step for point in found)
    assert len(found) == len(found.points) == 3
    assert sum(point.noise.samples for point in found) == 60
    assert found[0].epoch == pytest.approx(found[0].step / 16)
    assert told[-1] == (60, 60)
    for point in (*found, found.overall):
        assert point.layers is not None
        assert list(point.layers) == ["1", "3"]
        for name in ("trace", "grad_norm_squared"):
            parts = sum(getattr(each, name) for each in point.layers.values())
            assert parts == pytest.approx(getattr(point.noise, name), rel=1e-9)
    json.dumps(found.to_dict(), allow_nan=False)


def test_batch_norm_is_named_and_partial_batches_are_left_out() -> None:
    data = "shapes,train=100,val=10,test=10,size=16"
    recipe = resolve(model="cnn", data=data, lr=0.01)
    found = measure_noise(recipe, steps=8, micro_batch=8, micro_batches=4)
    assert found.overall.noise.samples == 6  # each fourth batch has 4 images
    assert any("BatchNorm" in note and "micro-batch (8)" in note for note in found.notes)
    assert any("not measured: 2." in note for note in found.notes)
    plain = measure_noise(recipe.but(model="mlp"), steps=3, micro_batch=8, micro_batches=4)
    assert not plain.notes


def test_few_images_seen_again_and_again_are_told() -> None:
    recipe = resolve(model="mlp", data="shapes,train=64,val=10,test=10,size=16", lr=0.05)
    found = measure_noise(recipe, steps=30, micro_batch=4, micro_batches=4)
    assert any("After the first epoch" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 2}, "--steps is 2"),
        ({"micro_batches": 1}, "--micro-batches is 1"),
        ({"micro_batch": 0}, "--micro-batch is 0"),
        ({"every": 0}, "--every is 0"),
        ({"every": 5}, "measures 2"),
        ({"micro_batch": 100}, "the data has 256"),
    ],
)
def test_impossible_measurements(changes: dict[str, Any], words: str) -> None:
    asked = {"steps": 10, "micro_batch": 8, "micro_batches": 4} | changes
    with pytest.raises(UsageError, match=words):
        measure_noise(resolve(model="mlp", data=DATA), **asked)


@pytest.mark.parametrize(
    ("fields", "asked", "parts"),
    [
        ({}, (None, None), (8, 8)),
        ({"global_batch": 96}, (None, None), (12, 8)),
        ({"global_batch": 50}, (None, None), (10, 5)),
        ({"global_batch": 96}, (16, None), (16, 6)),
        ({"global_batch": 96}, (None, 4), (24, 4)),
        ({"global_batch": 96}, (10, 3), (10, 3)),
        ({"batch_size": 16}, (None, None), (16, 8)),
        ({"batch_size": 16, "global_batch": 64}, (None, None), (16, 4)),
    ],
)
def test_how_the_global_batch_is_cut(
    fields: dict[str, int], asked: tuple[int | None, int | None], parts: tuple[int, int]
) -> None:
    assert micro_batches_of(Recipe(model="mlp", **fields), *asked) == parts


def test_a_global_batch_that_cannot_be_cut() -> None:
    for fields in ((10, None), (None, 7), (None, 0)):
        with pytest.raises(UsageError, match="cannot be cut"):
            micro_batches_of(Recipe(model="mlp", global_batch=64), *fields)


_RANK = """
import json, sys
import torch.distributed as dist
from memfit.step.job import resolve
from memfit.study.measuring.noise import measure_noise

rank, store = int(sys.argv[1]), dist.FileStore(sys.argv[2], 2)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
recipe = resolve(model="mlp", data=sys.argv[3], lr=0.01)
for micro_batches in (2, 4):
    found = measure_noise(recipe, steps=6, micro_batch=8, micro_batches=micro_batches)
    print(json.dumps(found.overall.noise.to_dict()))
dist.destroy_process_group()
"""


def test_ranks_share_the_micro_batches(tmp_path: Path) -> None:
    """One each, and two each: as one process that does them all."""
    line = [sys.executable, "-c", _RANK]
    started = [
        subprocess.Popen(
            [*line, str(rank), str(tmp_path / "store"), DATA], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]  # fmt: skip
    answers = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0], answers[0][1] + answers[1][1]
    assert answers[0][0] == answers[1][0]
    recipe = resolve(model="mlp", data=DATA, lr=0.01)
    for text, micro_batches in zip(answers[0][0].splitlines(), (2, 4), strict=True):
        together = json.loads(text)
        alone = measure_noise(recipe, steps=6, micro_batch=8, micro_batches=micro_batches)
        expected = alone.overall.noise.to_dict()
        assert together["samples"] == expected["samples"] == 6
        for name in ("trace", "grad_norm_squared"):
            assert together[name] == pytest.approx(expected[name], rel=1e-3)


# -- the command -----------------------------------------------------------------------------------


def test_the_command_tells_the_noise_scale(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    figure = tmp_path / "noise.png"
    line = [
        "noise", "cnn", "--data", DATA, "--lr", "0.01", "--steps", "50", "--micro-batch", "4",
        "--micro-batches", "4", "--by-layer", "--figure", str(figure),
    ]  # fmt: skip
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert "B_simple" in out
    assert "95 %" in out
    assert "BatchNorm" in out
    assert f"wrote {figure}" in err
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert main(line) == 1  # never overwritten unasked
    assert "--force" in capsys.readouterr().err
    assert main([*line, "--force", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["schema_version"] == 1
    assert content["overall"]["noise"]["large_batch"] == 16
    assert len(content["points"]) == 2
    assert set(content["overall"]["layers"]) == {"0", "2", "4", "7"}


def test_the_command_takes_a_recipe_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'model = "mlp"\ndata = "{DATA}"\nglobal_batch = 32\nsteps = 500\n')
    assert main(["noise", str(recipe), "--steps", "9", "--every", "3", "--json"]) == 0
    noise = json.loads(capsys.readouterr().out)["overall"]["noise"]
    assert (noise["small_batch"], noise["large_batch"], noise["samples"]) == (4, 32, 3)


def test_mistakes_at_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["noise", "mlp", "--data", DATA, "--micro-batch", "7", "--global-batch", "64"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--micro-batches" in err
