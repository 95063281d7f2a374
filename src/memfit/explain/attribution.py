"""Which part every allocation of a history belongs to, and how sure that is."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from memfit.explain.history import History
from memfit.explain.part_rules import PART_RULES, Life, Sure
from memfit.explain.places import Place, StackFacts, facts_of
from memfit.memory.snapshot.snapshot import NO_STACK, Note, SnapshotContent
from memfit.memory.tape.parts import ALLOCATED_PARTS, UNKNOWN
from memfit.memory.tape.tape import Mark, Part, Phase

__all__ = ["FOUND_PARTS", "Attribution", "Label", "attribute"]

#: What an allocation can be; the last is none of them.
FOUND_PARTS: tuple[str, ...] = (*map(str, ALLOCATED_PARTS), UNKNOWN)
_NO_PART = FOUND_PARTS.index(UNKNOWN)

_PHASES: tuple[Phase, ...] = tuple(Phase)

#: Categories of ``torch.profiler._memory_profiler.Category`` (torch 2.15), which
#: ``torch.cuda._memory_viz.profile_plot`` writes.
_PROFILER_CATEGORIES = {
    "parameter": Part.PARAMETERS,
    "gradient": Part.GRADIENTS,
    "optimizer_state": Part.OPTIMIZER,
    "input": Part.BATCH,
    "activation": Part.ACTIVATIONS,
    "autograd_detail": Part.ACTIVATIONS,
    "temporary": Part.TEMPORARIES,
}

#: The workspace of a cuBLAS handle, ``:4096:2:16:8`` (``aten/src/ATen/cuda/CublasHandlePool.cpp``).
_CUBLAS_BYTES = 8_519_680

#: Steps and sizes of shapes from here on are nothing that memfit writes.
_LARGEST_NUMBER = 1 << 53


@dataclass(frozen=True, slots=True)
class Label:
    """What memfit wrote beside an allocation of its own export."""

    part: str
    phase: Phase
    step: int
    operator: str
    module: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(slots=True)
class Attribution:
    """The parts of a history, by allocation.

    Args:
        parts: index into :data:`PARTS`.
        sure: a :class:`Sure`.
        phases: index of the :class:`Phase` that made it.
        steps: the training step that made it, counted from 0 in the trace.
        marks: where each phase begins.
        facts: what each stack of the snapshot says.
        labels: what memfit wrote, by number of the note; of anyone else's snapshot empty.
    """

    parts: array[int]
    sure: array[int]
    phases: array[int]
    steps: array[int]
    marks: list[Mark]
    facts: list[StackFacts]
    labels: dict[int, Label] = field(default_factory=dict)


def attribute(content: SnapshotContent, history: History) -> Attribution:
    """Give every allocation its part: from what is written beside it, else from its stack."""
    facts = facts_of(content.stacks)
    labels = _labels(content)
    stretches = _Stretches(history, facts, labels)
    count = len(history.sizes_bytes)
    found = Attribution(
        parts=array("b", bytes([_NO_PART])) * count,
        sure=array("b", bytes([Sure.UNKNOWN])) * count,
        phases=array("b", bytes(count)),
        steps=array("q", bytes(8 * count)),
        marks=stretches.marks,
        facts=facts,
        labels=labels,
    )
    written = _written_parts(content.notes)
    for number in range(count):
        _attribute_one(found, history, stretches, written, number)
    _match_sizes(found, history)
    return found


def _attribute_one(
    found: Attribution,
    history: History,
    stretches: _Stretches,
    written: dict[int, int],
    number: int,
) -> None:
    note = history.notes[number]
    at = stretches.at(history.born[number])
    label = found.labels.get(note)
    found.phases[number] = _PHASES.index(label.phase if label else stretches.marks[at].phase)
    found.steps[number] = label.step if label else stretches.marks[at].step
    if note in written:
        found.parts[number], found.sure[number] = written[note], Sure.CERTAIN
        return
    facts = found.facts[history.stacks[number]]
    is_before = number < history.before_count
    life = stretches.life(history, number)
    if is_before and history.stacks[number] == NO_STACK:
        phase = _phase_before(stretches, history, number, life)
    else:
        phase = facts.phase or stretches.marks[at].phase
    if phase is None:
        return
    found.phases[number] = _PHASES.index(phase)
    is_zeroed = Place.ZERO_GRAD in found.facts[history.freed_stacks[number]].places
    part, sure = _by_rules(phase, facts.places, life, is_zeroed)
    if facts.phase is None and not is_zeroed and part != FOUND_PARTS.index(Part.WORKSPACES):
        sure = max(sure, Sure.LIKELY)
    found.parts[number], found.sure[number] = part, sure
    if history.sizes_bytes[number] == _CUBLAS_BYTES and sure != Sure.CERTAIN:
        found.parts[number] = FOUND_PARTS.index(Part.WORKSPACES)
        found.sure[number] = Sure.LIKELY


@cache
def _by_rules(
    phase: Phase, places: frozenset[Place], life: Life, is_freed_by_zero_grad: bool
) -> tuple[int, Sure]:
    for rule in PART_RULES:
        if (
            life in rule.lives
            and rule.phase in (None, phase)
            and (rule.place is None or rule.place in places)
            and (rule.freed_in is None or is_freed_by_zero_grad)
        ):
            return _NO_PART if rule.part is None else FOUND_PARTS.index(rule.part), rule.sure
    raise AssertionError("the last rule holds always")


def _phase_before(stretches: _Stretches, history: History, number: int, life: Life) -> Phase | None:
    """The phase that made what was there before the trace, by when it was freed."""
    if history.freed[number] < 0 or life in (Life.KEPT, Life.STAYS, Life.OPEN):
        return None
    freed_in = stretches.marks[stretches.at(history.freed[number])].phase
    if freed_in is Phase.BACKWARD:
        return Phase.FORWARD
    return Phase.BACKWARD if freed_in in (Phase.OPTIMIZER, Phase.DATA) else None


# -- what is written ---------------------------------------------------------------------------


def _labels(content: SnapshotContent) -> dict[int, Label]:
    """Metadata of memfit's own export, by note."""
    if not content.origin:
        return {}
    found = {number: _label(note) for number, note in enumerate(content.notes)}
    return {number: label for number, label in found.items() if label is not None}


def _label(note: Note) -> Label | None:
    try:
        value = json.loads(note.metadata)
        step, shape = value["step"], tuple(value.get("shape", ()))
        if not all(type(n) is int and 0 <= n < _LARGEST_NUMBER for n in (step, *shape)):
            return None
        return Label(
            part=FOUND_PARTS[FOUND_PARTS.index(value["part"])],
            phase=Phase(value["phase"]),
            step=step,
            operator=str(value["operator"]),
            module=str(value["module"]),
            dtype=str(value["dtype"]),
            shape=shape,
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _written_parts(notes: Sequence[Note]) -> dict[int, int]:
    """Parts by note, where memfit or torch's profiler wrote them."""
    known = {part: part for part in FOUND_PARTS[:_NO_PART]} | _PROFILER_CATEGORIES
    return {
        number: FOUND_PARTS.index(known[note.category])
        for number, note in enumerate(notes)
        if note.category in known
    }


# -- phases and lifetimes ----------------------------------------------------------------------


class _Stretches:
    """The phases of a history, one after the other, and how long allocations live in them."""

    def __init__(
        self, history: History, facts: Sequence[StackFacts], labels: dict[int, Label]
    ) -> None:
        self.marks: list[Mark] = [Mark(0, 0, Phase.DATA)]
        self._told = labels
        self._has_cpp = any(Place.CPP in fact.places for fact in facts)
        self._has_python = any(Place.PYTHON in fact.places for fact in facts)
        self._find(history, facts)
        self._starts = [mark.position for mark in self.marks]
        self._next_backward = self._next(Phase.BACKWARD)
        self._next_optimizer = self._next(Phase.OPTIMIZER)

    def at(self, position: int) -> int:
        """The stretch that an event lies in."""
        return max(0, bisect_right(self._starts, position) - 1)

    def life(self, history: History, number: int) -> Life:
        """How long an allocation lived."""
        born, freed = self.at(history.born[number]), history.freed[number]
        end = self.at(freed) if freed >= 0 else len(self.marks) - 1
        second = self._next_optimizer[self._next_optimizer[born]]
        if second < end and self.marks[born].phase is not Phase.OPTIMIZER:
            return Life.KEPT
        if freed < 0:
            return Life.OPEN if end == born else Life.STAYS
        if end == born:
            return Life.WITHIN
        return Life.BACKWARD if end == self._next_backward[born] else Life.LATER

    def _find(self, history: History, facts: Sequence[StackFacts]) -> None:
        """Walk through what was made; a stack that says nothing belongs where it stands."""
        phase, step = Phase.DATA, 0
        steps = any(fact.phase is Phase.OPTIMIZER for fact in facts)
        leaves = Phase.OPTIMIZER if steps else Phase.BACKWARD
        for number in range(history.before_count, len(history.sizes_bytes)):
            label = self._told.get(history.notes[number])
            told = label.phase if label else self._said(facts[history.stacks[number]], phase)
            if told is None or (told is phase and (label is None or label.step == step)):
                continue
            if phase is leaves and told in (Phase.DATA, Phase.FORWARD):
                step += 1
            phase, step = told, label.step if label else step
            self.marks.append(Mark(history.born[number], step, phase))

    def _said(self, facts: StackFacts, now: Phase) -> Phase | None:
        if facts.phase is not None:
            return facts.phase
        if Place.PYTHON not in facts.places and Place.CPP not in facts.places:
            # Autograd's threads run no Python: with stacks="python" what they make has no stack.
            return Phase.BACKWARD if self._has_python and not self._has_cpp else None
        if Place.COPY in facts.places or Place.LOADER in facts.places:
            return Phase.DATA if now is not Phase.FORWARD else None
        return Phase.DATA if now in (Phase.OPTIMIZER, Phase.BACKWARD) else None

    def _next(self, phase: Phase) -> list[int]:
        """For each stretch the next one of a phase; a number behind all where there is none."""
        behind = len(self.marks)
        found, upcoming = [behind] * (behind + 1), behind
        for index in range(behind - 1, -1, -1):
            found[index] = upcoming
            if self.marks[index].phase is phase:
                upcoming = index
        return found


# -- sizes -------------------------------------------------------------------------------------


def _match_sizes(found: Attribution, history: History) -> None:
    """Tell what was there before the trace by the sizes of the gradients made in it.

    A parameter, its gradient and each of its states have the same size (``torch/optim/adam.py``).
    Of the blocks with a gradient's size as many are parameters as there are such gradients; the
    others are state. Which is which does not matter: they are equal.
    """
    gradients = FOUND_PARTS.index(Part.GRADIENTS)
    per_step: dict[int, Counter[int]] = {}
    for number in range(history.before_count, len(history.sizes_bytes)):
        if found.parts[number] == gradients:
            step = per_step.setdefault(found.steps[number], Counter())
            step[history.sizes_bytes[number]] += 1
    parameters_left: Counter[int] = Counter()
    for sizes in per_step.values():
        parameters_left |= sizes
    known_sizes = set(parameters_left)
    for number in range(history.before_count):
        size_bytes = history.sizes_bytes[number]
        if found.parts[number] != _NO_PART or size_bytes not in known_sizes:
            continue
        is_parameter = parameters_left[size_bytes] > 0
        parameters_left[size_bytes] -= is_parameter
        part = Part.PARAMETERS if is_parameter else Part.OPTIMIZER
        found.parts[number], found.sure[number] = FOUND_PARTS.index(part), Sure.LIKELY
