"""Mean and standard deviation against NumPy over all pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from memfit.data.facts.statistics import histogram_of, pixel_statistics

PIXELS = st.sampled_from([1, 3]).flatmap(
    lambda channels: arrays(
        np.uint8,
        array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9).map(lambda s: (*s, channels)),
    )
)


@given(PIXELS)
def test_the_numbers_are_numpys(pixels: np.ndarray) -> None:
    statistics = pixel_statistics(histogram_of(pixels))
    assert statistics is not None
    scaled = pixels.reshape(-1, pixels.shape[-1]).astype(np.float64) / 255
    np.testing.assert_allclose(statistics.mean, scaled.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(statistics.std, scaled.std(axis=0), atol=1e-12)
    assert statistics.pixels == len(scaled)
    assert (statistics.lowest, statistics.highest) == (pixels.min(), pixels.max())


@given(PIXELS)
def test_the_order_of_pixels_changes_no_bit(pixels: np.ndarray) -> None:
    rows = pixels.reshape(-1, pixels.shape[-1])
    shuffled = rows[np.random.default_rng(len(rows)).permutation(len(rows))]
    assert pixel_statistics(histogram_of(rows)) == pixel_statistics(histogram_of(shuffled))


def test_blocks_of_a_large_image_add_up() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 301, 3), dtype=np.uint8)
    counts = histogram_of(pixels)
    for channel in range(3):
        expected = np.bincount(pixels[..., channel].ravel(), minlength=256)
        np.testing.assert_array_equal(counts[channel], expected)


def test_the_range_after_normalising() -> None:
    pixels = np.array([[[0, 100, 7], [255, 200, 9]]], dtype=np.uint8)
    statistics = pixel_statistics(histogram_of(pixels))
    assert statistics is not None
    mean, std = np.array(statistics.mean), np.array(statistics.std)
    normalised = (pixels / 255 - mean) / std
    assert statistics.normalised_range == pytest.approx((normalised.min(), normalised.max()))


def test_a_constant_channel_has_no_range() -> None:
    statistics = pixel_statistics(histogram_of(np.full((2, 2, 1), 9, dtype=np.uint8)))
    assert statistics is not None
    assert statistics.std == (0.0,)
    assert statistics.normalised_range is None


def test_no_pixels_no_numbers() -> None:
    assert pixel_statistics(np.zeros((3, 256), dtype=np.int64)) is None
