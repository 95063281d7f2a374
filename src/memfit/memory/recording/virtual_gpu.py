"""A GPU that is not there: any training step, recorded, without a GPU and without memory."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from memfit.cards.catalogue import GPU
from memfit.cards.catalogue import gpu as find_gpu
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import Timeline, replay, runs_on
from memfit.memory.cuda.kernels import CUDA_KERNELS
from memfit.memory.cuda.rules import AttentionPreference, CudaSemantics, semantics
from memfit.memory.kernels.facts import DeviceFacts
from memfit.memory.kernels.transients import Transients, installed_torch_version
from memfit.memory.recording.follower import Follower
from memfit.memory.recording.recorder import Recorder
from memfit.memory.tape.tape import Tape
from memfit.torch_inside import meta_plays_cuda

__all__ = ["VirtualGPU"]


class VirtualGPU(Follower):
    """Play a CUDA GPU for the code inside ``with``: nothing is computed, everything is counted.

    Args:
        gpu: name in the catalogue, a size such as ``"11GiB"``, or a
            :class:`~memfit.cards.catalogue.GPU`.
        attention: which kernel ``scaled_dot_product_attention`` may use.
        cudnn_benchmark: as ``torch.backends.cudnn.benchmark``.
        settings: options of the caching allocator.

    Example:
        >>> import torch, memfit
        >>> with memfit.VirtualGPU("rtx-3060") as gpu:
        ...     model = torch.nn.Linear(784, 10).to(gpu.device)
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ...     model(torch.empty(64, 784, device=gpu.device)).sum().backward()
        ...     optimizer.step()
        >>> gpu.timeline.peak_allocated_bytes > 0
        True
    """

    def __init__(
        self,
        gpu: str | GPU = "rtx-3060",
        *,
        attention: AttentionPreference = "auto",
        cudnn_benchmark: bool = False,
        settings: AllocatorSettings | None = None,
    ) -> None:
        self.gpu = find_gpu(gpu) if isinstance(gpu, str) else gpu
        self.device = torch.device("meta")
        self.settings = settings or AllocatorSettings()
        self._semantics = CudaSemantics(self.gpu.compute_capability, attention)
        facts = DeviceFacts(
            compute_capability=self.gpu.compute_capability,
            multiprocessors=self.gpu.multiprocessors,
            cudnn_benchmark=cudnn_benchmark,
            torch_version=installed_torch_version(),
        )
        self._transients = Transients(facts)
        super().__init__(Recorder("meta", self._transients, CUDA_KERNELS))
        self._stack = ExitStack()

    def __enter__(self) -> VirtualGPU:
        with ExitStack() as stack:
            stack.enter_context(meta_plays_cuda(self._semantics.casts.clear))
            stack.enter_context(semantics(self._semantics))
            stack.enter_context(self.hooks())
            stack.enter_context(_CudaMeansMeta())
            stack.enter_context(self.recorder)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self.tag_gradients()

    @property
    def tape(self) -> Tape:
        """What was recorded so far."""
        return self.recorder.tape()

    @property
    def timeline(self) -> Timeline:
        """The tape replayed through the caching allocator, with no limit."""
        return replay(self.tape, settings=self.settings)

    @property
    def fits(self) -> bool:
        """Whether what was recorded runs on this card: replayed against its capacity."""
        tape = self.tape
        return runs_on(tape, tape.sizes_bytes, self.gpu, self.settings)

    @property
    def unsupported(self) -> dict[str, str]:
        """Operators that could not be accounted for, with the reason."""
        return dict(self.recorder.unsupported)

    @property
    def unknown_temporaries(self) -> set[str]:
        """Operators for which it is not known what their kernels allocate inside."""
        return set(self._transients.unknown)


class _CudaMeansMeta(TorchFunctionMode):
    """``device="cuda"`` and ``.cuda()`` in the user's code mean the virtual GPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.cuda:
            return args[0].to("meta")
        if func is Tensor.pin_memory:
            return args[0]
        if func is Tensor.to:
            args = (args[0], *(_meta_for_cuda(a) for a in args[1:]))
        if "device" in kwargs:
            kwargs = kwargs | {"device": _meta_for_cuda(kwargs["device"])}
        return func(*args, **kwargs)


def _meta_for_cuda(value: Any) -> Any:
    is_cuda = (
        (isinstance(value, torch.device) and value.type == "cuda")
        or (isinstance(value, str) and value.partition(":")[0] == "cuda")
        or type(value) is int  # the number of a GPU; bool is another type
    )
    return torch.device("meta") if is_cuda else value
