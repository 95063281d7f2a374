"""The gradients and buffers of several ranks: summed once a step, after all have come through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from memfit.torch_inside import copy_all
from memfit.trainer.ranks.ranks import Ranks

__all__ = ["FirstBuffers", "GradientBuckets"]

#: As DistributedDataParallel's ``bucket_cap_mb`` (torch/nn/parallel/distributed.py, 2.11 to 2.15).
_BUCKET_BYTES = 25 * 1024 * 1024


class GradientBuckets:
    """Gradients as views of a few flat tensors, which ranks add up whole.

    This is DistributedDataParallel with ``gradient_as_bucket_view=True``, but for the moment when
    it talks. DDP's reducer (torch 2.15, ``torch/csrc/distributed/c10d/reducer.cpp``) starts a
    bucket's all-reduce inside backward, in ``mark_bucket_ready``, and a rank that runs out of
    memory there leaves the others waiting. A communication hook that only takes the bucket puts
    the all-reduce off, but not the state: ``mark_variable_ready`` has set ``require_finalize_``,
    an exception skips ``finalize_backward``, and from then on every ``prepare_for_backward``
    raises "Expected to have finished reduction in the prior iteration". Nothing resets it but a
    new DDP. With all micro-batches under ``no_sync()`` and one empty backward to send, the reducer
    makes its buckets in that backward and again in ``_rebuild_buckets``, after the vote, where out
    of memory cannot be undone. So ranks vote first, then sum these buckets.

    Args:
        parameters: that train.
        ranks: who adds up.

    Attributes:
        flat: the buckets.
        used: 1.0 for each parameter that a sample has reached since the gradients were cleared.
    """

    def __init__(self, parameters: Sequence[Tensor], ranks: Ranks) -> None:
        self._ranks = ranks
        self.flat: list[Tensor] = []
        self._views: list[tuple[Tensor, Tensor]] = []
        self.used = [0.0] * len(parameters)
        for number, parameter in enumerate(parameters):
            parameter.register_post_accumulate_grad_hook(partial(self._note_use, number))
        bucket: list[Tensor] = []
        for parameter in parameters:
            full = sum(p.nbytes for p in bucket) + parameter.nbytes > _BUCKET_BYTES
            if bucket and (full or bucket[0].dtype != parameter.dtype):
                self._add(bucket)
                bucket = []
            bucket.append(parameter)
        self._add(bucket)

    def _note_use(self, number: int, _parameter: Tensor) -> None:
        self.used[number] = 1.0

    def _add(self, parameters: list[Tensor]) -> None:
        first = parameters[0]
        flat = torch.zeros(
            sum(p.numel() for p in parameters), dtype=first.dtype, device=first.device
        )
        self.flat.append(flat)
        start = 0
        for parameter in parameters:
            # as the parameter lies in memory: autograd then adds to it in place
            view = flat[start : start + parameter.numel()].as_strided(
                parameter.shape, parameter.stride(), start
            )
            self._views.append((parameter, view))
            start += parameter.numel()

    def clear_gradients(self) -> None:
        """Zero gradients, in their place."""
        self.used = [0.0] * len(self.used)
        for flat in self.flat:
            flat.zero_()
        for parameter, view in self._views:
            parameter.grad = view

    def sum(self, used: Sequence[float]) -> None:
        """Add the gradients up over all ranks.

        Args:
            used: :attr:`used`, added up over all ranks. A parameter that no sample reached has no
                gradient, as on one device, so its optimizer passes it over.
        """
        self._ranks.sum_tensors(self.flat)
        for (parameter, _), times in zip(self._views, used, strict=True):
            if not times:
                parameter.grad = None


class FirstBuffers:
    """A model's buffers (BatchNorm's running statistics), the same as the first rank's everywhere.

    As DistributedDataParallel's ``broadcast_buffers=True``: the first rank's statistics, of its
    share of the samples, are the model's. Copied after each step instead of before each forward,
    so that evaluation and checkpoints see them, too. Flat tensors for it are made once.

    Args:
        model: whose buffers.
        ranks: who copies.
    """

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self._ranks = ranks
        groups: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for buffer in model.buffers():
            if buffer.numel():
                groups[buffer.dtype].append(buffer)
        self._groups = []
        for tensors in groups.values():
            flat = tensors[0].new_empty(sum(tensor.numel() for tensor in tensors))
            parts = flat.split([tensor.numel() for tensor in tensors])
            views = [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
            self._groups.append((flat, views, tensors))

    @property
    def flat(self) -> list[Tensor]:
        """The tensors that are sent."""
        return [flat for flat, _, _ in self._groups]

    @torch.no_grad()
    def copy(self) -> None:
        """Take the first rank's values."""
        for flat, views, tensors in self._groups:
            if self._ranks.is_first:
                copy_all(views, tensors)
            self._ranks.copy_from_first([flat])
            if not self._ranks.is_first:
                copy_all(tensors, views)
