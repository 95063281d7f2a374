"""The generated set: shapes on noisy backgrounds, learnable, the same on every machine.

A sample depends only on (seed, split, its number): all randomness is counted out by Philox, and
the pixels need only arithmetic and square roots, which IEEE 754 rounds alike everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import Dataset, Split
from memfit.data.sets.shape_outlines import OUTLINES, Field, outline
from memfit.errors import UnknownName, UsageError
from memfit.recipe.words import parse_spec
from memfit.units import GIB, format_bytes

__all__ = ["ShapesOptions", "generate", "open_shapes", "parse_shapes"]

Vector = NDArray[Any]  # (N, 1, 1) float32: a value for each sample, to go with pixels

_SPLITS = ("train", "val", "test")
_STREAMS = ("labels", "scene", "noise")
_SCENE_DRAWS = 64  # for one sample; unused ones are spare
_SPOTS = 4
_CHUNK_PIXELS = 1 << 18  # fits a cache
_LARGEST_BYTES = 4 * GIB
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's "L"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapesOptions:
    """What to generate.

    Args:
        size: height and width in pixels.
        channels: 1 grey, 3 RGB.
        classes: the first so many of the outlines.
        train: samples to train on.
        val: samples to validate on; none when omitted.
        test: samples to evaluate on.
        seed: another one makes other samples.

    Raises:
        UsageError: a value is impossible.
    """

    size: int = 32
    channels: int = 3
    classes: int = 8
    train: int = 4000
    val: int = 0
    test: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "size": (8, 512), "channels": (1, 3), "classes": (2, len(OUTLINES)),
            "train": (1, 10_000_000), "val": (0, 10_000_000), "test": (1, 10_000_000),
            "seed": (0, 2**63 - 1),
        }  # fmt: skip
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise UsageError(f"shapes: {name} is {value!r}; it must be a whole number.")
            if not least <= value <= most:
                raise UsageError(f"shapes: {name} is {value}; it goes from {least} to {most:,}.")
        if self.channels == 2:
            raise UsageError("shapes: channels is 2; it must be 1 (grey) or 3 (RGB).")
        images = self.train + self.val + self.test
        total = images * self.size**2 * self.channels
        if total > _LARGEST_BYTES:
            raise UsageError(
                f"shapes: {images:,} images of {self.size}x{self.size} take "
                f"{format_bytes(total)}; at most {format_bytes(_LARGEST_BYTES)} are generated."
            )


def parse_shapes(text: str) -> ShapesOptions:
    """``"shapes,size=48,channels=1"`` as options.

    Raises:
        UsageError: a value is impossible.
        UnknownName: there is no such option.
    """
    spec = parse_spec(text, "shapes", "shapes,size=48,channels=1")
    names = {field.name for field in fields(ShapesOptions)}
    for key in spec.keys() - {"name"}:
        if key not in names:
            raise UnknownName("option of shapes:", key, names)
    return ShapesOptions(**{key: value for key, value in spec.items() if key != "name"})


def open_shapes(options: ShapesOptions | None = None, name: str = "shapes") -> Dataset:
    """Generate the set into memory: 5,000 images of 32x32 in about a second.

    Args:
        options: the default ones when omitted.
        name: of the set.
    """
    options = options or ShapesOptions()
    splits: dict[str, Split] = {}
    for split in _SPLITS:
        if count := getattr(options, split):
            images, labels = generate(options, split, 0, count)
            splits[split] = ArraySplit(split, images, labels, name)
    classes = tuple(OUTLINES)[: options.classes]
    return Dataset(name, "generated shapes", splits, classes, bytes_on_disk=0)


def generate(
    options: ShapesOptions, split: str, first: int, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Some samples; the same whichever others are generated.

    Args:
        options: size, channels, classes and seed.
        split: ``"train"``, ``"val"`` or ``"test"``.
        first: number of the first sample.
        count: how many.

    Returns:
        Images ``(count, size, size)`` or ``(count, size, size, 3)`` uint8; labels ``(count,)``.
    """
    labels = _labels(options, split, first, count)
    size, channels = options.size, options.channels
    images = np.empty((count, size, size, channels), np.uint8)
    step = max(1, _CHUNK_PIXELS // size**2)
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        images[part] = _draw(options, split, first + start, labels[part])
    return (images[..., 0] if channels == 1 else images), labels


def _random(
    options: ShapesOptions, split: str, stream: str, first: int, count: int, draws: int
) -> NDArray[np.uint64]:
    """``(count, draws)`` numbers; row i is what belongs to sample ``first + i``."""
    number = _STREAMS.index(stream)
    purpose = 6 + number if split == "val" else 2 * number + (split == "test")
    blocks = -(-draws // 4)  # Philox gives four numbers for each value of its counter
    philox = np.random.Philox(key=options.seed + (purpose << 64), counter=first * blocks)
    raw = philox.random_raw(count * blocks * 4)
    return np.asarray(raw, np.uint64).reshape(count, -1)[:, :draws]


def _labels(options: ShapesOptions, split: str, first: int, count: int) -> NDArray[np.int64]:
    """Every run of as many samples as classes has each class once, in random order."""
    classes = options.classes
    block, skip = divmod(first, classes)
    blocks = -(-(skip + count) // classes)
    order = _random(options, split, "labels", block, blocks, classes).argsort(1, kind="stable")
    return order.reshape(-1)[skip : skip + count].astype(np.int64)


class _Draws:
    """Uniform numbers, taken one after another for all samples at once."""

    def __init__(self, raw: NDArray[np.uint64]) -> None:
        self._values = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        self._next = 0

    def between(self, least: float, most: float) -> Vector:
        """``(N, 1, 1)`` from least to below most."""
        values = self._values[:, self._next, None, None]
        self._next += 1
        return np.float32(least) + values * np.float32(most - least)

    def direction(self, widest: float = 1.0) -> tuple[Vector, Vector]:
        """A unit vector; 1 is any in the right half, less is nearer to (1, 0).

        The rational points of the circle, so that no sine has to be the same everywhere.
        """
        t = self.between(-widest, widest)
        return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)

    def sign(self) -> Vector:
        """-1 or 1."""
        return np.where(self.between(0, 1) < 0.5, np.float32(-1), np.float32(1))


def _draw(
    options: ShapesOptions, split: str, first: int, labels: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """``(N, S, S, C)``: background, spots, shadow, shape, noise."""
    count, size = len(labels), options.size
    draws = _Draws(_random(options, split, "scene", first, count, _SCENE_DRAWS))
    steps = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    x, y = steps[None, None, :], steps[None, :, None]

    lighter = draws.sign()  # the shape than its background
    base = 0.5 - lighter * draws.between(0.12, 0.26)
    picture = _background(draws, x, y, base)
    for _ in range(_SPOTS):
        _add_spot(draws, x, y, base, picture)
    _add_shape(draws, x, y, base, lighter, labels, picture)

    pixels = np.stack(np.broadcast_arrays(*picture), axis=-1)
    if options.channels == 1:
        pixels = sum(w * pixels[..., c : c + 1] for c, w in enumerate(_LUMA))  # type: ignore[assignment]
    noise = (
        _noise(options, split, first, count).reshape(pixels.shape)
        * draws.between(0.01, 0.07)[..., None]
    )
    levels: NDArray[Any] = np.clip(pixels + noise, 0, 1) * np.float32(255) + np.float32(0.5)
    eight_bits: NDArray[np.uint8] = levels.astype(np.uint8)
    return eight_bits


def _noise(options: ShapesOptions, split: str, first: int, count: int) -> Field:
    """Values around 0 for each pixel and channel: sums of four bytes, which is nearly normal."""
    values = options.size**2 * options.channels
    raw = _random(options, split, "noise", first, count, -(-values // 2))
    four = np.ascontiguousarray(raw).astype("<u8").view(np.uint8).reshape(count, -1, 4)
    centred: NDArray[Any] = four.sum(2, dtype=np.int16)[:, :values] - 510
    return centred.astype(np.float32) * np.float32(1 / 148)


def _colour(luma: Vector | Field, u: Vector | Field, v: Vector | Field) -> list[Field]:
    """Red, green and blue of a brightness and a hue (U and V of ITU-R BT.601)."""
    return [luma + 1.14 * v, luma - 0.395 * u - 0.581 * v, luma + 2.032 * u]


def _background(draws: _Draws, x: Field, y: Field, base: Vector) -> list[Field]:
    """A gradient of brightness and hue in some direction."""
    across, down = draws.direction()
    along = (x - 0.5) * across + (y - 0.5) * down
    slope = draws.sign() * draws.between(0.05, 0.3)
    u, v = draws.between(-0.14, 0.14), draws.between(-0.14, 0.14)
    turn_u, turn_v = draws.between(-0.12, 0.12), draws.between(-0.12, 0.12)
    return _colour(base + along * slope, u + along * turn_u, v + along * turn_v)


def _add_spot(draws: _Draws, x: Field, y: Field, base: Vector, picture: list[Field]) -> None:
    """A small soft disc that means nothing."""
    dx, dy = x - draws.between(0, 1), y - draws.between(0, 1)
    radius = draws.between(0.03, 0.075)
    distance = np.sqrt(dx * dx + dy * dy) - radius
    luma = base + draws.sign() * draws.between(0.1, 0.3)
    colour = _colour(luma, draws.between(-0.15, 0.15), draws.between(-0.15, 0.15))
    _lay(picture, colour, _cover(distance, x.shape[-1]) * np.float32(0.8))


def _add_shape(
    draws: _Draws,
    x: Field,
    y: Field,
    base: Vector,
    lighter: Vector,
    labels: NDArray[np.int64],
    picture: list[Field],
) -> None:
    radius = draws.between(0.24, 0.4)
    cx, cy = (0.5 + (0.52 - radius) * draws.between(-1, 1) for _ in range(2))
    cos, sin = draws.direction(widest=0.27)  # 30 degrees to either side
    dx, dy = (x - cx) / radius, (y - cy) / radius
    px, py = cos * dx + sin * dy, cos * dy - sin * dx

    shadow = outline(labels, px - 0.1, py - 0.14) * radius
    black = [np.zeros((), np.float32)] * 3
    _lay(picture, black, np.clip(0.5 - shadow / 0.1, 0, 1) * draws.between(0.1, 0.3))

    distance = outline(labels, px, py) * radius
    luma = base + lighter * draws.between(0.34, 0.46) - dy * 0.07  # light from above
    across, up = draws.direction()
    side, strength = draws.sign(), draws.between(0.16, 0.3)
    colour = _colour(luma, side * across * strength, side * up * strength)
    _lay(picture, colour, _cover(distance, x.shape[-1]))


def _cover(distance: Field, size: int) -> Field:
    """Share of a pixel inside of an outline, by the distance of its centre."""
    share: Field = np.clip(np.float32(0.5) - distance * np.float32(size), 0, 1)
    return share


def _lay(picture: list[Field], colour: list[Field], cover: Field) -> None:
    for channel, value in enumerate(colour):
        picture[channel] = picture[channel] + (value - picture[channel]) * cover
