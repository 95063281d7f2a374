"""What a step changes before the optimizer's turn, kept so that it can be as if it never began."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from memfit.torch_inside import copy_all, own_buffers

__all__ = ["Buffers", "Gradients", "RandomState"]


class RandomState:
    """PyTorch's random state on the CPU and on CUDA devices; Python's and NumPy's are not touched.

    Args:
        devices: those whose generator a step draws from; only CUDA devices have one to keep here.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._cpu = torch.get_rng_state()
        cuda = {device for device in devices if device.type == "cuda"}
        self._cuda = {device: torch.cuda.get_rng_state(device) for device in cuda}

    def restore(self) -> None:
        """Draw again what was drawn since."""
        torch.set_rng_state(self._cpu)
        for device, state in self._cuda.items():
            torch.cuda.set_rng_state(state, device)


class Gradients:
    """The gradients as they were before a step.

    ``None`` (the usual case) and all zeros cost nothing: they are set back to that. Others are
    copied to the host, so the device needs no room for a second set; that is slow for a large
    model, and needed only by people who call
    :meth:`~memfit.trainer.recovery.transaction.Fitting.backward` several times for one step.

    Args:
        parameters: whose gradients.
        are_zeros: it is known that there is nothing but None and zeros.
    """

    def __init__(self, parameters: Iterable[Tensor], are_zeros: bool = False) -> None:
        #: Parameter, its gradient, and a copy of that; None where there was none, or only zeros.
        self._kept: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
        parameters = list(parameters)
        are_zeros = are_zeros or _are_zeros([p.grad for p in parameters if p.grad is not None])
        for parameter in parameters:
            gradient, copy = parameter.grad, None
            if gradient is not None and not are_zeros:
                copy = gradient.detach().to("cpu", copy=True)
            self._kept.append((parameter, gradient, copy))

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back: the same tensors with the same values, or None."""
        for parameter, gradient, copy in self._kept:
            if gradient is not None:
                gradient.zero_() if copy is None else gradient.copy_(copy)
            parameter.grad = gradient


@torch.no_grad()
def _are_zeros(gradients: list[Tensor]) -> bool:
    """Whether there is nothing but zeros; one synchronisation for a GPU."""
    if any(gradient.layout is not torch.strided for gradient in gradients):
        return False
    filled = [gradient for gradient in gradients if gradient.numel()]
    try:
        return not filled or float(nn.utils.get_total_norm(filled, math.inf)) == 0.0
    except torch.OutOfMemoryError:  # no room for the norms: nothing may be missed
        return False


class Buffers:
    """A model's buffers (BatchNorm's running statistics) with a shadow of each.

    All buffers are kept, constant ones too: what a kernel writes into is not always to be seen
    (BatchNorm's do not raise the tensor's version). The shadows are made once, beside the buffers,
    so restoring allocates nothing.

    Args:
        model: whose buffers.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._is_known = False
        self._places: list[tuple[dict[str, Tensor | None], str]] = []
        self._tensors: list[Tensor] = []
        self._groups: list[tuple[list[Tensor], list[Tensor]]] = []  # of one dtype and device
        self._find()

    @property
    def shadows(self) -> list[Tensor]:
        """The copies."""
        return [shadow for _, shadows in self._groups for shadow in shadows]

    @torch.no_grad()
    def save(self) -> None:
        """Copy the buffers into their shadows."""
        self._find()
        for tensors, shadows in self._groups:
            copy_all(shadows, tensors)

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the shadows back into the same tensors, and put these back where they were."""
        for (home, name), tensor in zip(self._places, self._tensors, strict=True):
            home[name] = tensor
        for tensors, shadows in self._groups:
            copy_all(tensors, shadows)

    def _find(self) -> None:
        """Look where the buffers are; new shadows when the model was moved or changed."""
        known = zip(self._places, self._tensors, strict=True)
        if self._is_known and all(home.get(name) is tensor for (home, name), tensor in known):
            return
        self._is_known = True
        places = [
            (own_buffers(module), name, tensor)
            for module in self._model.modules()
            for name, tensor in own_buffers(module).items()
            if tensor is not None
        ]
        tensors = [tensor for _, _, tensor in places]
        self._places = [(home, name) for home, name, _ in places]
        self._tensors = tensors
        groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
        for tensor in tensors:
            groups[tensor.device, tensor.dtype].append(tensor)
        self._groups = [
            (group, [torch.empty_like(tensor) for tensor in group]) for group in groups.values()
        ]
