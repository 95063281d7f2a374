"""A GPU that is not there: any training step, recorded, without a GPU and without memory."""

from __future__ import annotations

import warnings
from contextlib import ExitStack

import torch
from torch import nn

from memfit.cards.catalogue import GPU
from memfit.cards.catalogue import gpu as find_gpu
from memfit.errors import NothingRecorded
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import Timeline, replay, runs_on
from memfit.memory.cuda.kernels import CUDA_KERNELS
from memfit.memory.cuda.recurrent import flatten_weights, separate_weights
from memfit.memory.cuda.rules import AttentionPreference, CudaSemantics, semantics
from memfit.memory.kernels.facts import DeviceFacts
from memfit.memory.kernels.transients import Transients, installed_torch_version
from memfit.memory.recording.cuda_names import cuda_names
from memfit.memory.recording.follower import Follower
from memfit.memory.recording.meta_recorder import MetaRecorder
from memfit.memory.recording.statistics import Statistics
from memfit.memory.recording.values import MadeUp, Values
from memfit.memory.tape.tape import Part, Tape
from memfit.torch_inside import flat_weights, meta_plays_cuda

__all__ = ["VirtualGPU"]


class VirtualGPU(Follower):
    """Play a CUDA GPU for the code inside ``with``: nothing is computed, everything is counted.

    Args:
        gpu: name in the catalogue, a size such as ``"11GiB"``, or a
            :class:`~memfit.cards.catalogue.GPU`.
        attention: which kernel ``scaled_dot_product_attention`` may use.
        cudnn_benchmark: as ``torch.backends.cudnn.benchmark``.
        settings: options of the caching allocator.
        makes_up: give a made-up value (:attr:`made_up`) to code that asks for one that only a
            real run knows, such as ``loss.item()``; otherwise PyTorch raises its error for tensors
            without values.

    Example:
        >>> import torch, memfit
        >>> with memfit.VirtualGPU("rtx-3060") as gpu:
        ...     model = torch.nn.Linear(784, 10).cuda()
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ...     loss = model(torch.randn(64, 784, device="cuda")).sum()
        ...     loss.backward()
        ...     optimizer.step()
        ...     total = loss.item()
        >>> gpu.timeline.peak_allocated_bytes, [made_up.value for made_up in gpu.made_up]
        (8787968, ['1.0'])
    """

    def __init__(
        self,
        gpu: str | GPU = "rtx-3060",
        *,
        attention: AttentionPreference = "auto",
        cudnn_benchmark: bool = False,
        settings: AllocatorSettings | None = None,
        makes_up: bool = True,
    ) -> None:
        self.gpu = find_gpu(gpu) if isinstance(gpu, str) else gpu
        self.device = torch.device("meta")
        self._semantics = CudaSemantics(self.gpu.compute_capability, attention)
        facts = DeviceFacts(
            compute_capability=self.gpu.compute_capability,
            multiprocessors=self.gpu.multiprocessors,
            cudnn_benchmark=cudnn_benchmark,
            torch_version=installed_torch_version(),
        )
        self._transients = Transients(facts)
        self.values = Values(makes_up=makes_up)
        self.recorder: MetaRecorder
        super().__init__(MetaRecorder(self._transients, CUDA_KERNELS, self.values))
        self._statistics = Statistics(self.recorder.ledger, settings or AllocatorSettings())
        self._stack = ExitStack()

    def __enter__(self) -> VirtualGPU:
        with ExitStack() as stack:
            stack.enter_context(meta_plays_cuda(self._semantics.casts.clear))
            stack.enter_context(semantics(self._semantics))
            # A checkpoint that is loaded: the copy into meta does nothing, as it should.
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
            stack.enter_context(self.hooks())
            stack.enter_context(cuda_names(self.gpu, self.recorder, self._statistics))
            stack.enter_context(self.recorder)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self.tag_gradients()

    def adopt(self, model: nn.Module) -> None:
        """Put a model that was built elsewhere on the tape, as ``model.to(device)`` would."""
        layers = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
        fresh = [
            layer
            for layer in layers
            if not self.recorder.tag(flat_weights(layer)[0], Part.PARAMETERS)
        ]
        with self.recorder.host():
            for layer in fresh:
                separate_weights(layer)
        super().adopt(model)
        for layer in fresh:
            flatten_weights(layer)
        super().adopt(model)

    @property
    def tape(self) -> Tape:
        """What was recorded so far."""
        return self.recorder.tape()

    @property
    def settings(self) -> AllocatorSettings:
        """Options of the caching allocator, with the share of memory that the program set."""
        return self._statistics.settings

    @settings.setter
    def settings(self, settings: AllocatorSettings) -> None:
        self._statistics.settings = settings

    @property
    def timeline(self) -> Timeline:
        """The tape replayed through the caching allocator, with no limit.

        Raises:
            NothingRecorded: nothing was on the GPU.
        """
        return replay(self._recorded(), settings=self.settings)

    @property
    def fits(self) -> bool:
        """Whether what was recorded runs on this card: replayed against its capacity.

        Raises:
            NothingRecorded: nothing was on the GPU.
        """
        tape = self._recorded()
        return runs_on(tape, tape.sizes_bytes, self.gpu, self.settings)

    def _recorded(self) -> Tape:
        tape = self.tape
        if not tape.allocations:
            count = self.recorder.operators
            ran = f"{count} operators ran inside, all on the CPU" if count else "nothing ran inside"
            raise NothingRecorded(
                f"Nothing was recorded on the virtual GPU: {ran}.",
                hint='Move the model and its batches there: model.to("cuda"), batch.to("cuda").',
            )
        return tape

    @property
    def made_up(self) -> tuple[MadeUp, ...]:
        """Every place of the user's code that was given a made-up value."""
        return self.values.made_up

    @property
    def unsupported(self) -> dict[str, str]:
        """Operators that could not be accounted for, with the reason."""
        return dict(self.recorder.unsupported)

    @property
    def unknown_temporaries(self) -> set[str]:
        """Operators for which it is not known what their kernels allocate inside."""
        return set(self._transients.unknown)
