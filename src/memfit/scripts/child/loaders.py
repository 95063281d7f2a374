"""Data loaders: in this process, at another batch, and at an end when enough was seen."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from functools import wraps
from typing import Any, Protocol

from torch.utils.data import DataLoader

from memfit.torch_inside import AnyLoaderIterator

__all__ = ["LoaderWatch", "watch_loaders"]

#: Arguments that go with workers, and what they are without.
_WITHOUT_WORKERS = {
    "num_workers": 0, "prefetch_factor": None, "persistent_workers": False, "timeout": 0,
    "multiprocessing_context": None,
}  # fmt: skip


class _Over(StopIteration):
    """An iterator ends although its data have not."""


class LoaderWatch(Protocol):
    """Who is told what loaders do."""

    def batch_of(self, number: int) -> int | None:
        """The batch for a loader; None leaves it as it is."""

    def made(self, number: int, batch: int | None, samples: int | None) -> None:
        """A loader was made."""

    def is_over(self, iterator: Any, number: int) -> bool:
        """Whether an iterator ends here."""

    def gave(self, iterator: Any, number: int) -> None:
        """A batch was handed out."""


def watch_loaders(watch: LoaderWatch) -> None:
    """From here on, every loader of this process works without workers and is watched."""
    make = DataLoader.__init__
    begin = AnyLoaderIterator.__init__
    take = AnyLoaderIterator.__next__
    signature = inspect.signature(make)
    count = 0

    @wraps(make)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal count
        number, count = count, count + 1
        given = signature.bind(self, *args, **kwargs).arguments
        given |= {name: value for name, value in _WITHOUT_WORKERS.items() if name in given}
        batch = watch.batch_of(number)
        if batch is not None:
            _set_batch(given, batch)
        self._memfit_number = number
        del given["self"]
        make(self, **given)
        _let_end(type(self))
        batches = self.batch_sampler if self.batch_size is None else self
        watch.made(number, getattr(batches, "batch_size", None), _length(self))

    @wraps(begin)
    def init_iterator(self: Any, loader: Any) -> None:
        begin(self, loader)
        self._memfit_number = getattr(loader, "_memfit_number", -1)

    @wraps(take)
    def next_batch(self: Any) -> Any:
        if watch.is_over(self, self._memfit_number):
            raise _Over
        batch = take(self)
        watch.gave(self, self._memfit_number)
        return batch

    DataLoader.__init__ = init  # type: ignore[method-assign]
    AnyLoaderIterator.__init__ = init_iterator
    AnyLoaderIterator.__next__ = next_batch


def _let_end(kind: type[DataLoader[Any]]) -> None:
    """A loader that takes batches of an endless iterator, one epoch each time, ends with it."""
    iterate: Any = kind.__iter__
    if iterate is DataLoader.__iter__ or hasattr(iterate, "__wrapped__"):
        return

    @wraps(iterate)
    def iterate_to_the_end(self: Any) -> Any:
        batches = iterate(self)
        return _to_the_end(batches) if inspect.isgenerator(batches) else batches

    kind.__iter__ = iterate_to_the_end  # type: ignore[method-assign]


def _to_the_end(batches: Iterable[Any]) -> Iterator[Any]:
    """In a generator, Python makes a ``RuntimeError`` of an end that nobody expected (PEP 479)."""
    try:
        yield from batches
    except RuntimeError as error:
        if not isinstance(error.__cause__, _Over):
            raise


def _set_batch(given: dict[str, Any], batch: int) -> None:
    sampler = given.get("batch_sampler")
    if sampler is None:
        given["batch_size"] = batch
    elif hasattr(sampler, "batch_size"):
        sampler.batch_size = batch


def _length(loader: Any) -> int | None:
    try:
        return len(loader.dataset)
    except (TypeError, NotImplementedError):
        return None
