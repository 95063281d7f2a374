"""What each module of a model has, makes, keeps for backward and computes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from memfit.memory.recording.virtual_gpu import VirtualGPU
from memfit.memory.tape.tape import Part, Phase, Tape
from memfit.planner.plan import Plan
from memfit.step.failures import explain
from memfit.step.tensors import Arguments, call_model
from memfit.torch_inside import DispatchMode, packet_of, schema_of

__all__ = ["Layer", "LayerTable", "summarise_layers"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One module, with what belongs to it and to none of the modules shown below it.

    Args:
        path: such as ``"layer1.0.conv1"``; empty for the model itself.
        kind: its class.
        depth: 0 for the model itself.
        output_shape: of the first tensor it returns, with the batch; None when it did not run.
        calls: how often one forward pass runs it.
        parameters: elements; a shared parameter counts where it comes first.
        trainable: of those, the ones that train.
        kept_bytes: kept from forward for backward.
        multiply_adds: of one forward pass.
        shares_with: where its shared parameters are counted; empty when it shares none.
    """

    path: str
    kind: str
    depth: int
    output_shape: tuple[int, ...] | None
    calls: int
    parameters: int
    trainable: int
    kept_bytes: int
    multiply_adds: int
    shares_with: str = ""


@dataclass(frozen=True, slots=True)
class LayerTable:
    """A model, module by module; the columns add up to the totals.

    Args:
        name: how the model is called.
        batch_size: the micro-batch.
        input_shape: with the batch.
        precision: of the recipe.
        layers: in the order of ``named_modules``, the model itself first.
        peak_allocated_bytes: of the training step at this micro-batch.
        buffer_bytes: buffers, such as the statistics of batch norms.
        uncounted_operators: operators that compute and have no known count of multiply-adds.
    """

    name: str
    batch_size: int
    input_shape: tuple[int, ...]
    precision: str
    layers: tuple[Layer, ...]
    peak_allocated_bytes: int
    buffer_bytes: int
    uncounted_operators: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Elements of all parameters, each counted once."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def trainable(self) -> int:
        """Elements of the parameters that train."""
        return sum(layer.trainable for layer in self.layers)

    @property
    def kept_bytes(self) -> int:
        """Bytes alive when backward starts that forward made."""
        return sum(layer.kept_bytes for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Of one forward pass over the micro-batch."""
        return sum(layer.multiply_adds for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the names of the attributes."""
        totals = ("parameters", "trainable", "kept_bytes", "multiply_adds")
        return {
            "schema_version": 1,
            "model": self.name,
            "batch_size": self.batch_size,
            "input_shape": list(self.input_shape),
            "precision": self.precision,
            **{name: getattr(self, name) for name in totals},
            "peak_allocated_bytes": self.peak_allocated_bytes,
            "buffer_bytes": self.buffer_bytes,
            "uncounted_operators": list(self.uncounted_operators),
            "layers": [asdict(layer) for layer in self.layers],
        }


def summarise_layers(
    plan: Plan, *, depth: int | None = None, batch_size: int | None = None
) -> LayerTable:
    """What each module has, makes, keeps and computes at a micro-batch.

    Args:
        plan: of the model.
        depth: modules below it are added to the ancestor that is shown; all when omitted.
        batch_size: the micro-batch; the plan's own when omitted.

    Raises:
        StepError: the model's forward pass failed.
    """
    at = plan.at(batch_size)
    model = plan.step.model
    shown = _Shown(model, depth)
    forward = _run_forward(plan, at.batch_size)
    kept = _kept_bytes(plan, at.batch_size)
    parameters, trainable, shares = _count_parameters(model)
    own = {
        "parameters": shown.roll_up(parameters),
        "trainable": shown.roll_up(trainable),
        "kept_bytes": shown.roll_up(kept),
        "multiply_adds": shown.roll_up(forward.multiply_adds),
    }
    layers = [
        Layer(
            path=path,
            kind=type(module).__name__,
            depth=_depth(path),
            output_shape=forward.output_shapes.get(path),
            calls=forward.calls[path],
            shares_with=shares.get(path, ""),
            **{name: counts[path] for name, counts in own.items()},
        )
        for path, module in shown.modules.items()
    ]
    return LayerTable(
        name=plan.model_name,
        batch_size=at.batch_size,
        input_shape=plan.step.first_input.whole(at.batch_size),
        precision=plan.recipe.precision,
        layers=tuple(layers),
        peak_allocated_bytes=at.peak_allocated_bytes,
        buffer_bytes=sum(b.numel() * b.element_size() for b in model.buffers()),
        uncounted_operators=tuple(sorted(forward.uncounted)),
    )


#: Operators that multiply and add; torch.utils.flop_counter (2.11 to 2.15) has no formula for them.
_PRODUCTS_WITHOUT_FORMULA = ("_cudnn_rnn", "_fft_", "linalg_", "_cdist_forward", "_trilinear")


class _Shown:
    """The modules down to a depth; everything below belongs to the nearest one shown."""

    def __init__(self, model: nn.Module, depth: int | None) -> None:
        self.modules = {
            path: module
            for path, module in model.named_modules()
            if depth is None or _depth(path) <= depth
        }

    def roll_up(self, counts: Mapping[str, int]) -> dict[str, int]:
        totals = dict.fromkeys(self.modules, 0)
        for path, count in counts.items():
            totals[self._nearest(path)] += count
        return totals

    def _nearest(self, path: str) -> str:
        while path not in self.modules:
            path = path.rpartition(".")[0]
        return path


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0


def _count_parameters(model: nn.Module) -> tuple[dict[str, int], dict[str, int], dict[str, str]]:
    """Elements, trainable elements and sharing by module path, each parameter counted once."""
    owners: dict[int, str] = {}
    parameters: dict[str, int] = defaultdict(int)
    trainable: dict[str, int] = defaultdict(int)
    shares: dict[str, str] = {}
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owner = owners.setdefault(id(parameter), path)
            if owner != path:
                shares[path] = owner
                continue
            parameters[path] += parameter.numel()
            trainable[path] += parameter.numel() * parameter.requires_grad
    return parameters, trainable, shares


# -- what forward keeps for backward ---------------------------------------------------------------


def _kept_bytes(plan: Plan, batch_size: int) -> dict[str, int]:
    """Requested bytes by module path of what is alive when the last backward pass starts."""
    timeline = plan.at(batch_size).timeline
    kept: dict[str, int] = defaultdict(int)
    position = _start_of_backward(timeline.tape)
    for number in timeline.live_at(position - 1) if position else ():
        allocation = timeline.tape.allocations[number]
        if allocation.part is Part.ACTIVATIONS and allocation.phase is Phase.FORWARD:
            kept[allocation.module] += timeline.sizes_bytes[number]
    return kept


def _start_of_backward(tape: Tape) -> int:
    """The number of events before the last backward pass of the last complete step."""
    complete = max((m.step for m in tape.marks if m.phase is Phase.OPTIMIZER), default=0)
    return max(
        (m.position for m in tape.marks if m.phase is Phase.BACKWARD and m.step <= complete),
        default=0,
    )


# -- what forward makes and computes ---------------------------------------------------------------


@dataclass
class _Forward:
    """One forward pass on meta tensors, seen from the hooks of its modules."""

    output_shapes: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    multiply_adds: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    uncounted: set[str] = field(default_factory=set)
    running: list[str] = field(default_factory=list)


class _CountMultiplyAdds(DispatchMode):
    """Count by the formulas of ``torch.utils.flop_counter``, where one multiply-add is two."""

    def __init__(self, forward: _Forward) -> None:
        super().__init__()
        self._forward = forward

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = packet_of(func)
        module = self._forward.running[-1] if self._forward.running else ""
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=result)
            self._forward.multiply_adds[module] += flops // 2
        elif schema_of(func).name.removeprefix("aten::").startswith(_PRODUCTS_WITHOUT_FORMULA):
            self._forward.uncounted.add(str(func))
        return result


def _run_forward(plan: Plan, micro_batch: int) -> _Forward:
    """Run the model once on meta, and note what its modules return and compute."""
    step, recipe, forward = plan.step, plan.recipe, _Forward()
    gpu = VirtualGPU(step.gpu, attention=recipe.attention, makes_up=False)
    try:
        with gpu, torch.no_grad():
            gpu.adopt(step.model)
            inputs, target = step.batch.make(micro_batch, gpu.device)
            with _hooked(step.model, forward), _CountMultiplyAdds(forward):
                if step.job.own.step is not None:
                    given = inputs.alone if isinstance(inputs, Arguments) else inputs
                    step.job.own.step(step.model, given, target)
                else:
                    call_model(step.model, inputs)
    except Exception as error:  # whatever the model's own code raises
        raise explain(error, gpu) from error
    return forward


@contextmanager
def _hooked(model: nn.Module, forward: _Forward) -> Iterator[None]:
    paths = {id(module): path for path, module in model.named_modules()}

    def before(module: nn.Module, _inputs: Any) -> None:
        forward.running.append(paths[id(module)])

    def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
        path = forward.running.pop()
        forward.calls[path] += 1
        forward.output_shapes.setdefault(path, _first_shape(output))

    handles = [module.register_forward_pre_hook(before) for module in model.modules()]
    handles += [module.register_forward_hook(after) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first_shape(output: Any) -> tuple[int, ...] | None:
    if isinstance(output, Tensor):
        return tuple(output.shape)
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return next((s for s in map(_first_shape, output) if s is not None), None)
    return None
