"""Advice that nobody would laugh at: useful batches, cards that take what was asked."""

from __future__ import annotations

import pytest

from memfit.cards.catalogue import GPU, gpus
from memfit.planner.largest import MOST_USEFUL_BATCH, useful_batch
from memfit.planner.overview import overview
from memfit.planner.plan import Plan
from memfit.planner.planning import plan
from memfit.planner.verdict import COMMON_CARDS


@pytest.fixture(autouse=True)
def _no_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memfit.planner.planning.local_gpu", lambda: None)


def mlp(**options: object) -> Plan:
    return plan("mlp", verify=False, **{"input_shape": (28, 28), **options})


# -- how many samples are of use -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "global_batch", "most", "because"),
    [
        (None, None, 8192, "published"),
        (60_000, None, 8192, "published"),
        (500, None, 500, "samples"),
        (None, 256, 8192, "published"),
        (None, 32_768, 32_768, "global_batch"),
        (1_281_167, 32_768, 32_768, "global_batch"),
        (500, 32_768, 500, "samples"),
    ],
)
def test_what_ends_a_useful_batch(
    samples: int | None, global_batch: int | None, most: int, because: str
) -> None:
    useful = useful_batch(samples, global_batch)
    assert (useful.batch_size, useful.because) == (most, because)


def test_of_a_small_network_memory_is_not_the_limit() -> None:
    """A grey image of 28x28 is 784 inputs; a T4 holds two million, and nobody wants so many."""
    made = mlp(gpu="t4")
    assert made.parameter_count == 784 * 128 + 128 + 128 * 10 + 10
    assert made.max_batch_size
    assert made.max_batch_size > 1_000_000
    assert made.recommended_batch_size == made.micro_batch == MOST_USEFUL_BATCH
    assert made.useful
    assert made.useful.is_reached_by(made.recommended_batch_size)
    assert mlp(gpu="t4", global_batch=65_536).micro_batch == 65_536


@pytest.mark.parametrize(("given", "trained", "recommended"), [(500, 450, 448), (11, 10, 10)])
def test_no_more_is_recommended_than_there_are_samples(
    given: int, trained: int, recommended: int
) -> None:
    """Of the training images a tenth is held out to validate on."""
    made = plan("cnn", data=f"shapes,train={given},test=8,classes=2", gpu="t4", verify=False)
    assert made.recommended_batch_size == recommended
    assert made.useful
    assert f"{trained} samples" in made.useful.text
    assert made.to_dict()["useful_batch"] == {"batch_size": trained, "because": "samples"}


def test_where_memory_is_the_limit_nothing_is_said_of_use() -> None:
    made = plan("torchvision:resnet18", gpu="2GiB", verify=False)
    assert made.recommended_batch_size
    assert made.useful
    assert not made.useful.is_reached_by(made.recommended_batch_size)


def test_where_nothing_is_trained_memory_is_the_only_limit() -> None:
    made = mlp(gpu="t4", mode="inference")
    assert made.useful is None
    assert made.recommended_batch_size
    assert made.recommended_batch_size > MOST_USEFUL_BATCH


# -- which card ------------------------------------------------------------------------------------


def largest_card() -> GPU:
    return max(gpus().values(), key=lambda card: card.capacity_bytes)


def test_what_no_card_takes_does_not_fit_without_a_card_either() -> None:
    most = mlp(gpu=largest_card()).max_batch_size
    assert most
    assert mlp(batch_size=most // 2).fits is None
    assert mlp(batch_size=16_000_000, input_shape=(3, 224, 224)).fits is False


@pytest.mark.parametrize(
    ("batch", "key"), [(64, "rtx-3060"), (15_000, "l4"), (90_000, "h200"), (900_000, None)]
)
def test_the_smallest_card_is_named_common_ones_first(batch: int, key: str | None) -> None:
    made = mlp(input_shape=(3, 224, 224), batch_size=batch)
    taking = [
        c for c in gpus().values() if not c.is_shared and made.limits.on(c).max_batch_size >= batch
    ]
    common = [card for card in taking if card.key in COMMON_CARDS]
    found = overview(made, None).smallest_card
    assert found is min(common or taking, key=lambda card: card.usable_bytes, default=None)
    assert (found and found.key) == key
    assert (made.fits is False) == (found is None)


def test_no_card_is_named_where_no_batch_was_asked_about() -> None:
    assert overview(mlp(), None).smallest_card is None


def test_a_card_that_is_too_small_is_told_the_smallest_that_is_not() -> None:
    found = overview(mlp(batch_size=500_000, gpu="2GiB"), None)
    assert found.verdict
    assert not found.verdict.fits
    assert found.verdict.larger_card is gpus()["rtx-3060"]
