"""``"cuda"`` in the user's code, where it means another device: a GPU that is not there.

Operators are given their device by keyword, and a dispatch mode changes it. What stands here asks
CUDA before any operator: moves, and functions that make tensors from other values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from memfit.torch_inside import DispatchMode, meta_is_cuda, replaced, tree_map

__all__ = ["cuda_is", "is_gpu", "moves"]


@contextmanager
def cuda_is(home: str) -> Iterator[None]:
    """Inside, what is made or moved to ``"cuda"`` lies elsewhere; ``tensor.cuda()`` too.

    Args:
        home: such as ``"cpu"``.
    """
    with meta_is_cuda(), replaced(moves(home)), _Made(torch.device(home)):
        yield


class _Made(DispatchMode):
    """Operators that are told ``device="cuda"`` are told another."""

    def __init__(self, home: torch.device) -> None:
        super().__init__()
        self._home = home

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator elsewhere."""
        kwargs = kwargs or {}
        if getattr(kwargs.get("device"), "type", "") == "cuda":
            kwargs = kwargs | {"device": self._home}
        return func(*args, **kwargs)


def moves(home: str) -> list[tuple[Any, str, Any]]:
    """Stand-ins by owner and name: what moves tensors, and makes them from other values.

    Args:
        home: the device that ``"cuda"`` means.
    """
    move, load, generator = Tensor.to, torch.load, torch.Generator

    def elsewhere(value: Any) -> Any:
        return torch.device(home) if not isinstance(value, Tensor) and is_gpu(value) else value

    def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if "device" in kwargs:
            kwargs = kwargs | {"device": elsewhere(kwargs["device"])}
        return move(tensor, *map(elsewhere, args), **kwargs)

    def moved(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **kwargs: Any) -> Any:
            device = kwargs.get("device")
            device = torch.get_default_device() if device is None else device
            if not is_gpu(device):
                return make(*args, **kwargs)
            needs_gradient = kwargs.pop("requires_grad", False)
            tensor = move(make(*args, **kwargs | {"device": "cpu"}), home)
            return tensor.requires_grad_() if needs_gradient else tensor

        return made

    def load_here(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not (isinstance(map_location, (str, torch.device)) and is_gpu(map_location)):
            return load(f, map_location, *args, **kwargs)
        loaded = load(f, "cpu", *args, **kwargs)
        return tree_map(lambda leaf: to(leaf, home) if isinstance(leaf, Tensor) else leaf, loaded)

    class AnyGenerator(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, generator)

    class Generator(metaclass=AnyGenerator):
        """Random numbers of the CPU's generator: those of CUDA's are not drawn."""

        def __new__(cls, device: Any = "cpu") -> Any:
            return generator(torch.device("cpu") if is_gpu(device) else device)

    return [
        (Tensor, "to", to),
        (Tensor, "cuda", lambda tensor, *_, **__: move(tensor, home)),
        *[(torch, name, moved(getattr(torch, name))) for name in ("tensor", "as_tensor")],
        (torch, "asarray", moved(torch.asarray)),
        (torch, "load", load_here),
        (torch, "Generator", Generator),
    ]


def is_gpu(device: Any) -> bool:
    """Whether a name, a number or a ``torch.device`` means a GPU, there or played."""
    if isinstance(device, torch.device):
        return device.type in ("cuda", "meta")
    if isinstance(device, str):
        return device.partition(":")[0] in ("cuda", "meta")
    return type(device) is int  # the number of a GPU; bool is another type
