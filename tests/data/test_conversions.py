"""Pillow and scikit-image are the oracles; where a level differs, the test says why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import color
from torch import Tensor

from memfit.data.images import conversions
from memfit.data.images.conversions import (
    chw_to_hwc,
    cmyk_to_rgb,
    denormalise,
    hsv_to_rgb,
    hwc_to_chw,
    lab_to_rgb,
    normalise,
    rgb_to_cmyk,
    rgb_to_hsv,
    rgb_to_lab,
    rgb_to_ycbcr,
    to_grey,
    to_rgb,
    ycbcr_to_rgb,
)
from memfit.data.images.decode import pixels_of
from memfit.errors import UsageError

Conversion = Callable[[Tensor], Tensor]

FROM_RGB: tuple[Conversion, ...] = (to_grey, to_rgb, rgb_to_hsv, rgb_to_ycbcr, rgb_to_cmyk)
TO_RGB: tuple[Conversion, ...] = (hsv_to_rgb, ycbcr_to_rgb)
THERE_AND_BACK: tuple[tuple[Conversion, Conversion], ...] = (
    (rgb_to_hsv, hsv_to_rgb),
    (rgb_to_ycbcr, ycbcr_to_rgb),
    (rgb_to_cmyk, cmyk_to_rgb),
    (rgb_to_lab, lab_to_rgb),
)
EVERY = (*FROM_RGB, *TO_RGB, rgb_to_lab, lab_to_rgb)


def named(conversion: object) -> str:
    return getattr(conversion, "__name__", "")


def grid(channels: int = 3, levels: int = 32) -> NDArray[np.uint8]:
    """All colours of a grid that includes 0 and 255, as (H, W, C)."""
    steps = np.linspace(0, 255, levels).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(*[steps] * channels, indexing="ij"), axis=-1)
    return colours.reshape(levels, -1, channels)


def by_pillow(pixels: NDArray[np.uint8], source: str, target: str) -> NDArray[np.int64]:
    image = Image.frombytes(source, pixels.shape[1::-1], pixels.tobytes())
    return np.asarray(image.convert(target)).astype(np.int64)


def by_us(conversion: Conversion, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    return chw_to_hwc(conversion(hwc_to_chw(torch.from_numpy(pixels)))).numpy().astype(np.int64)


def off(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> list[int]:
    """The largest difference in each channel."""
    worst = np.abs(ours - theirs).reshape(-1, ours.shape[-1]).max(axis=0)
    return [int(level) for level in worst]


def colours(values: NDArray[np.float64]) -> Tensor:
    """(..., 3) as an image (3, 1, n)."""
    return torch.from_numpy(np.ascontiguousarray(values.reshape(1, -1, 3))).movedim(-1, 0)


class TestAgainstPillow:
    def test_grey_is_the_same(self) -> None:
        assert off(by_us(to_grey, grid()), by_pillow(grid(), "RGB", "L")[..., None]) == [0]

    def test_ink_is_the_same(self) -> None:
        assert off(by_us(rgb_to_cmyk, grid()), by_pillow(grid(), "RGB", "CMYK")) == [0] * 4
        inks = grid(channels=4, levels=16)
        assert off(by_us(cmyk_to_rgb, inks), by_pillow(inks, "CMYK", "RGB")) == [0] * 3

    def test_hue_and_saturation_are_rounded_where_pillow_cuts_off(self) -> None:
        assert off(by_us(rgb_to_hsv, grid()), by_pillow(grid(), "RGB", "HSV")) == [1, 1, 0]

    def test_rgb_from_hsv_is_the_same(self) -> None:
        assert off(by_us(hsv_to_rgb, grid()), by_pillow(grid(), "HSV", "RGB")) == [0] * 3

    def test_ycbcr_is_rounded_where_pillow_cuts_off(self) -> None:
        assert off(by_us(rgb_to_ycbcr, grid()), by_pillow(grid(), "RGB", "YCbCr")) == [1] * 3
        assert off(by_us(ycbcr_to_rgb, grid()), by_pillow(grid(), "YCbCr", "RGB")) == [1] * 3

    @pytest.mark.parametrize(("mode", "channels"), [("RGBA", 4), ("LA", 2)])
    def test_alpha_on_white_is_what_decode_does(self, mode: str, channels: int) -> None:
        pixels = grid(channels, levels=16 if channels == 4 else 256)
        image = Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
        assert off(by_us(to_rgb, pixels), pixels_of(image, 3).astype(np.int64)) == [0] * 3


class TestAgainstScikitImage:
    rgb = grid() / 255

    def test_hsv(self) -> None:
        ours = rgb_to_hsv(colours(self.rgb))
        torch.testing.assert_close(ours, colours(color.rgb2hsv(self.rgb)), rtol=0, atol=1e-12)
        ours = hsv_to_rgb(colours(self.rgb))
        torch.testing.assert_close(ours, colours(color.hsv2rgb(self.rgb)), rtol=0, atol=1e-12)

    def test_lab_but_for_their_rounded_constants(self) -> None:
        """They take matrix and white point from two sources, so their white has b* = 0.005."""
        theirs = colours(color.rgb2lab(self.rgb))
        torch.testing.assert_close(rgb_to_lab(colours(self.rgb)), theirs, rtol=0, atol=0.02)
        half_a_level = 0.5 / 255
        torch.testing.assert_close(lab_to_rgb(theirs), colours(self.rgb), rtol=0, atol=half_a_level)

    def test_ycbcr_in_the_range_of_video(self) -> None:
        """Theirs is Y 16..235 and Cb, Cr 16..240, with coefficients of three decimals."""
        centred = rgb_to_ycbcr(colours(self.rgb)) - torch.tensor([0, 128, 128]).view(3, 1, 1) / 255
        video = centred * torch.tensor([219.0, 224, 224]).view(3, 1, 1)
        video += torch.tensor([16.0, 128, 128]).view(3, 1, 1)
        theirs = colours(color.rgb2ycbcr(self.rgb))
        torch.testing.assert_close(video, theirs, rtol=0, atol=1e-3)

    def test_grey_has_other_weights_there(self) -> None:
        """Theirs are of BT.709 (0.2125, 0.7154, 0.0721), for linear light."""
        red = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
        assert to_grey(red).item() == pytest.approx(0.299)
        assert color.rgb2gray(np.array([1.0, 0, 0])).item() == pytest.approx(0.2125)


UNIT = st.floats(0, 1, width=32)
COLOURS = st.lists(st.tuples(UNIT, UNIT, UNIT), min_size=1, max_size=20)


class TestRoundTrips:
    @pytest.mark.parametrize(("there", "back"), THERE_AND_BACK, ids=named)
    @given(rgb=COLOURS)
    def test_float(
        self, there: Conversion, back: Conversion, rgb: list[tuple[float, float, float]]
    ) -> None:
        images = torch.tensor(rgb).T[:, None]
        torch.testing.assert_close(back(there(images)), images, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        ("there", "back", "levels"),
        [
            (rgb_to_cmyk, cmyk_to_rgb, 0),
            (rgb_to_ycbcr, ycbcr_to_rgb, 1),
            (rgb_to_hsv, hsv_to_rgb, 3),  # 256 hues for 1530 corners of the colour circle
        ],
    )
    def test_uint8_loses_a_few_levels(
        self, there: Conversion, back: Conversion, levels: int
    ) -> None:
        images = hwc_to_chw(torch.from_numpy(grid(levels=64)))
        assert (back(there(images)).int() - images.int()).abs().max() == levels

    @given(
        rgb=COLOURS,
        mean=st.floats(0, 1),
        std=st.lists(st.floats(0.05, 1), min_size=3, max_size=3),
    )
    def test_normalisation(
        self, rgb: list[tuple[float, float, float]], mean: float, std: list[float]
    ) -> None:
        images = torch.tensor(rgb).T[:, None]
        again = denormalise(normalise(images, mean, std), mean, std)
        torch.testing.assert_close(again, images, rtol=0, atol=1e-5)

    def test_axes(self) -> None:
        images = torch.rand(2, 3, 8, 9)
        assert chw_to_hwc(images).shape == (2, 8, 9, 3)
        assert torch.equal(hwc_to_chw(chw_to_hwc(images)), images)
        array = images.numpy()
        assert isinstance(chw_to_hwc(array), np.ndarray)
        assert np.array_equal(chw_to_hwc(array), chw_to_hwc(images).numpy())
        assert np.shares_memory(hwc_to_chw(chw_to_hwc(array)), array)
        batch = hwc_to_chw(torch.rand(2, 8, 9, 3))
        assert batch.is_contiguous(memory_format=torch.channels_last)


class TestSpecialColours:
    pure = torch.tensor([(r, g, b) for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)]).T[
        :, None
    ]

    @pytest.mark.parametrize("conversion", EVERY, ids=named)
    def test_neither_value_nor_gradient_is_nan(self, conversion: Conversion) -> None:
        images = torch.cat((self.pure, torch.full((3, 1, 1), 0.5)), dim=-1).requires_grad_()
        result = conversion(images)
        result.sum().backward()
        assert result.isfinite().all()
        assert images.grad is not None
        assert images.grad.isfinite().all()

    @pytest.mark.parametrize(("there", "back"), THERE_AND_BACK, ids=named)
    def test_gradient_is_the_slope(self, there: Conversion, back: Conversion) -> None:
        rgb = torch.tensor([0.2, 0.7, 0.45], dtype=torch.float64).view(3, 1, 1).requires_grad_()
        assert torch.autograd.gradcheck(there, rgb)
        assert torch.autograd.gradcheck(back, there(rgb).detach().requires_grad_())

    def test_greys_have_no_colour(self) -> None:
        greys = torch.linspace(0, 1, 256).expand(3, 1, 256)
        assert not rgb_to_hsv(greys)[:2].any()
        assert rgb_to_lab(greys)[1:].abs().max() < 1e-4
        assert (rgb_to_ycbcr((greys * 255).round().to(torch.uint8))[1:] == 128).all()
        assert rgb_to_lab(greys)[0, 0, -1].item() == pytest.approx(100, abs=1e-4)

    def test_white_stays_white(self) -> None:
        """torchvision's rgb_to_grayscale makes it 254."""
        white = torch.full((3, 1, 1), 255, dtype=torch.uint8)
        assert to_grey(white).item() == 255
        assert to_grey(white, channels=3).flatten().tolist() == [255] * 3

    def test_hue_is_below_one_and_wraps(self) -> None:
        almost_red = torch.tensor([1.0, 0.0, 1e-9]).view(3, 1, 1)
        assert rgb_to_hsv(almost_red)[0].item() == 0
        around = torch.tensor([[0.25, 1.25], [1, 1], [1, 1]])[:, None]
        assert torch.equal(hsv_to_rgb(around)[..., 0], hsv_to_rgb(around)[..., 1])

    def test_what_no_screen_shows_is_clamped(self) -> None:
        assert lab_to_rgb(torch.tensor([50.0, 120, -120]).view(3, 1, 1)).aminmax() == (0, 1)
        assert ycbcr_to_rgb(torch.tensor([1.0, 1, 0]).view(3, 1, 1)).amax() == 1


#: Powers differ in the last bit between vector and scalar instructions; LAB reaches 100.
LAST_BIT = {"rtol": 1e-6, "atol": 1e-4}


class TestEveryShapeAndDtype:
    @pytest.mark.parametrize("conversion", EVERY, ids=named)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_the_dtype_is_kept(self, conversion: Conversion, dtype: torch.dtype) -> None:
        images = torch.rand(3, 4, 5, dtype=torch.float64)
        result = conversion(images.to(dtype))
        assert result.dtype == dtype
        exact = conversion(images.to(dtype).double())
        last_bit = max(1e-4, torch.finfo(dtype).eps)  # float32 and float64 may round apart
        # Near zero, a and b of Lab are 500 and 200 times the difference of two float32 near 1.
        near_zero = 500 * 2 * torch.finfo(torch.float32).eps
        torch.testing.assert_close(result, exact.to(dtype), rtol=last_bit, atol=near_zero)

    @pytest.mark.parametrize("conversion", [*FROM_RGB, *TO_RGB], ids=named)
    def test_uint8_is_the_rounded_float(self, conversion: Conversion) -> None:
        images = hwc_to_chw(torch.from_numpy(grid(levels=8)))
        result = conversion(images)
        assert result.dtype == torch.uint8
        exact = conversion(images.double() / 255) * 255
        assert (result - exact.clamp(0, 255)).abs().max() <= 0.5 + 1e-2

    @pytest.mark.parametrize("conversion", EVERY, ids=named)
    def test_a_batch_is_its_images(self, conversion: Conversion) -> None:
        images = torch.rand(2, 2, 3, 4, 5)
        batch = conversion(images)
        assert batch.shape[:2] == (2, 2)
        torch.testing.assert_close(batch[1, 0], conversion(images[1, 0]), **LAST_BIT)
        assert conversion(images[:0]).shape == (0, *batch.shape[1:])

    @pytest.mark.parametrize("conversion", EVERY, ids=named)
    def test_channels_last_memory(self, conversion: Conversion) -> None:
        images = torch.rand(2, 3, 4, 5)
        last = conversion(images.contiguous(memory_format=torch.channels_last))
        assert last.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(last, conversion(images), **LAST_BIT)

    @pytest.mark.parametrize("conversion", EVERY, ids=named)
    def test_meta_tensors_have_shapes_only(self, conversion: Conversion) -> None:
        images = torch.rand(2, 3, 4, 5)
        result = conversion(images.to("meta"))
        assert result.is_meta
        assert result.shape == conversion(images).shape
        assert to_grey(torch.empty(3, 4, 5, dtype=torch.uint8, device="meta")).shape == (1, 4, 5)
        assert denormalise(normalise(images.to("meta"), 0.5, 0.5), 0.5, 0.5).is_meta

    def test_the_input_is_not_written_to(self) -> None:
        images = torch.rand(3, 4, 5)
        before = images.clone()
        for conversion in EVERY:
            conversion(images)
        normalise(images, 0.5, 0.5)
        denormalise(images, 0.5, 0.5)
        assert torch.equal(images, before)

    def test_grey_comes_back_unchanged_or_repeated(self) -> None:
        grey = torch.rand(1, 4, 5)
        assert to_grey(grey) is grey
        assert torch.equal(to_grey(grey, channels=3), grey.expand(3, 4, 5))
        assert torch.equal(to_rgb(grey), grey.expand(3, 4, 5))


class TestNormalisation:
    def test_each_channel_by_its_own(self) -> None:
        images = torch.rand(2, 3, 4, 5)
        mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
        expected = (images[:, 1] - 0.4822) / 0.2435
        torch.testing.assert_close(normalise(images, mean, std)[:, 1], expected)

    def test_nothing_is_clamped_unless_shown(self) -> None:
        images = torch.tensor([-4.0, 0.0, 0.5, 4.0]).view(1, 1, 4)
        assert denormalise(images, 0.5, 0.5).flatten().tolist() == [-1.5, 0.5, 0.75, 2.5]
        shown = denormalise(images, 0.5, 0.5, to_uint8=True)
        assert shown.dtype == torch.uint8
        assert shown.flatten().tolist() == [0, 128, 191, 255]

    def test_uint8_comes_back_exactly(self) -> None:
        pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
        mnist = normalise(pixels / 255, (0.1307,), (0.3081,))
        assert torch.equal(denormalise(mnist, (0.1307,), (0.3081,), to_uint8=True), pixels)

    @pytest.mark.parametrize("function", [normalise, denormalise], ids=named)
    def test_numbers_of_channels_differ(self, function: Callable[..., Tensor]) -> None:
        with pytest.raises(UsageError, match=r"mean has 1 values, but .* 3 channels: \(3, 4, 4\)"):
            function(torch.rand(3, 4, 4), (0.5,), (0.5, 0.5, 0.5))
        with pytest.raises(UsageError, match="std has 3 values, but the images have 1 channels"):
            function(torch.rand(1, 4, 4), 0.5, (0.5, 0.5, 0.5))
        with pytest.raises(UsageError, match="std above 0"):
            function(torch.rand(1, 4, 4), 0.5, 0)
        with pytest.raises(UsageError, match="finite"):
            function(torch.rand(1, 4, 4), float("nan"), 0.5)
        with pytest.raises(UsageError, match=r"not \(1, 4, 4\) uint8.*\n.*images / 255"):
            function(torch.ones(1, 4, 4, dtype=torch.uint8), 0.5, 0.5)


class TestRefusals:
    @pytest.mark.parametrize(
        ("conversion", "shape", "says"),
        [
            (rgb_to_hsv, (1, 28, 28), r"3 \(RGB\) channels, not \(1, 28, 28\) .*\n.*call to_rgb"),
            (rgb_to_hsv, (4, 28, 28), r"\(4, 28, 28\) .*\n.*cmyk_to_rgb"),
            (to_grey, (4, 28, 28), r"1 \(grey\) or 3 \(RGB\).*\n.*to_rgb \(RGBA\)"),
            (to_grey, (28, 28, 3), r"\(28, 28, 3\) .*\n.*hwc_to_chw"),
            (to_grey, (28, 28), r"\(28, 28\) .*\n.*images\[None\]"),
            (to_rgb, (5, 28, 28), r"\(5, 28, 28\)"),
            (cmyk_to_rgb, (3, 28, 28), r"4 \(CMYK\) channels, not \(3, 28, 28\)"),
        ],
    )
    def test_channels(self, conversion: Conversion, shape: tuple[int, ...], says: str) -> None:
        with pytest.raises(UsageError, match=says):
            conversion(torch.rand(shape))

    @pytest.mark.parametrize("conversion", [*EVERY, cmyk_to_rgb], ids=named)
    @pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.uint16, torch.bool])
    def test_dtypes(self, conversion: Conversion, dtype: torch.dtype) -> None:
        images = torch.zeros(4 if conversion is cmyk_to_rgb else 3, 2, 2, dtype=dtype)
        name = str(dtype).removeprefix("torch.")
        with pytest.raises(UsageError, match=rf"{named(conversion)} takes .*2, 2\) {name}"):
            conversion(images)

    @pytest.mark.parametrize("conversion", [rgb_to_lab, lab_to_rgb], ids=named)
    def test_lab_is_no_uint8(self, conversion: Conversion) -> None:
        with pytest.raises(UsageError, match=r"floating point, not .* uint8"):
            conversion(torch.zeros(3, 2, 2, dtype=torch.uint8))

    def test_arrays_where_tensors_are_needed(self) -> None:
        with pytest.raises(UsageError, match=r"not ndarray.\n.*from_numpy"):
            to_grey(np.zeros((3, 2, 2)))  # type: ignore[arg-type]

    def test_axes(self) -> None:
        with pytest.raises(UsageError, match=r"chw_to_hwc finds 28 channels in \(28, 28, 3\)"):
            chw_to_hwc(torch.rand(28, 28, 3))
        with pytest.raises(UsageError, match=r"hwc_to_chw finds 28 channels in \(3, 28, 28\)"):
            hwc_to_chw(np.zeros((3, 28, 28)))
        with pytest.raises(UsageError, match=r"not \(28, 28\)"):
            hwc_to_chw(torch.rand(28, 28))

    def test_two_grey_channels(self) -> None:
        with pytest.raises(UsageError, match="1 or 3 channels, not 2"):
            to_grey(torch.rand(3, 2, 2), channels=2)  # type: ignore[arg-type]


def test_all_names_are_public() -> None:
    assert conversions.__all__ == sorted(conversions.__all__)
    assert set(map(named, EVERY)) <= set(conversions.__all__)
