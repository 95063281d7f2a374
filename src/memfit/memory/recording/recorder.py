"""Record every allocation of a running step: a dispatch mode that writes the tape.

The recorder sees each ATen operator below autograd, with the storages that it returns. A storage
seen for the first time is an allocation; when the last tensor that shares it dies, it is freed.
What a byte is *for* is decided by what happens to it: allocated in forward and alive when
backward starts is an activation, alive in ``parameter.grad`` is a gradient, made by the
optimizer's step and still there after it is optimizer state.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from memfit.memory.kernels.scope import Copy, Held, Result, Returned, Scope, with_results
from memfit.memory.kernels.transients import KernelMemory
from memfit.memory.recording.in_place import in_place_twin
from memfit.memory.recording.ledger import Ledger, Record
from memfit.memory.recording.module_trail import ModuleTrail
from memfit.memory.recording.values import tensors_in
from memfit.memory.tape.tape import Part, Phase, SizeRule, Tape
from memfit.torch_inside import DispatchMode, in_backward, schema_of, storage_key

__all__ = ["Recorder", "TransientRule", "in_backward"]

#: What an operator's kernel allocates while it runs, from its arguments and result.
TransientRule = Callable[[Any, tuple[Any, ...], Any, Phase], KernelMemory | None]


class Recorder(DispatchMode):
    """Write the tape of whatever runs inside ``with recorder:``.

    Args:
        device_type: only tensors on this device count (``"meta"`` for the virtual GPU, ``"cuda"``
            for a real one, ``"cpu"`` for accounting real values).
        transients: what kernels allocate beside their outputs.
        ledger: where it writes; one that keeps everything when omitted.

    Attributes:
        operators: how many ran so far.
        trail: which module is running.
        place: says which of the user's lines is; of no line when nobody asks.
    """

    def __init__(
        self,
        device_type: str = "meta",
        transients: TransientRule | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__()
        self.device_type = device_type
        self.ledger = Ledger() if ledger is None else ledger
        self.trail = ModuleTrail()
        self.place: Callable[[], str] = str
        self.step = 0
        self.operators = 0
        self.phase = Phase.DATA
        self.last_operator = ""
        self._transients = transients
        self._live: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._effects: dict[Any, _Effect] = {}
        self._is_host = False

    # -- what runs ---------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator and record the storages it made."""
        kwargs = kwargs or {}
        parts = self.in_parts(func, args, kwargs)
        if parts is not NotImplemented:
            return parts
        func = in_place_twin(func, args)
        self.operators += 1
        self.last_operator = str(func)
        result = self.run(func, args, kwargs)
        results = result if isinstance(result, (tuple, list)) else (result,)
        made = tuple(results) if self._effect_of(func) is _Effect.MAKES_STORAGE else ()
        kernel = None
        if self._transients is not None:
            self.settle_phase()
            kernel = self._transients(func, args, result, self.phase)
        if kernel is None:
            for tensor in tensors_in(made):
                self.record(tensor, self.last_operator)
        else:
            scope = with_results(kernel.scope, len(made))
            self._allocate_scope(scope, made, kernel.part, kernel.rules())
        return result

    def _allocate_scope(
        self, scope: Scope, made: tuple[Any, ...], part: Part, rules: Iterator[SizeRule]
    ) -> list[int]:
        """Allocate what a kernel does, in its order; a block is freed when its scope ends.

        Returns the blocks that the scope hands to the one around it.
        """
        blocks: list[int] = []
        returned: list[int] = []
        for item in scope:
            if isinstance(item, Result):
                for tensor in tensors_in(made[item.index : item.index + 1]):
                    self.record(tensor, self.last_operator)
            elif isinstance(item, Held):
                self._allocate(item.size_bytes, part, self.last_operator)
            elif isinstance(item, int):
                rule = next(rules)
                if item or not isinstance(item, Copy):
                    number = self._allocate(int(item), part, self.last_operator, rule=rule)
                    (returned if isinstance(item, Returned) else blocks).append(number)
            else:
                blocks += self._allocate_scope(item, made, part, rules)
        for number in reversed(blocks):
            self.ledger.free(number)
        return returned

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the operator returns."""
        return func(*args, **kwargs)

    def is_list_update(self, func: Any) -> bool:
        """Whether an operator updates lists of tensors in place, and returns nothing."""
        return self._effect_of(func) is _Effect.UPDATES_LISTS

    def _effect_of(self, func: Any) -> _Effect:
        effect = self._effects.get(func)
        if effect is None:
            effect = self._effects[func] = _effect(func)
        return effect

    @contextmanager
    def host(self) -> Iterator[None]:
        """Inside, what is made lies on the host and is not recorded."""
        self._is_host = True
        try:
            yield
        finally:
            self._is_host = False

    # -- what it is for ----------------------------------------------------------------------

    def adopt(self, tensor: Tensor, part: Part, module: str = "", operator: str = "") -> None:
        """Say what a tensor is for; allocate it now when it is not on the tape yet."""
        if hasattr(tensor, "__tensor_flatten__"):  # made of others, such as a shard
            for name in tensor.__tensor_flatten__()[0]:
                if isinstance(inner := getattr(tensor, name), Tensor):
                    self.adopt(inner, part, module, operator)
            return
        if not self.tag(tensor, part, module):
            self.record(tensor, operator or "aten._to_copy.default")
            self.tag(tensor, part, module)

    def tag(self, tensor: Tensor, part: Part, module: str = "") -> bool:
        """Say what a tensor is for, where it is on the tape; returns whether it is."""
        found = self._live.get(storage_key(tensor))
        if found is None:
            return False
        record = self.ledger.records[found[1]]
        record.part = part
        record.module = module or record.module
        return True

    def adopt_module(self, module: nn.Module) -> None:
        """Tag a model's parameters and buffers, and learn their names."""
        for name, parameter in module.named_parameters():
            self.trail.names[id(parameter)] = name.rpartition(".")[0]
            self.adopt(parameter, Part.PARAMETERS, name.rpartition(".")[0])
        for name, buffer in module.named_buffers():
            self.adopt(buffer, Part.PARAMETERS, name.rpartition(".")[0])

    def tag_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Tag what the parameters hold as gradients."""
        for parameter in parameters:
            if parameter.grad is not None:
                name = self.trail.names.get(id(parameter), "")
                self.adopt(parameter.grad, Part.GRADIENTS, name)

    def tag_survivors(self, phase: Phase, part: Part) -> None:
        """Tag what was made in a phase, is still alive and has no part yet."""
        for _, number in self._live.values():
            record = self.ledger.records[number]
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
        self.ledger.mark(self.step, phase)

    def begin_forward(self) -> None:
        """A micro-batch's forward starts here."""
        self.ledger.settle()
        self.enter_phase(Phase.FORWARD)

    def begin_step(self) -> None:
        """The next training step starts here."""
        self.step += 1
        self.phase = Phase.DATA
        self.trail.begin_step()
        self.ledger.mark(self.step, Phase.DATA)
        self.ledger.settle()

    def leave_module(self) -> None:
        """The innermost module's forward ended; in backward, too, where a checkpoint repeats it."""
        self.trail.leave()
        if not self.trail.running and in_backward():
            self.tag_survivors(Phase.BACKWARD, Part.ACTIVATIONS)

    def settle_phase(self) -> None:
        """Backward announces itself by the engine's graph task; nobody has to tell us."""
        if in_backward():
            if self.phase is not Phase.BACKWARD:
                self.enter_phase(Phase.BACKWARD)
        elif self.phase is Phase.BACKWARD:
            self.enter_phase(Phase.OPTIMIZER)

    # -- the tape ----------------------------------------------------------------------------

    def tape(self) -> Tape:
        """What was recorded so far."""
        return self.ledger.tape()

    def record(self, tensor: Tensor, operator: str) -> int | None:
        """Put a tensor's storage on the tape; returns its number, None where it is no new one.

        Raises:
            torch.OutOfMemoryError: the ledger has no room for it.
        """
        if tensor.device.type != self.device_type or self._is_host:
            return None
        key = storage_key(tensor)
        if key in self._live:
            return None
        self.settle_phase()
        storage = tensor.untyped_storage()
        dtype = str(tensor.dtype).removeprefix("torch.")
        number = self._allocate(storage.nbytes(), None, operator, tuple(tensor.shape), dtype)
        note_free, live = self.ledger.free, self._live

        def freed(_: Any, number: int = number, key: int = key) -> None:
            note_free(number)
            live.pop(key, None)

        live[key] = (weakref.ref(storage, freed), number)
        return number

    def _allocate(
        self,
        size_bytes: int,
        part: Part | None,
        operator: str,
        shape: tuple[int, ...] = (),
        dtype: str = "",
        rule: SizeRule | None = None,
    ) -> int:
        module = self.trail.now()
        record = Record(
            size_bytes,
            part,
            self.phase,
            operator,
            module,
            shape,
            dtype,
            self.step,
            rule,
            self.place(),
        )
        try:
            return self.ledger.allocate(record)
        except torch.OutOfMemoryError:  # what is redone after it starts with its data
            if self.phase is Phase.FORWARD:
                self.tag_survivors(Phase.FORWARD, Part.ACTIVATIONS)
            self.enter_phase(Phase.DATA)
            raise


class _Effect(Enum):
    """What an operator can do to memory."""

    MAKES_STORAGE = "returns memory of its own"
    ALIASES = "a view, or in place"
    UPDATES_LISTS = "torch._foreach_*_ and fused optimizer steps: in place, on lists"


def _effect(func: Any) -> _Effect:
    schema = schema_of(func)
    if not schema.returns and schema.name.startswith(("aten::_foreach_", "aten::_fused_")):
        return _Effect.UPDATES_LISTS
    if any(r.alias_info is None for r in schema.returns):
        return _Effect.MAKES_STORAGE
    return _Effect.ALIASES
