"""Models whose parameters and buffers have shapes but no memory (the meta device).

Construction runs as usual; only the parameters are redirected to meta, at the moment a module
registers them. Everything else a constructor computes (drop-path rates read with ``.item()``,
window masks, position indices) stays real, so it works where ``with torch.device("meta")`` does
not. An operator that meets a meta operand runs on meta altogether, which lets a constructor feed
a dummy image through its layers to learn a shape.

Of 311 models of torchvision 0.29 and timm 1.0.31 (all of the former, two of each timm family), 296
build under ``torch.device("meta")``, 302 with redirected parameters alone, 311 with meta operands
too; on torch 2.15 in 0.1 s each.
"""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from torch.utils.weak import WeakIdKeyDictionary

from memfit.errors import InputShapeError, MemfitError, ModelError
from memfit.torch_inside import (
    DispatchMode,
    compiled_from,
    own_buffers,
    own_parameters,
    tree_iter,
    tree_map_only,
)

__all__ = [
    "construct_library_model",
    "construct_on_meta",
    "for_training",
    "is_for_training",
    "materialise_lazy",
    "meta_twin",
    "random_state_kept",
    "unwrapped",
]

_FOR_TRAINING: ContextVar[bool] = ContextVar("for_training", default=False)


@contextmanager
def for_training(seed: int) -> Iterator[None]:
    """Build with real weights, drawn from ``seed``, where otherwise only shapes are built.

    Everything below works as it says, without the redirection: what is built is what its
    constructor made, on the CPU. The process's random state stays as it was.
    """
    token = _FOR_TRAINING.set(True)
    try:
        with random_state_kept():
            torch.manual_seed(seed)
            yield
    finally:
        _FOR_TRAINING.reset(token)


def is_for_training() -> bool:
    """Whether real weights are wanted."""
    return _FOR_TRAINING.get()


def construct_on_meta(factory: Callable[[], object]) -> object:
    """Call ``factory`` with parameters redirected to meta; torch's random state stays as it was.

    A factory that needs the values of its own parameters fails that way and is called once more
    in the ordinary way, so an error that reaches the caller is the factory's own.

    Args:
        factory: takes nothing; normally returns an ``nn.Module``.

    Returns:
        What ``factory`` returned. Its parameters are on meta, its buffers where they were made.
    """
    if is_for_training():
        return factory()
    with random_state_kept():
        try:
            with _parameters_on_meta():
                return factory()
        except MemfitError:
            raise
        except Exception:
            return factory()


def construct_library_model(
    spec: str, factory: Callable[[], object], input_shape: tuple[int, ...] | None
) -> nn.Module:
    """The meta twin of what a library's ``factory`` builds; its errors told as ours.

    Args:
        spec: named in the error.
        factory: returns an ``nn.Module``.
        input_shape: the shape asked for, where it is not the model's own: it is then to blame.

    Raises:
        InputShapeError: the factory failed and a shape was asked for.
        ModelError: the factory failed otherwise.
    """
    try:
        module = construct_on_meta(factory)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if input_shape is not None:
            size = "x".join(map(str, input_shape))
            raise InputShapeError(f"{spec} cannot be built for {size}: {reason}") from error
        raise ModelError(f"{spec} could not be built: {reason}") from error
    assert isinstance(module, nn.Module)
    return meta_twin(module)


def meta_twin(module: nn.Module) -> nn.Module:
    """A copy of ``module`` with every parameter and buffer on meta; ``module`` is left untouched.

    Names, classes, tying, ``requires_grad``, strides, dtypes and training flags are kept. A
    ``torch.compile`` or data-parallel wrapper is taken off first: what it wraps is copied.

    Raises:
        ModelError: the module holds something that Python cannot copy, such as an open file.
    """
    module, _ = unwrapped(module)
    _refuse_scripted(module)
    if is_for_training():
        return module
    twins: dict[int, Any] = {}
    for part in module.modules():
        for parameter in own_parameters(part).values():
            if parameter is not None and id(parameter) not in twins:
                twins[id(parameter)] = _parameter_twin(parameter)
        for tensor in (*own_buffers(part).values(), *vars(part).values()):
            if _belongs_on_meta(part, tensor) and id(tensor) not in twins:
                twins[id(tensor)] = _buffer_twin(tensor)
    try:
        return copy.deepcopy(module, twins)
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} cannot be copied: {type(error).__name__}: {error}",
            hint="Pass a function that builds the model instead of the model itself.",
        ) from error


def _apex() -> tuple[str, ...]:
    """NVIDIA's apex, where ``amp.initialize`` was called: it replaces functions and forwards."""
    state = getattr(sys.modules.get("apex.amp._amp_state"), "_amp_state", None)
    is_on = getattr(getattr(state, "opt_properties", None), "enabled", False)
    return ("apex.amp",) if is_on else ()


def _refuse_scripted(module: nn.Module) -> None:
    """TorchScript keeps its parameters and its operators where nothing else sees them."""
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            what = f"its {name}" if name else "it"
            raise ModelError(
                f"TorchScript modules are not supported, and {what} is one "
                f"({type(part).__name__}).",
                hint="Give the module as it is before torch.jit.script or torch.jit.trace.",
            )


def materialise_lazy(module: nn.Module, input_shape: tuple[int, ...] | None) -> None:
    """Give lazy layers (``nn.LazyLinear``) their shapes by one pass of two images on meta.

    Args:
        module: on meta; changed in place when it has lazy parameters.
        input_shape: ``(C, H, W)`` of one image.

    Raises:
        ModelError: the model is lazy and ``input_shape`` is None.
        InputShapeError: the model does not accept the input.
    """
    lazy = [name for name, tensor in module.named_parameters() if is_lazy(tensor)]
    if not lazy:
        return
    if input_shape is None:
        raise ModelError(
            f"{type(module).__name__} has lazy layers ({lazy[0]}): their size follows the input.",
            hint="Say the input shape, for example --input-shape 3x224x224.",
        )
    try:
        device = "cpu" if is_for_training() else "meta"
        with random_state_kept(), torch.no_grad():
            module(torch.zeros(2, *input_shape, device=device))
    except Exception as error:
        shape = "x".join(map(str, input_shape))
        raise InputShapeError(
            f"{type(module).__name__} does not accept a {shape} input: "
            f"{type(error).__name__}: {error}"
        ) from error


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore torch's generators; those of CUDA only where CUDA is already in use."""
    in_use: bool = torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if in_use else ()
    with torch.random.fork_rng(devices=list(devices)):
        yield


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Replace each parameter by its meta twin when it is registered in this thread."""
    owner = threading.get_ident()
    twins: Any = WeakIdKeyDictionary()

    def redirect(_: nn.Module, __: str, parameter: nn.Parameter) -> torch.Tensor | None:
        if threading.get_ident() != owner or parameter.is_meta or is_lazy(parameter):
            return None
        twin: torch.Tensor | None = twins.get(parameter)  # tied: registered a second time
        if twin is None:
            twin = twins[parameter] = _parameter_twin(parameter)
        return twin

    handle = register_module_parameter_registration_hook(redirect)  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings(), _MetaOperands():
            # A factory that loads a checkpoint: the copy into meta does nothing, as it should.
            warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
            yield
    finally:
        handle.remove()


class _MetaOperands(DispatchMode):
    """An operator with one meta operand runs with all its operands on meta."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if not any(tensor.is_meta for tensor in tensors):
            return func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default:  # module.to("cpu"): there is nothing to move
            kwargs = {**kwargs, "device": torch.device("meta")}
        if all(tensor.is_meta for tensor in tensors):
            return func(*args, **kwargs)
        meta_args, meta_kwargs = tree_map_only(
            torch.Tensor, lambda tensor: tensor.to("meta"), (args, kwargs)
        )
        return func(*meta_args, **meta_kwargs)  # of an in-place operator the caller keeps its self


def _parameter_twin(parameter: torch.Tensor) -> torch.Tensor:
    twin: torch.Tensor
    if is_lazy(parameter):
        twin = _lazy_twin(UninitializedParameter, parameter)
    else:
        empty = torch.empty_like(parameter, device="meta", requires_grad=False)
        twin = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        twin.__class__ = parameter.__class__  # type: ignore[assignment]  # a subclass stays one
    twin.__dict__.update(vars(parameter))
    return twin


def _buffer_twin(buffer: torch.Tensor) -> torch.Tensor:
    if is_lazy(buffer):
        return _lazy_twin(UninitializedBuffer, buffer)
    twin = torch.empty_like(buffer, device="meta", requires_grad=buffer.requires_grad)
    twin.__dict__.update(vars(buffer))
    return twin


def _lazy_twin(cls: Any, lazy: torch.Tensor) -> torch.Tensor:
    twin: torch.Tensor = cls(requires_grad=lazy.requires_grad, device="meta", dtype=lazy.dtype)
    return twin


def _belongs_on_meta(module: nn.Module, value: object) -> bool:
    """Buffers do, and plain tensor attributes that are on a GPU or that cannot be deep-copied."""
    if not isinstance(value, torch.Tensor):
        return False
    is_buffer = any(value is buffer for buffer in own_buffers(module).values())
    return is_buffer or value.device.type != "cpu" or not value.is_leaf


def unwrapped(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """What ``torch.compile`` and data-parallel wrappers wrap, and which there were."""
    wrappers: list[str] = []
    while True:
        compiled = compiled_from(module)
        if compiled is not None:
            module, name = compiled, "torch.compile"
        elif isinstance(module, DataParallel | DistributedDataParallel):
            module, name = module.module, type(module).__name__
        else:
            return module, (*wrappers, *_apex())
        wrappers.append(name)
