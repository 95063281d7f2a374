"""Record every allocation of a running step: a dispatch mode that writes the tape.

The recorder sees each ATen operator below autograd, with the storages that it returns. A storage
seen for the first time is an allocation; when the last tensor that shares it dies, it is freed.
What a byte is *for* is decided by what happens to it: allocated in forward and alive when
backward starts is an activation, alive in ``parameter.grad`` is a gradient, made by the
optimizer's step and still there after it is optimizer state.
"""

from __future__ import annotations

import sys
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from memfit.memory.recording.in_place import in_place_twin
from memfit.memory.tape.tape import Allocation, Mark, Part, Phase, SizeRule, Tape

__all__ = ["Recorder", "TransientRule", "in_backward"]

_LOCAL_SCALAR = torch.ops.aten._local_scalar_dense.default

#: Bytes that an operator's kernel allocates and frees while it runs, from its arguments and result.
TransientRule = Callable[
    [Any, tuple[Any, ...], Any, Phase], Iterable[tuple[int, Part, bool, SizeRule | None]]
]


class _Record:
    """One allocation while its part is still open."""

    __slots__ = (
        "dtype",
        "module",
        "operator",
        "part",
        "phase",
        "rule",
        "shape",
        "size_bytes",
        "step",
    )

    def __init__(
        self,
        size_bytes: int,
        part: Part | None,
        phase: Phase,
        operator: str,
        module: str,
        shape: tuple[int, ...],
        dtype: str,
        step: int,
    ) -> None:
        self.size_bytes = size_bytes
        self.part = part
        self.phase = phase
        self.operator = operator
        self.module = module
        self.shape = shape
        self.dtype = dtype
        self.step = step
        self.rule: SizeRule | None = None

    def frozen(self) -> Allocation:
        return Allocation(
            self.size_bytes,
            self.part or Part.TEMPORARIES,
            self.phase,
            self.operator,
            self.module,
            self.shape,
            self.dtype,
            self.step,
            self.rule,
        )


class Recorder(TorchDispatchMode):
    """Write the tape of whatever runs inside ``with recorder:``.

    Args:
        device_type: only tensors on this device count (``"meta"`` for the virtual GPU, ``"cuda"``
            for a real one, ``"cpu"`` for accounting real values).
        transients: what kernels allocate beside their outputs.
        kernels: what to run instead of an operator's own kernel, by overload.

    Attributes:
        operators: how many ran so far.
    """

    def __init__(
        self,
        device_type: str = "meta",
        transients: TransientRule | None = None,
        kernels: Mapping[Any, Callable[..., Any]] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.step = 0
        self.operators = 0
        self.phase = Phase.DATA
        self.last_operator = ""
        self.last_module = ""
        self.modules: list[str] = []  # the path of each module that is running, outermost first
        self._device_type = device_type
        self._transients = transients
        self._kernels = kernels or {}
        self._records: dict[int, _Record] = {}  # by number
        self._made = 0  # how many allocations there were
        self._events: list[int] = []
        self._note_free: Callable[[int], None] = self._events.append  # is told ``~number``
        self._marks: list[Mark] = [Mark(0, 0, Phase.DATA)]
        self._live: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._span_starts: list[int] = []  # autograd sequence numbers at which a module began
        self._span_modules: list[str] = []
        self._names: dict[int, str] = {}  # parameter paths by id
        self._effects: dict[Any, _Effect] = {}
        self.unsupported: dict[str, str] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; torch's guard around each operator would cost a tenth."""
        return False

    # -- what runs ---------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator and record the storages it made."""
        func = in_place_twin(func, args)
        self.operators += 1
        self.last_operator = str(func)
        if func is _LOCAL_SCALAR and self._device_type == "meta":
            value = _assumed_value(args[0], self.phase)
            if value is not None:
                return value
        effect = self._effects.get(func)
        if effect is None:
            effect = self._effects[func] = _effect(func)
        if effect is _Effect.UPDATES_LISTS and self._device_type == "meta":
            return None  # nothing to do on meta, and slow at it
        try:
            kernel = self._kernels.get(func, func)
            result = kernel(*args, **kwargs) if kwargs else kernel(*args)
        except RuntimeError as error:
            result = self._run_on_cpu(func, args, kwargs or {}, error)
        if effect is _Effect.MAKES_STORAGE:
            for tensor in _tensors(result):
                self._record(tensor, self.last_operator)
        if self._transients is not None:
            self._settle_phase()
            for size_bytes, part, stays, rule in self._transients(func, args, result, self.phase):
                self._transient(size_bytes, part, rule, stays=stays)
        return result

    def _run_on_cpu(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: RuntimeError
    ) -> Any:
        """Learn the result's shapes on CPU when an operator has no meta kernel, and say so."""
        if not _lacks_meta_kernel(func, error):
            raise error
        result = func(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
        self.unsupported[str(func)] = (
            "has no meta kernel: its outputs are counted, what its kernel needs inside is not"
        )
        return tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, result)

    def adopt(self, tensor: Tensor, part: Part, module: str = "", operator: str = "") -> None:
        """Say what a tensor is for; allocate it now when it is not on the tape yet."""
        found = self._live.get(_address(tensor))
        if found is None:
            self._record(tensor, operator or "aten._to_copy.default")
            found = self._live.get(_address(tensor))
        if found is not None:
            record = self._records[found[1]]
            record.part = part
            record.module = module or record.module

    def adopt_module(self, module: nn.Module) -> None:
        """Tag a model's parameters and buffers, and learn their names."""
        for name, parameter in module.named_parameters():
            self._names[id(parameter)] = name.rpartition(".")[0]
            self.adopt(parameter, Part.PARAMETERS, name.rpartition(".")[0])
        for name, buffer in module.named_buffers():
            self.adopt(buffer, Part.PARAMETERS, name.rpartition(".")[0])

    def tag_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Tag what the parameters hold as gradients."""
        for parameter in parameters:
            if parameter.grad is not None:
                self.adopt(parameter.grad, Part.GRADIENTS, self._names.get(id(parameter), ""))

    def tag_survivors(self, phase: Phase, part: Part) -> None:
        """Tag what was made in a phase, is still alive and has no part yet."""
        for _, number in self._live.values():
            record = self._records[number]
            if record.part is None and record.phase is phase:
                record.part = part

    # -- where we are ------------------------------------------------------------------------

    def enter_phase(self, phase: Phase) -> None:
        """Note where a phase begins; entering backward settles what forward kept."""
        if phase is self.phase:
            return
        if phase is Phase.BACKWARD:
            self.tag_survivors(Phase.FORWARD, Part.ACTIVATIONS)
        self.phase = phase
        self._marks.append(Mark(len(self._events), self.step, phase))

    def begin_step(self) -> None:
        """The next training step starts here."""
        self.step += 1
        self.phase = Phase.DATA
        self._span_starts.clear()
        self._span_modules.clear()
        self._marks.append(Mark(len(self._events), self.step, Phase.DATA))

    def enter_module(self, path: str) -> None:
        """A module's forward begins (also when a checkpoint runs it again in backward)."""
        self.modules.append(path)
        self._begin_span(path)

    def leave_module(self) -> None:
        """The innermost module's forward ended."""
        self.modules.pop()
        if self.modules:
            self._begin_span(self.modules[-1])
        elif in_backward():
            self.tag_survivors(Phase.BACKWARD, Part.ACTIVATIONS)

    def _begin_span(self, path: str) -> None:
        self._span_starts.append(torch._C._autograd._get_sequence_nr())
        self._span_modules.append(path)

    def _settle_phase(self) -> None:
        """Backward announces itself by the engine's graph task; nobody has to tell us."""
        if in_backward():
            if self.phase is not Phase.BACKWARD:
                self.enter_phase(Phase.BACKWARD)
        elif self.phase is Phase.BACKWARD:
            self.enter_phase(Phase.OPTIMIZER)

    def _module_now(self) -> str:
        if self.modules:
            return self.modules[-1]
        if self.phase is not Phase.BACKWARD:
            return ""
        node: Any = torch._C._current_autograd_node()
        if node is None:
            return ""
        variable = getattr(node, "variable", None)
        if variable is not None:  # AccumulateGrad
            return self._names.get(id(variable), "")
        index = bisect_right(self._span_starts, node._sequence_nr()) - 1
        return self._span_modules[index] if index >= 0 else ""

    # -- the tape ----------------------------------------------------------------------------

    def tape(self) -> Tape:
        """What was recorded so far."""
        return Tape(
            tuple(record.frozen() for record in self._records.values()),
            tuple(self._events),
            tuple(self._marks),
        )

    def _record(self, tensor: Tensor, operator: str) -> None:
        if tensor.device.type != self._device_type:
            return
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._live:
            return
        self._settle_phase()
        number = self._append(
            storage.nbytes(), None, operator, tuple(tensor.shape), str(tensor.dtype)[6:]
        )
        note_free, live = self._note_free, self._live

        def freed(_: Any, number: int = number, address: int = address) -> None:
            note_free(~number)
            live.pop(address, None)

        live[address] = (weakref.ref(storage, freed), number)

    def _append(
        self, size: int, part: Part | None, operator: str, shape: tuple[int, ...], dtype: str
    ) -> int:
        number = self._made
        self.last_module = self._module_now()
        self._records[number] = _Record(
            size, part, self.phase, operator, self.last_module, shape, dtype, self.step
        )
        self._made += 1
        self._events.append(number)
        return number

    def _transient(
        self, size_bytes: int, part: Part, rule: SizeRule | None, *, stays: bool
    ) -> None:
        number = self._append(size_bytes, part, self.last_operator, (), "")
        self._records[number].rule = rule
        if not stays:
            self._events.append(~number)


def _assumed_value(tensor: Tensor, phase: Phase) -> float | bool | None:
    """The value of a tensor without values, where the answer of a usual run is known.

    Adafactor reads norms during its step; no memory depends on them. ``transformers`` asks whether
    masks are full and positions ascend, to skip the mask: batches are taken to have no padding and
    no packed sequences.
    """
    if phase is Phase.OPTIMIZER:
        return 1.0
    if tensor.dtype == torch.bool and _asker().startswith("transformers."):
        return True
    return None


def _asker() -> str:
    """The first module up the stack that is neither torch nor memfit."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith(("torch.", "memfit.")):
            return name
        frame = frame.f_back
    return ""


def in_backward() -> bool:
    """Whether the autograd engine is running on this thread."""
    return torch._C._current_graph_task_id() >= 0


class _Effect(Enum):
    """What an operator can do to memory."""

    MAKES_STORAGE = "returns memory of its own"
    ALIASES = "a view, or in place"
    UPDATES_LISTS = "torch._foreach_*_ and fused optimizer steps: in place, on lists"


def _effect(func: Any) -> _Effect:
    schema = func._schema
    if not schema.returns and schema.name.startswith(("aten::_foreach_", "aten::_fused_")):
        return _Effect.UPDATES_LISTS
    if any(r.alias_info is None for r in schema.returns):
        return _Effect.MAKES_STORAGE
    return _Effect.ALIASES


def _lacks_meta_kernel(func: Any, error: RuntimeError) -> bool:
    """Whether shapes would do, had somebody written the kernel; not so where values decide."""
    asks_for_values = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
    text = str(error)
    is_missing = "'Meta' backend" in text or "no fake impl" in text
    return is_missing and asks_for_values.isdisjoint(func.tags)


def _on_cpu(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).zero_()


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for item in result:
            yield from _tensors(item)


def _address(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
