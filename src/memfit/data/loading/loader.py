"""The loader: batches of bytes on the host, made into what the model gets on the device.

>>> from memfit.data import loader
>>> train = loader("shapes,train=256,test=64,size=16", batch_size=64)
>>> for images, labels in train.epoch(0):
...     pass
>>> images.shape, labels.shape
(torch.Size([64, 3, 16, 16]), torch.Size([64]))
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memfit.data.loading.augment import Transform, crop_and_flip, parse_augmentation
from memfit.data.loading.batch import Batch
from memfit.data.loading.holding_out import stored
from memfit.data.loading.mixing import draw_mixing, mix_images, mix_labels
from memfit.data.loading.normalisation import moments_of, normalised_by
from memfit.data.loading.pixel_memory import PixelMemory
from memfit.data.loading.randomness import epoch_order
from memfit.data.loading.reading import (
    Request,
    SampleReader,
    Samples,
    Shaping,
    cores,
    read_ahead,
    unreadable_error,
)
from memfit.data.loading.source import Source
from memfit.data.loading.targets import check_augmentation, known_targets, target_kind
from memfit.data.samples.dataset import Problem
from memfit.data.samples.masks import IGNORED
from memfit.errors import UnknownName, UsageError
from memfit.models.user_code import import_object
from memfit.recipe.fields import FIELDS
from memfit.recipe.own import Own
from memfit.recipe.precision import weights_dtype
from memfit.recipe.recipe import Recipe

__all__ = ["DEFAULT_BATCH", "Loader", "loader", "single_threaded"]

DEFAULT_BATCH = 64


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep torch's CPU threads asleep during work of microseconds.

    Once awake they spin for a while after each operator, on the cores that decode images: with two
    workers on two cores that halved the rate of CIFAR-10. Changing the number takes 0.1 us.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def loader(
    source: Any,
    split: str | None = None,
    *,
    batch_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    **options: Any,
) -> Loader:
    """Open what a recipe trains on.

    Args:
        source: a recipe; or its ``data`` (a text, a path, a data set of yours or an opened one),
            with fields of the recipe as ``options``; without a ``val_share`` among them nothing
            is held out.
        split: ``"train"`` when omitted; that one is shuffled and augmented, every other is not.
        batch_size: the global batch; the recipe's ``global_batch`` or ``batch_size``, else 64.
        rank: which share of every global batch this process gets...
        world_size: ...of how many.
        **options: fields of :class:`~memfit.Recipe`.

    Raises:
        DataError: the data cannot be opened or has no labels.
        UsageError: shapes or channels disagree.
    """
    known = FIELDS.keys() - {"model", "data"}
    for name in options:
        if name not in known:
            raise UnknownName("option", name, known)
    given = options if isinstance(source, Recipe) else {"data": source, **options}
    plain, own = Own.split(given)
    if isinstance(source, Recipe):
        recipe = source.but(**plain)
    else:
        recipe = Recipe(**{"model": "cnn", "val_share": 0, **plain})
    if recipe.data is None:
        raise UsageError("The recipe names no data.", hint='Add: data = "mnist", or a folder.')
    opened = Source(recipe.data if own.data is None else own.data, recipe)
    return Loader(
        recipe, opened, split, batch_size=batch_size, rank=rank, world_size=world_size,
        transform=own.transform,
    )  # fmt: skip


class Loader:
    """Delivers a split in the order that (seed, epoch) decides, from any position.

    Args:
        recipe: colour, resizing, augmentation, normalisation, workers, seed.
        source: the data; normalisation is measured on its training split.
        split: what is delivered; the training split when omitted.
        batch_size: the global batch; the recipe's when omitted.
        rank: which share of every global batch is delivered.
        world_size: of how many.
        transform: the user's own, in place of the one that the recipe names.

    Attributes:
        shape: ``(C, H, W)`` of one image.
        mean: of each channel, as used.
        std: of each channel, as used.
        unreadable: images that were left out, by sample number.
        host: where the host plays the device: what is made inside is the host's, and what is
            brought to the device is a copy. None elsewhere.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        split: str | None = None,
        *,
        batch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        transform: Transform | None = None,
    ) -> None:
        dataset = source.dataset
        chosen = dataset.train if split is None else dataset[split]
        if batch_size is None:
            batch_size = recipe.global_batch or recipe.batch_size or DEFAULT_BATCH
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise UsageError(f"batch_size is {batch_size!r}; it must be 1 or more.")
        if not 0 <= rank < world_size:
            raise UsageError(f"rank {rank} of {world_size} does not exist.")
        self.recipe = recipe
        self.split = chosen
        self.shape = source.shape(recipe)
        self.target = target_kind(dataset, chosen, self.shape[1:])
        check_augmentation(recipe, self.target.task)
        self.classes = dataset.value_names or _class_names(dataset.classes, recipe.num_classes)
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.is_training = chosen is dataset.train
        self.survey = source.survey(recipe)
        self.mean, self.std = source.normalisation(recipe, self.shape[0])
        self.unreadable: dict[int, Problem] = {}
        words = recipe.augment if self.is_training else ()
        self.augmentation = parse_augmentation(words, self.shape[1:])
        self._labels = known_targets(chosen, self.target)
        self._reader = SampleReader(chosen, self._shaping(transform), recipe.seed)
        self._moments: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._pins = torch.cuda.is_available()
        self.host: Callable[[], AbstractContextManager[None]] | None = None

    def _shaping(self, own: Transform | None) -> Shaping:
        transforms = self.augmentation.per_sample
        if own is None and self.recipe.transform is not None:
            own = import_object(self.recipe.transform)
        if own is not None:
            if not callable(own):
                raise UsageError(f"transform is {own!r}, which cannot be called.")
            transforms = (*transforms, own)
        whole = self.augmentation.whole_image
        return Shaping(self.shape, self.recipe.resize, whole, transforms)

    @cached_property
    def _memory(self) -> PixelMemory | None:
        """Made when the first batch is wanted: a plan needs none."""
        if self._reader.is_random:
            return None
        split, (channels, *size) = self.split, self.shape
        images = stored(split, slice(0, 0))
        if images is not None and images.shape[1:3] == tuple(size):
            return PixelMemory.of_array(split, channels)
        return PixelMemory.for_files(split, self.shape)

    @property
    def workers(self) -> int:
        """Processes that read, none where everything is in memory."""
        if self._memory is not None and self._memory.is_complete:
            return 0
        if self.recipe.workers is not None:
            return self.recipe.workers
        return min(8, cores(), 1 + len(self.split) // 256)

    def __len__(self) -> int:
        """Global batches in an epoch; the last one may be smaller."""
        return math.ceil(len(self.split) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The first epoch; :meth:`epoch` gives any."""
        return self.epoch(0)

    # -- what happens on the host ------------------------------------------------------------------

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Sample numbers in the order of an epoch."""
        if self.is_training:
            return epoch_order(self.recipe.seed, epoch, len(self.split))
        return np.arange(len(self.split), dtype=np.int64)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's share of every global batch of an epoch.

        Args:
            epoch: from 0.
            start: samples of the epoch that were seen before, by all ranks together.

        Raises:
            BadImage: a file cannot be read, unless the recipe skips them.
            DataError: a transform failed.
            UsageError: there is no such epoch or position.
        """
        if not isinstance(epoch, int) or epoch < 0:
            raise UsageError(f"epoch is {epoch!r}; epochs count from 0.")
        if not 0 <= start <= len(self.split):
            raise UsageError(f"start is {start}; the epoch has {len(self.split):,} samples.")
        wanted = list(self._wanted(epoch, start))
        with self._on_host():
            missing = [self._missing(indices) for _, indices in wanted]
        requests = (Request(epoch, indices) for indices in missing if len(indices))
        answers = read_ahead(self._reader, requests, self.workers, pin_memory=self._pins)
        for (position, indices), absent in zip(wanted, missing, strict=True):
            with self._on_host():
                answer = next(answers) if len(absent) else None
                with single_threaded():
                    batch = self._assemble(epoch, position, indices, answer)
            if len(batch) or self.world_size > 1:  # ranks take their steps together
                yield batch

    def epoch(
        self, epoch: int, start: int = 0, *, device: str | torch.device = "cpu"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch as the model gets them, see :meth:`prepare`."""
        return (self.prepare(batch, device) for batch in self.batches(epoch, start))

    def _on_host(self) -> AbstractContextManager[None]:
        return nullcontext() if self.host is None else self.host()

    def _wanted(self, epoch: int, start: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Position and samples of every batch; with mixing, first the neighbour of the first."""
        order = self.order(epoch)
        for position in range(start, len(order), self.batch_size):
            whole = order[position : position + self.batch_size]
            begin, end = (len(whole) * r // self.world_size for r in (self.rank, self.rank + 1))
            if self.augmentation.mixes and begin < end:
                yield position, np.concatenate([whole[[begin - 1]], whole[begin:end]])
            else:
                yield position, whole[begin:end]

    def _missing(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        indices = self._readable(indices)
        return indices if self._memory is None else self._memory.missing(indices)

    def _assemble(
        self, epoch: int, position: int, wanted: NDArray[np.int64], answer: Samples | None
    ) -> Batch:
        if answer is not None:
            self._note(answer)
        indices = self._readable(wanted)
        if self.augmentation.mixes and len(indices) and indices[0] != wanted[0]:
            indices = np.concatenate([indices[-1:], indices])  # the neighbour was unreadable
        pixels, masks = self._pixels(indices, answer)
        known = self._labels
        labels = masks if known is None else known[torch.from_numpy(indices)]
        batch = Batch(pixels, labels, indices, epoch, position)
        if not self.augmentation.mixes:
            return batch
        seed, size = self.recipe.seed, self.shape[1:]
        mixing = draw_mixing(self.augmentation, seed, epoch, position, size)
        return replace(batch[1:], neighbours=batch[:-1], mixing=mixing)

    def _pixels(self, indices: NDArray[np.int64], answer: Samples | None) -> tuple[Tensor, Tensor]:
        """Images, and their masks; without masks nothing that means anything."""
        none = self.target.blank(0, "cpu")
        if answer is not None and np.array_equal(answer.indices, indices):
            return answer.pixels, none if answer.masks is None else answer.masks
        if self._memory is not None:
            pixels = self._memory.gather(indices, pin_memory=self._pins)
            if not self.target.is_mask:
                return pixels, none
            return pixels, self._memory.gather_masks(indices, pin_memory=self._pins)
        assert answer is not None, "without memory every sample is read"
        order = np.argsort(answer.indices, kind="stable")
        places = order[np.searchsorted(answer.indices, indices, sorter=order)]
        found = torch.from_numpy(places)
        return answer.pixels[found], none if answer.masks is None else answer.masks[found]

    def _readable(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return indices[~np.isin(indices, list(self.unreadable))] if self.unreadable else indices

    def _note(self, answer: Samples) -> None:
        if answer.unreadable and self.recipe.on_bad_image == "error":
            raise unreadable_error(answer)
        for index, name, reason in answer.unreadable:
            self.unreadable[index] = Problem(name, reason)
        if self._memory is not None:
            self._memory.keep(answer)

    def anew(self) -> Loader:
        """The same loader with nothing on a device yet, for a plan."""
        other = copy.copy(self)
        other._moments = {}
        return other

    def blank(self, count: int, device: str | torch.device) -> Batch:
        """A batch on the device whose values mean nothing, for a plan."""

        def part() -> Batch:
            dtype = torch.float32 if self.split.is_float else torch.uint8
            pixels = torch.empty((count, *self.shape), dtype=dtype, device=device)
            return Batch(
                pixels, self.target.blank(count, device), np.arange(count, dtype=np.int64), 0, 0
            )

        mixing = draw_mixing(self.augmentation, self.recipe.seed, 0, 0, self.shape[1:])
        with self._on_host():
            return replace(part(), neighbours=part(), mixing=mixing) if mixing else part()

    # -- what happens on the device ----------------------------------------------------------------

    @single_threaded()
    def prepare(self, batch: Batch, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
        """Move a batch to the device, then crop, flip, normalise and mix it there.

        Args:
            batch: of this loader.
            device: where the model is.

        Returns:
            Images ``(N, C, H, W)``, and labels: ``(N,)`` int64, or with mixing the share of each
            class, ``(N, classes)`` float32; masks ``(N, H, W)`` int64; values or labels
            ``(N, K)`` in the dtype of the images.
        """
        device = torch.device(device)
        images = self._images(batch, device)
        labels = self._targets(batch, device)
        if batch.mixing is not None and batch.neighbours is not None:
            others = batch.neighbours
            images = mix_images(images, self._images(others, device), batch.mixing)
            other_labels = others.labels.to(device, non_blocking=True, copy=self.host is not None)
            labels = mix_labels(labels, other_labels, batch.mixing, len(self.classes))
        if self.recipe.memory_format == "nhwc":
            images = images.contiguous(memory_format=torch.channels_last)
        return images.to(weights_dtype(self.recipe.precision)), labels

    def _targets(self, batch: Batch, device: torch.device) -> Tensor:
        """Of the batch on the device; a mask is cropped and flipped as its image is."""
        targets = batch.labels.to(device, non_blocking=True, copy=self.host is not None)
        if self.target.is_float:
            return targets.to(weights_dtype(self.recipe.precision))
        if not self.target.is_mask:
            return targets
        seed, how = self.recipe.seed, self.augmentation
        moved = crop_and_flip(targets[:, None], how, seed, batch.epoch, batch.indices, IGNORED)
        return moved[:, 0].long()

    def _images(self, batch: Batch, device: torch.device) -> Tensor:
        pixels = batch.pixels.to(device, non_blocking=True, copy=self.host is not None)
        pixels = crop_and_flip(
            pixels, self.augmentation, self.recipe.seed, batch.epoch, batch.indices
        )
        return normalised_by(pixels, *self._moments_on(device))

    def _moments_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation, made on the host and brought to the device once."""
        if device not in self._moments:
            with self._on_host():
                made = moments_of(self.mean, self.std, torch.device("cpu"))
            centre, spread = (m.to(device, copy=self.host is not None) for m in made)
            self._moments[device] = centre, spread
        return self._moments[device]


def _class_names(known: tuple[str, ...], count: int | None) -> tuple[str, ...]:
    """Those of the data; a model with more outputs has some that no image belongs to."""
    extra = range(len(known), max(count or 0, len(known)))
    return (*known, *(f"class {number}" for number in extra))
