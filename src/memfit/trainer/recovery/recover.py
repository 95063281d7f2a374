"""Any block of code, again with a smaller size when memory ran out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from memfit.trainer.recovery.before_step import RandomState
from memfit.trainer.recovery.out_of_memory import (
    OutOfMemoryKept,
    release,
    release_accelerator_cache,
)
from memfit.trainer.recovery.sizes import MicroBatchEvent, Sizes

__all__ = ["Attempt", "Recovery", "recover"]


def recover(
    sizes: int | Sequence[int],
    *,
    on_event: Callable[[MicroBatchEvent], None] | None = None,
    release_cache: Callable[[], None] = release_accelerator_cache,
) -> Recovery:
    """Run a block with the first size, and again with the next smaller while memory runs out.

    PyTorch's random state is put back before a block is run again; what else the block changed
    is its own affair, and so are the variables that it leaves behind in your function: they keep
    their memory until they are overwritten. Training steps have :func:`fit_micro_batch`.

    Args:
        sizes: largest first; one number is halved down to 1.
        on_event: is told when the size shrinks.
        release_cache: gives cached memory back.

    Raises:
        UsageError: the sizes are not positive and descending.

    Example:
        >>> import memfit, torch
        >>> model, images = torch.nn.Linear(8, 2).eval(), torch.randn(100, 8)
        >>> fitting = memfit.recover(sizes=64)  # again and again: it remembers the size that fitted
        >>> for attempt in fitting:
        ...     with attempt as size, torch.no_grad():
        ...         outputs = torch.cat([model(part) for part in images.split(size)])
        >>> outputs.shape, fitting.size
        (torch.Size([100, 2]), 64)
    """
    return Recovery(Sizes(sizes, on_event), release_cache)


class Attempt(OutOfMemoryKept):
    """One run of the block, at one size, which ``with`` gives."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def __enter__(self) -> int:  # type: ignore[override]
        return self.size


class Recovery:
    """What :func:`recover` makes: iterate over it for attempts, as often as there is work."""

    def __init__(self, sizes: Sizes, release_cache: Callable[[], None]) -> None:
        self._sizes = sizes
        self._release_cache = release_cache
        self._blocks = 0

    @property
    def size(self) -> int:
        """What the next attempt takes."""
        return self._sizes.now

    @property
    def events(self) -> list[MicroBatchEvent]:
        """Every change of the size, in order; ``step`` counts finished blocks."""
        return self._sizes.events

    def __iter__(self) -> Iterator[Attempt]:
        """Attempts until one does not run out of memory.

        Raises:
            DoesNotFit: the smallest size does not fit.
        """
        has_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        random = RandomState(
            [torch.device("cuda", torch.cuda.current_device())] if has_cuda else []
        )
        while True:
            attempt = Attempt(self.size)
            yield attempt
            if attempt.message is None:
                self._blocks += 1
                return
            random.restore()
            torch.clear_autocast_cache()
            release(self._release_cache)
            self._sizes.shrink(attempt.size, self._blocks, "block", attempt.message)
