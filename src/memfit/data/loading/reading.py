"""Reading samples: decoded, brought to one size and transformed, in worker processes."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.tv_tensors import Mask

from memfit.data.images.decode import Pixels, reading_images
from memfit.data.images.jpeg import decode_plain_jpeg
from memfit.data.loading.augment import Transform, seeded
from memfit.data.loading.randomness import sample_seeds
from memfit.data.loading.targets import MASK_DTYPE
from memfit.data.samples.dataset import Split
from memfit.data.samples.masks import IGNORED
from memfit.errors import BadImage, DataError
from memfit.recipe.fields import Resize

__all__ = [
    "Request", "SampleReader", "Samples", "Shaping", "cores", "read_ahead", "resized",
    "resized_mask", "unreadable_error",
]  # fmt: skip


@dataclass(frozen=True)
class Shaping:
    """How an image becomes a tensor of the size that the model gets.

    Args:
        shape: ``(C, H, W)`` of the result.
        resize: for images of another size.
        whole_image: makes the final size itself; replaces ``resize``.
        transforms: done to each uint8 image of the final size, in order.
    """

    shape: tuple[int, int, int]
    resize: Resize = "crop"
    whole_image: Transform | None = None
    transforms: tuple[Transform, ...] = ()

    @property
    def is_random(self) -> bool:
        """Whether a sample may look different in every epoch."""
        return self.whole_image is not None or bool(self.transforms)


@dataclass(frozen=True, slots=True)
class Request:
    """Samples to read: ``indices`` ``(N,)`` int64, as of an epoch."""

    epoch: int
    indices: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Samples:
    """What was read.

    Args:
        indices: ``(N,)`` int64, those that could be read.
        pixels: ``(N, C, H, W)``, uint8 unless a transform made them float.
        masks: ``(N, H, W)`` int16, the class of each pixel; None where a sample has no mask.
        unreadable: index, name and reason of each that could not.
        failure: what a transform did wrong; it is raised where the samples are used.
    """

    indices: NDArray[np.int64]
    pixels: Tensor
    masks: Tensor | None = None
    unreadable: tuple[tuple[int, str, str], ...] = ()
    failure: str | None = None


class SampleReader(Dataset[Samples]):
    """Reads whole requests: a map-style dataset whose keys are :class:`Request`.

    Args:
        split: where the samples are.
        shaping: what they become.
        seed: of the run.
    """

    def __init__(self, split: Split, shaping: Shaping, seed: int) -> None:
        self.split = split
        self.shaping = shaping
        self.seed = seed

    @property
    def is_random(self) -> bool:
        """Whether a sample may look different in every epoch."""
        return self.split.is_random or self.shaping.is_random

    def __getitem__(self, request: Request) -> Samples:
        try:
            return self._read_all(request)
        except _TransformFailed as error:
            empty = torch.empty((0, *self.shaping.shape), dtype=torch.uint8)
            return Samples(np.empty(0, dtype=np.int64), empty, failure=str(error))

    def _read_all(self, request: Request) -> Samples:
        in_worker = get_worker_info() is not None
        found: list[Tensor] = []
        masks: list[Tensor] = []
        kept: list[int] = []
        unreadable: list[tuple[int, str, str]] = []
        seeds = sample_seeds(self.seed, request.epoch, request.indices)
        random: AbstractContextManager[Callable[[int], None]] = nullcontext(lambda _: None)
        if self.is_random:
            random = seeded()
        with nullcontext() if in_worker else reading_images(), random as seed_all:
            for index, seed in zip(request.indices.tolist(), seeds.tolist(), strict=True):
                seed_all(seed)
                try:
                    image, mask = self._read(index)
                    found.append(image)
                    masks += [] if mask is None else [mask]
                    kept.append(index)
                except BadImage as error:
                    unreadable.append((index, error.name, error.reason))
        shape = (0, *self.shaping.shape)
        pixels = torch.stack(found) if found else torch.empty(shape, dtype=torch.uint8)
        indices = np.asarray(kept, dtype=np.int64)
        beside = torch.stack(masks) if masks else None
        return Samples(indices, pixels, beside, tuple(unreadable))

    def _read(self, index: int) -> tuple[Tensor, Tensor | None]:
        shaping = self.shaping
        image, mask = self._decode(index)
        steps = shaping.transforms
        if shaping.whole_image is not None and mask is not None:
            image, mask = shaping.whole_image(image, Mask(mask))  # type: ignore[call-arg]
        elif shaping.whole_image is not None:
            steps = (shaping.whole_image, *steps)
        elif tuple(image.shape[1:]) != shaping.shape[1:]:
            if image.is_floating_point():
                raise _TransformFailed(
                    f"{self.split.sample_name(index)} is {tuple(image.shape)}, not "
                    f"{shaping.shape}: floats are not resized. Make them of one size, or return "
                    "uint8."
                )
            image = resized(image, shaping)
            mask = None if mask is None else resized_mask(mask, shaping)
        for step in steps:
            image = _transformed(step, image, self.split.sample_name(index))
        if tuple(image.shape) != shaping.shape:
            name = self.split.sample_name(index)
            raise _TransformFailed(
                f"The transform made a tensor {tuple(image.shape)} of {name}; "
                f"{shaping.shape} is needed."
            )
        return image, None if mask is None else mask.to(MASK_DTYPE)

    def _decode(self, index: int) -> tuple[Tensor, Tensor | None]:
        """``(C, h, w)`` uint8, of the image's own size; and its mask ``(h, w)`` int64."""
        channels, has_mask = self.shaping.shape[0], self.split.masks is not None
        content = None if has_mask else self.split.content(index)
        if content is not None:
            plain = decode_plain_jpeg(content, channels)
            if plain is not None:
                return plain, None
        pixels, target = self.split.sample(index, channels)
        mask = torch.from_numpy(np.array(target)) if has_mask else None
        return torch.from_numpy(np.array(pixels.transpose(2, 0, 1))), mask


class _TransformFailed(Exception):
    """A transform of the user's raised, or made something else than an image."""


def _transformed(transform: Transform, image: Tensor, name: str) -> Tensor:
    label = getattr(transform, "__qualname__", type(transform).__qualname__)
    try:
        result = transform(image)
    except Exception as error:  # it is the user's code: anything may come
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise _TransformFailed(
            f"The transform {label} raised {type(error).__name__} for {name} "
            f"({last.filename}:{last.lineno}): {error}"
        ) from None
    if not isinstance(result, Tensor):
        kind = type(result).__name__
        raise _TransformFailed(f"The transform {label} made a {kind} of {name}, not a tensor.")
    return result


def read_ahead(
    reader: SampleReader, requests: Iterable[Request], workers: int, *, pin_memory: bool
) -> Iterator[Samples]:
    """Answer requests in their order, ahead of time in worker processes.

    Args:
        reader: what reads.
        requests: are taken as workers become free.
        workers: processes; 0 reads here.
        pin_memory: put pixels where the GPU can fetch them while it computes.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # they were asked for
        loader: DataLoader[Samples] = DataLoader(
            reader,
            batch_size=None,
            sampler=requests,
            num_workers=workers,
            worker_init_fn=_prepare_worker,
            collate_fn=_as_is,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # else it draws from the process's own
        )
    for samples in _without_killed_workers(loader):
        if samples.failure is not None:
            raise DataError(samples.failure)
        if pin_memory:
            masks = None if samples.masks is None else samples.masks.pin_memory()
            yield replace(samples, pixels=samples.pixels.pin_memory(), masks=masks)
        else:
            yield samples


def _without_killed_workers(loader: Iterable[Samples]) -> Iterator[Samples]:
    """A worker that the system killed is an error in words."""
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"A process that reads images was killed: {str(error).splitlines()[0]}",
            hint="Usually the machine ran out of memory: fewer --workers, or smaller images.",
        ) from None


def _as_is(samples: Any) -> Any:
    return samples


#: Held open for as long as a worker process lives.
_WORKER = ExitStack()


def _prepare_worker(_worker: int) -> None:
    """A signal to the whole group (Ctrl-C, ``timeout``, a cluster) is the main process's affair.

    It may want to finish its step, and needs the workers for that. They end when it does; a second
    SIGTERM is from it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    torch.set_num_threads(1)
    _WORKER.enter_context(reading_images())


def resized(pixels: Tensor, shaping: Shaping) -> Tensor:
    """An image ``(C, h, w)`` uint8 in the size that the model gets."""
    channels, height, width = shaping.shape
    image = Image.fromarray(pixels[0].numpy() if channels == 1 else pixels.permute(1, 2, 0).numpy())
    size, method = (width, height), Image.Resampling.BILINEAR
    if shaping.resize == "stretch":
        image = image.resize(size, method)
    elif shaping.resize == "pad":
        image = ImageOps.pad(image, size, method)
    else:
        image = ImageOps.fit(image, size, method)
    array: Pixels = np.asarray(image).reshape(height, width, channels)
    return torch.from_numpy(np.array(array.transpose(2, 0, 1)))


def resized_mask(mask: Tensor, shaping: Shaping) -> Tensor:
    """A mask ``(h, w)`` as :func:`resized` does with its image: nearest, padding is ignored."""
    height, width = shaping.shape[1:]
    image = Image.fromarray(mask.to(torch.int32).numpy())
    size, method = (width, height), Image.Resampling.NEAREST
    if shaping.resize == "stretch":
        image = image.resize(size, method)
    elif shaping.resize == "pad":
        image = ImageOps.pad(image, size, method, color=IGNORED)
    else:
        image = ImageOps.fit(image, size, method)
    return torch.from_numpy(np.array(image))


def unreadable_error(samples: Samples) -> BadImage:
    """The error for the first sample that could not be read."""
    _, name, reason = samples.unreadable[0]
    return BadImage(
        name,
        reason,
        hint='To leave such images out, counted and listed: on_bad_image="skip" '
        "(--on-bad-image skip).",
    )


def cores() -> int:
    """That this process may use; Linux knows, other systems tell how many there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
