"""The recorder of a GPU that is not there: its tensors are on meta, and small values are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from memfit.memory.recording.recorder import Recorder, TransientRule
from memfit.memory.recording.values import Values, tensors_in
from memfit.memory.tape.tape import Phase
from memfit.torch_inside import tree_map, without_modes

__all__ = ["MetaRecorder"]

_aten = torch.ops.aten
_META = torch.device("meta")
#: The answer, or the shape of what comes back, depends on values.
_DEPENDS_ON_VALUES = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}


class MetaRecorder(Recorder):
    """Write the tape of what runs on the virtual GPU; ``"cuda"`` means it.

    Args:
        transients: what kernels allocate beside their outputs.
        kernels: what to run instead of an operator's own kernel, by overload.
        values: what is known of them; nothing is made up when omitted.

    Attributes:
        unsupported: operators that could not be accounted for, with the reason.
        values: as given.
        is_inside: an operator is running.
        has_optimizer: somebody will step; otherwise each forward after a backward is a step.
    """

    def __init__(
        self,
        transients: TransientRule | None = None,
        kernels: Mapping[Any, Callable[..., Any]] | None = None,
        values: Values | None = None,
    ) -> None:
        super().__init__("meta", transients)
        self.values = Values(makes_up=False) if values is None else values
        self.unsupported: dict[str, str] = {}
        self.is_inside = False
        self.has_optimizer = False
        self._kernels = kernels or {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator on meta and record the storages it made."""
        kwargs = _here(kwargs) if kwargs else {}
        if self.is_list_update(func) and next(tensors_in(args)).is_meta:
            self.operators += 1
            self.values.forget(args)
            return None  # nothing to do on meta, and slow at it
        return super().__torch_dispatch__(func, types, args, kwargs)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operator's result, on meta; on the CPU where it is a copy to the host."""
        self.is_inside = True
        try:
            with without_modes():  # values are no tensors of whatever watches this trace
                result = self._answer(func, args, kwargs)
            if result is None:
                result = self._on_meta(func, args, kwargs)
                with without_modes():
                    self.values.follow(func, args, kwargs, result)
            return result
        finally:
            self.is_inside = False

    def _answer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What depends on values, where they are known; None of anything else."""
        values = self.values
        if not any(tensor.is_meta for tensor in tensors_in([*args, *kwargs.values()])):
            return None
        if func is _aten._local_scalar_dense.default:
            return values.number(args[0], is_library=self.phase is Phase.OPTIMIZER)
        if func is _aten._to_copy.default:
            if args[0].is_meta and kwargs.get("device", _META) != _META:
                return values.copied(args[0], kwargs.get("dtype"))
        elif func is _aten.copy_.default:
            if args[1].is_meta and not args[0].is_meta:
                value = values.copied(args[1])
                return None if value is None else args[0].copy_(value)
        elif not _DEPENDS_ON_VALUES.isdisjoint(func.tags):
            return values.decided(func, args, kwargs)
        return None

    def _on_meta(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is _aten.index.Tensor:
            args = (args[0], self._without_masks(args[1]))
        kernel = self._kernels.get(func, func)
        try:
            return kernel(*args, **kwargs)
        except RuntimeError as error:
            if not _lacks_meta_kernel(func, error):
                raise
        # Learn the result's shapes on the CPU, and say so.
        result = func(*tree_map(_zeros, args), **tree_map(_zeros, kwargs))
        self.unsupported[str(func)] = (
            "has no meta kernel: its outputs are counted, what its kernel needs inside is not"
        )
        return tree_map(_on_meta, result)

    def _without_masks(self, indices: Any) -> list[Any]:
        """Masks as the positions in them, as ``index`` takes them (``IndexingUtils.h``, 2.15)."""
        plain: list[Any] = []
        for index in indices:
            is_mask = index is not None and index.dtype in (torch.bool, torch.uint8)
            found = self.values.decided(torch.nonzero, (index,), {}) if is_mask else None
            if found is None:
                plain.append(index)
                continue
            self.record(found, "aten.nonzero.default")
            plain += found.unbind(1)
        return plain

    # -- loops without an optimizer ------------------------------------------------------------

    def begin_forward(self) -> None:
        """A micro-batch's forward starts here; a step where nobody else begins one."""
        if self.phase is Phase.OPTIMIZER and not self.has_optimizer:
            self.begin_step()
        super().begin_forward()

    def enter_phase(self, phase: Phase) -> None:
        """Note where a phase begins; a second backward where no module ran is a second step."""
        is_second = self.phase is Phase.OPTIMIZER and phase is Phase.BACKWARD
        if is_second and not self.has_optimizer:
            self.begin_step()
        super().enter_phase(phase)


def _here(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The virtual GPU is meta; memory of the host is never pinned, nor its generator CUDA's."""
    device = kwargs.get("device")
    if device is not None and device.type == "cuda":
        kwargs = kwargs | {"device": _META}
    if kwargs.get("pin_memory"):
        kwargs = kwargs | {"pin_memory": False}
    return kwargs


def _lacks_meta_kernel(func: Any, error: RuntimeError) -> bool:
    """Whether shapes would do, had somebody written the kernel; not so where values decide."""
    text = str(error)
    is_missing = "'Meta' backend" in text or "no fake impl" in text
    return is_missing and _DEPENDS_ON_VALUES.isdisjoint(func.tags)


def _zeros(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).zero_()


def _on_meta(value: Any) -> Any:
    return value.to(_META) if isinstance(value, Tensor) else value
