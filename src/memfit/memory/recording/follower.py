"""Follow a training step with a recorder: which module is running, which phase, what stays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch.optim import Optimizer

from memfit.memory.recording.recorder import Recorder
from memfit.memory.tape.tape import Part, Phase
from memfit.torch_inside import in_backward, replaced

__all__ = ["Follower", "hooked", "state_tensors"]

_optimizer_hooks: Any = import_module("torch.optim.optimizer")  # hidden by torch.optim


@contextmanager
def hooked(
    before_module: Callable[..., Any],
    after_module: Callable[..., Any],
    before_optimizer: Callable[..., Any],
    after_optimizer: Callable[..., Any],
) -> Iterator[None]:
    """Inside, these are called around every module's forward and every optimizer's step.

    Args:
        before_module: ``(module, inputs)``.
        after_module: ``(module, inputs, output)``; also when forward raised, output None then.
        before_optimizer: ``(optimizer, args, kwargs)``.
        after_optimizer: ``(optimizer, args, kwargs)``.
    """
    handles = [
        module_hooks.register_module_forward_pre_hook(before_module),
        module_hooks.register_module_forward_hook(after_module, always_call=True),
        _optimizer_hooks.register_optimizer_step_pre_hook(before_optimizer),
        _optimizer_hooks.register_optimizer_step_post_hook(after_optimizer),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Follower:
    """Tells a recorder where a training step is, on any device.

    Args:
        recorder: writes the tape.
        adopts: put what is met on the way on the tape: models, inputs, an optimizer's state.
            Otherwise that only gets its part where it is on the tape.
    """

    def __init__(self, recorder: Recorder, *, adopts: bool = True) -> None:
        self.recorder = recorder
        self._adopts = adopts
        self._roots: dict[int, nn.Module] = {}
        self._paths: dict[int, str] = {}
        self._inputs: dict[str, tuple[int, ...]] = {}
        self._failure: tuple[int, str] | None = None  # id of an exception, path of its module

    def adopt(self, model: nn.Module) -> None:
        """Put a model that was built elsewhere on the tape, as ``model.to(device)`` would."""
        self._roots[id(model)] = model
        for name, module in model.named_modules():
            self._paths.setdefault(id(module), name)
        self.recorder.adopt_module(model)

    @property
    def parameter_count(self) -> int:
        """Parameters of the models seen so far, shared ones once."""
        models = self._roots.values()
        parameters = {id(p): p.numel() for model in models for p in model.parameters()}
        return sum(parameters.values())

    def module_at(self, path: str) -> nn.Module | None:
        """The module of that path, of the models seen so far."""
        for model in self._roots.values():
            for name, module in model.named_modules():
                if name == path:
                    found: nn.Module = module
                    return found
        return None

    def input_shape_at(self, path: str) -> tuple[int, ...] | None:
        """The shape of the first input that the module of that path was last given."""
        return self._inputs.get(path)

    def module_that_raised(self, error: BaseException) -> str | None:
        """The path of the innermost module whose forward an exception left; None outside of all."""
        return self._failure[1] if self._failure and self._failure[0] == id(error) else None

    # -- hooks: which module, which phase ------------------------------------------------------

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Inside, every module and optimizer of the process is followed."""
        told = (
            self._before_module, self._after_module, self._before_optimizer, self._after_optimizer
        )  # fmt: skip
        with _lengths_as_numbers(), hooked(*told):
            yield

    def _before_module(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._are_planned(inputs):
            return
        trail = self.recorder.trail
        if not trail.running and not in_backward():
            self._before_root(module, inputs)
        path = self._paths.get(id(module), "")
        if inputs and isinstance(inputs[0], Tensor):
            self._inputs[path] = tuple(inputs[0].shape)
        trail.enter(path)

    def _before_root(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._adopts and id(module) not in self._paths:
            self.adopt(module)
        self.tag_gradients()
        for value in inputs:
            if isinstance(value, Tensor) and value.is_leaf and not value.requires_grad:
                self._tag(value, Part.BATCH)
        self.recorder.tag_survivors(Phase.DATA, Part.BATCH)
        if self.recorder.phase is Phase.OPTIMIZER:  # the next micro-batch of an accumulation
            self.recorder.tag_survivors(Phase.OPTIMIZER, Part.BATCH)
        self.recorder.begin_forward()

    def _after_module(self, _module: nn.Module, inputs: Any, _output: Any) -> None:
        """Called also when forward raised."""
        running = self.recorder.trail.running
        if not running or self._are_planned(inputs):
            return
        error = sys.exception()
        if error is not None and self.module_that_raised(error) is None:
            self._failure = (id(error), running[-1])
        self.recorder.leave_module()

    def _before_optimizer(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if not self._are_planned(parameters):
            self.recorder.tag_gradients(parameters)
            self.recorder.enter_phase(Phase.OPTIMIZER)

    def _after_optimizer(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if any(self._are_planned(group["params"]) for group in optimizer.param_groups):
            return
        for value in state_tensors(optimizer):
            self._tag(value, Part.OPTIMIZER)
        self.recorder.begin_step()

    def _tag(self, tensor: Tensor, part: Part) -> None:
        tag = self.recorder.adopt if self._adopts else self.recorder.tag
        tag(tensor, part)

    def _are_planned(self, values: Iterable[Any]) -> bool:
        """Whether a plan is traced inside a run with real values, of which it is no part."""
        return self.recorder.device_type != "meta" and any(
            isinstance(value, Tensor) and value.is_meta for value in values
        )

    def tag_gradients(self) -> None:
        """Tag what the parameters of all models hold as gradients."""
        for model in self._roots.values():
            self.recorder.tag_gradients(model.parameters())


def state_tensors(optimizer: Optimizer) -> Iterator[Tensor]:
    """Every tensor of an optimizer's state."""
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


@contextmanager
def _lengths_as_numbers() -> Iterator[None]:
    """Inside, CTC reads its lengths as it does without a dispatch mode.

    With one it takes them to be on the device (``ctc_loss`` in ``native/LossCTC.cpp``, 2.15).
    """
    original = torch.ctc_loss

    def ctc_loss(scores: Any, targets: Any, inputs: Any, lengths: Any, *more: Any) -> Any:
        known = [_numbers(each) for each in (inputs, lengths)]
        return original(scores, targets, *known, *more)

    with replaced([(torch, "ctc_loss", ctc_loss)]):
        yield


def _numbers(lengths: Any) -> Any:
    is_on_host = isinstance(lengths, Tensor) and lengths.device.type == "cpu"
    return lengths.tolist() if is_on_host else lengths
