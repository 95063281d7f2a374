"""Every image of a split, decoded once: counts go to a tally, fingerprints and sizes to arrays."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from memfit.data.facts.examine import DIGEST_BYTES, Facts, bits_of_mode, examine, fingerprint
from memfit.data.facts.statistics import histogram_of
from memfit.data.facts.tally import Tally
from memfit.data.images.decode import Pixels
from memfit.data.samples.array_split import ArraySplit
from memfit.data.samples.dataset import FileSplit, Split
from memfit.errors import BadImage

__all__ = ["DEFAULT_THREADS", "Scan", "scan_split"]

#: Pillow decodes without Python's lock; more threads than this wait for each other.
DEFAULT_THREADS = min(8, os.cpu_count() or 1)


_ROWS = 128  # looked at together
_ARRAY_BYTES = 8 << 20  # of an array looked at together
_REMEMBERED = 512  # files whose facts are kept for rows that name them again
#: Smaller images (256 x 256) decode faster than threads hand the lock to each other.
_PIXELS_WORTH_A_THREAD = 65_536
_SECONDS_BETWEEN_REPORTS = 0.1

_Result = Facts | BadImage


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found in ``N`` samples.

    Args:
        tally: counts.
        digests: ``(N, 16)`` fingerprints; zeros for samples that cannot be read.
        sizes: ``(N, 2)`` width and height; zeros for samples that cannot be read.
    """

    tally: Tally
    digests: NDArray[np.uint8]
    sizes: NDArray[np.uint32]

    @classmethod
    def empty(cls, count: int) -> Scan:
        """Before the first sample."""
        return cls(
            Tally(), np.zeros((count, DIGEST_BYTES), np.uint8), np.zeros((count, 2), np.uint32)
        )

    def part(self, start: int, stop: int) -> Scan:
        """Some of the samples, with a tally of their own and the same arrays."""
        return Scan(Tally(), self.digests[start:stop], self.sizes[start:stop])

    @property
    def readable(self) -> NDArray[np.bool_]:
        """``(N,)``: whether a sample could be read."""
        return np.asarray(self.sizes[:, 0] > 0)


def scan_split(
    split: Split, scan: Scan, *, max_pixels: int, threads: int, progress: Callable[[int], None]
) -> None:
    """Decode every sample of a split and count what is found.

    Args:
        split: to look at.
        scan: filled with what is found.
        max_pixels: larger images count as unreadable.
        threads: that decode large images; small ones are faster in one.
        progress: told how many samples are done.
    """
    report = _seldom(progress)
    if isinstance(split, ArraySplit) and _is_plain(split):
        _scan_array(split, scan, report)
    else:
        _scan_samples(split, scan, max_pixels, threads, report)
    progress(len(split))


def _seldom(progress: Callable[[int], None]) -> Callable[[int], None]:
    """Drawing costs more than a small image."""
    last = monotonic()

    def report(done: int) -> None:
        nonlocal last
        if monotonic() - last > _SECONDS_BETWEEN_REPORTS:
            last = monotonic()
            progress(done)

    return report


# -- arrays in memory ------------------------------------------------------------------------------


def _is_plain(split: ArraySplit) -> bool:
    """Whether the array already is what is delivered: 8 bits, grey or RGB."""
    images = split.images
    return images.dtype == np.uint8 and (images.ndim == 3 or images.shape[3] == 3)


def _scan_array(split: ArraySplit, scan: Scan, report: Callable[[int], None]) -> None:
    images = split.images if split.images.ndim == 4 else split.images[..., None]
    count, height, width, channels = images.shape
    step = max(1, _ARRAY_BYTES // max(1, height * width * channels))
    for start in range(0, count, step):
        chunk = np.ascontiguousarray(images[start : start + step])
        _count_chunk(split, chunk, start, scan)
        report(start + len(chunk))
    scan.sizes[:] = (width, height)


def _count_chunk(split: ArraySplit, chunk: Pixels, start: int, scan: Scan) -> None:
    height, width, channels = chunk.shape[1:]
    mode, histogram = "L" if channels == 1 else "RGB", histogram_of(chunk)
    facts = Facts(
        mode, "array", bits_of_mode(mode), width, height, channels,
        orientation=1, profile=None, traits=(), digest=b"", histogram=histogram, stored_bytes=None,
    )  # fmt: skip
    scan.tally.add(facts, partial(split.sample_name, start), len(chunk))
    scan.tally.add_histogram(histogram)
    is_grey = (chunk == chunk[..., :1]).all(axis=(1, 2, 3)) if channels == 3 else ()
    greys = np.flatnonzero(is_grey).tolist()
    for row in greys:
        scan.tally.mark("grey as colour", partial(split.sample_name, start + row))
    grey_rows = set(greys)
    for row, pixels in enumerate(chunk):
        digest = fingerprint(pixels[..., :1] if row in grey_rows else pixels)
        scan.digests[start + row] = np.frombuffer(digest, np.uint8)


# -- files, and arrays that need a conversion ------------------------------------------------------


def _scan_samples(
    split: Split, scan: Scan, max_pixels: int, threads: int, report: Callable[[int], None]
) -> None:
    remembered: OrderedDict[str | int, _Result] = OrderedDict()
    look = partial(_look, split, max_pixels)
    with _pool(threads) as pool:
        for start in range(0, len(split), _ROWS):
            keys = _keys(split, start, min(start + _ROWS, len(split)))
            first = {key: start + offset for offset, key in reversed(list(enumerate(keys)))}
            new = sorted(row for key, row in first.items() if key not in remembered)
            for row, result in zip(new, _results(look, new, pool), strict=True):
                remembered[keys[row - start]] = result
                report(row)
            _count_rows(split, scan, start, [remembered[key] for key in keys])
            report(start + len(keys))
            while len(remembered) > _REMEMBERED:
                remembered.popitem(last=False)


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor | None]:
    """Threads that stop at once when something goes wrong, Ctrl-C included."""
    if threads < 2:
        yield None
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="memfit-decode")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _keys(split: Split, start: int, stop: int) -> Sequence[str | int]:
    """What tells whether two rows are the same file."""
    if isinstance(split, FileSplit) and split.frames is None:
        return [split.paths[row] for row in range(start, stop)]
    return range(start, stop)


def _look(split: Split, max_pixels: int, row: int) -> _Result:
    try:
        return examine(split, row, max_pixels)
    except BadImage as error:
        return BadImage(error.name, error.reason)  # the caught one holds on to the image


def _results(
    look: Callable[[int], _Result], rows: Sequence[int], pool: ThreadPoolExecutor | None
) -> Iterator[_Result]:
    """In order; the first image tells whether threads are worth it for the others."""
    if not rows:
        return
    first = look(rows[0])
    yield first
    is_large = isinstance(first, Facts) and first.width * first.height >= _PIXELS_WORTH_A_THREAD
    yield from pool.map(look, rows[1:]) if pool is not None and is_large else map(look, rows[1:])


def _count_rows(split: Split, scan: Scan, start: int, results: Sequence[_Result]) -> None:
    """Rows that name the same file are counted at once."""
    rows_of: dict[int, list[int]] = {}
    for offset, result in enumerate(results):
        rows_of.setdefault(id(result), []).append(offset)
    for offsets in rows_of.values():
        result, rows = results[offsets[0]], np.asarray(offsets) + start
        name = partial(split.sample_name, int(rows[0]))
        if isinstance(result, BadImage):
            scan.tally.add_unreadable(result.name, result.reason, len(offsets))
            continue
        scan.tally.add(result, name, len(offsets))
        scan.tally.add_histogram(result.histogram * len(offsets))
        scan.digests[rows] = np.frombuffer(result.digest, np.uint8)
        scan.sizes[rows] = (result.width, result.height)
