"""The outlines of the generated shapes: signed distances, negative inside.

Coordinates are in radii of the shape: x to the right, y down, (0, 0) its middle. Straight edges
give the distance to their line, which is what smoothing an edge over one pixel needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OUTLINES", "Field", "outline"]

Field = NDArray[Any]  # (N, S, S) float32: a value for each pixel

_larger: Callable[[Field, Field], Field] = np.maximum
_smaller: Callable[[Field, Field], Field] = np.minimum


def outline(labels: NDArray[np.int64], x: Field, y: Field) -> Field:
    """Distances to the outline that each label stands for.

    Args:
        labels: ``(N,)``, numbers into :data:`OUTLINES`.
        x: ``(N, S, S)``, in radii.
        y: ``(N, S, S)``, in radii.

    Returns:
        ``(N, S, S)``, in radii.
    """
    distance = np.empty(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for number, outline_of in enumerate(OUTLINES.values()):
        chosen = labels == number
        if chosen.any():
            distance[chosen] = outline_of(x[chosen], y[chosen])
    return distance


def _length(x: Field, y: Field) -> Field:
    length: Field = np.sqrt(x * x + y * y)
    return length


def _edges(x: Field, y: Field, corners: int, apothem: float) -> list[Field]:
    """Distances to the lines through the edges of a regular polygon that stands on an edge."""
    lines = []
    for corner in range(corners):
        angle = math.pi / 2 + 2 * math.pi * corner / corners
        nx, ny = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        lines.append(x * nx + y * ny - np.float32(apothem))
    return lines


def _polygon(x: Field, y: Field, corners: int, apothem: float) -> Field:
    polygon: Field = np.maximum.reduce(_edges(x, y, corners, apothem))
    return polygon


def _box(x: Field, y: Field, width: float, height: float) -> Field:
    return _larger(abs(x) - np.float32(width), abs(y) - np.float32(height))


def _star(x: Field, y: Field) -> Field:
    """A pentagram: inside of at least four of its five lines."""
    # Fatter than the true one (apothem cos 72 degrees), which is all spikes in few pixels.
    second: Field = np.sort(np.stack(_edges(x, -y, 5, 0.34)), axis=0)[-2]
    return second


def _heart(x: Field, y: Field) -> Field:
    """A square on its corner and a disc on each of its upper edges."""
    side, half = 0.52, math.sqrt(0.5)
    y = y - np.float32(0.12)
    turned_x, turned_y = (x + y) * np.float32(half), (y - x) * np.float32(half)
    middle = np.float32(side * half)
    lobes = _length(abs(x) - middle, y + middle) - np.float32(side)
    return _smaller(_box(turned_x, turned_y, side, side), lobes)


def _crescent(x: Field, y: Field) -> Field:
    bite = np.float32(0.72) - _length(x - np.float32(0.42), y + np.float32(0.1))
    return _larger(_length(x, y) - np.float32(0.95), bite)


def _diamond(x: Field, y: Field) -> Field:
    width, height = 0.58, 1.0
    scale = np.float32(1 / math.hypot(width, height))
    tilted = abs(x) * np.float32(height) + abs(y) * np.float32(width)
    return (tilted - np.float32(width * height)) * scale


def _arrow(x: Field, y: Field) -> Field:
    """Upwards."""
    head = _polygon(x, y + np.float32(0.38), 3, 0.36)
    return _smaller(head, _box(x, y - np.float32(0.42), 0.22, 0.5))


def _semicircle(x: Field, y: Field) -> Field:
    y = y - np.float32(0.4)
    return _larger(_length(x, y) - np.float32(0.98), y)


#: By class name, in the order in which they become classes.
OUTLINES: dict[str, Callable[[Field, Field], Field]] = {
    "circle": lambda x, y: _length(x, y) - np.float32(0.85),
    "square": lambda x, y: _box(x, y, 0.76, 0.76),
    "triangle": lambda x, y: _polygon(x, y - np.float32(0.15), 3, 0.52),
    "star": _star,
    "cross": lambda x, y: _smaller(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95)),
    "ring": lambda x, y: abs(_length(x, y) - np.float32(0.7)) - np.float32(0.21),
    "heart": _heart,
    "crescent": _crescent,
    "diamond": _diamond,
    "arrow": _arrow,
    "semicircle": _semicircle,
    "hexagon": lambda x, y: _polygon(x, y, 6, 0.8),
}
