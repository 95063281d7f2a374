"""Measure recipes one after the other, keep a record of each, and go on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from memfit.errors import MemfitError
from memfit.measure.compare import Comparison, compare
from memfit.measure.limit import find_limit
from memfit.measure.process import Process, recipe_facts, run_process
from memfit.measure.records import (
    Limit,
    Measurement,
    Record,
    load_record,
    record_path,
    save_record,
    versions_here,
)
from memfit.measure.sequence import unpack_tape
from memfit.measure.suite import Entry, Work, in_order
from memfit.measure.target import Target
from memfit.memory.tape.tape import Tape
from memfit.planner.plan import Plan
from memfit.planner.planning import plan_job
from memfit.step.job import resolve

__all__ = ["Outcome", "Session", "Tally"]


@dataclass(frozen=True)
class Outcome:
    """One micro-batch of one recipe, measured and compared.

    Args:
        record: with the measurement in it.
        measurement: of the micro-batch.
        comparison: with the plan; None where the run did not go well or cannot be planned.
        limit: the largest micro-batch that ran, where it was looked for.
        predicted_limit: the plan's answer.
        note: why something is missing.
    """

    record: Record
    measurement: Measurement
    comparison: Comparison | None = None
    limit: Limit | None = None
    predicted_limit: int | None = None
    note: str = ""


@dataclass
class Tally:
    """How a suite went.

    Args:
        outcomes: in the order of measuring.
        kept: measured before, and left as it was.
        left: not reached before the time was over.
        skipped: records of another recipe or other versions, by path.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    kept: int = 0
    left: int = 0
    skipped: dict[Path, str] = field(default_factory=dict)


@dataclass
class Session:
    """Measures on a target and writes records.

    Args:
        target: where.
        folder: of the records.
        is_forced: measure again what a record holds already.
        run: measures in a process of its own.
        clock: seconds.
    """

    target: Target
    folder: Path
    is_forced: bool = False
    run: Callable[[Process], dict[str, Any]] = run_process
    clock: Callable[[], float] = time.monotonic
    _plans: dict[str, Plan | str] = field(default_factory=dict)
    _versions: dict[str, str | None] = field(default_factory=versions_here)
    _begun: set[Path] = field(default_factory=set)  # records that this session began anew

    def measure_suite(
        self,
        entries: Sequence[Entry],
        *,
        minutes: float | None = None,
        with_limits: bool = False,
        told: Callable[[Outcome], None] = lambda _: None,
    ) -> Tally:
        """Measure what no record holds yet; stop cleanly when the time is over.

        Args:
            entries: of the suite.
            minutes: nothing is begun later, or that the longest of its kind so far would not let
                end in time.
            with_limits: look for the largest micro-batch of each recipe as well.
            told: of each outcome.
        """
        end = None if minutes is None else self.clock() + 60 * minutes
        tally = Tally()
        longest = {True: 0.0, False: 0.0}  # seconds, of searches for the largest and of others
        searches = [Work(entry, 0) for entry in entries] if with_limits else []
        for work in in_order(entries) + searches:
            entry, path = work.entry, record_path(self.folder, self.target, work.entry.name)
            record = self._record_of(entry, path)
            if isinstance(record, str):
                tally.skipped[path] = record
            elif _is_done(record, work):
                tally.kept += 1
            elif end is not None and self.clock() + longest[work.is_search] >= end:
                tally.left += 1
            else:
                begin = self.clock()
                outcome = self._measure(record, work, path, is_composed=work.is_composed)
                seconds = self.clock() - begin
                longest[work.is_search] = max(longest[work.is_search], seconds)
                tally.outcomes.append(outcome)
                told(outcome)
        return tally

    def measure(self, entry: Entry, *, with_limit: bool = False) -> list[Outcome]:
        """Measure one recipe at all its micro-batches, and take every peak apart.

        Raises:
            MemfitError: a record of that name is of another recipe, and nothing is forced.
        """
        path = record_path(self.folder, self.target, entry.name)
        record = self._record_of(entry, path)
        if isinstance(record, str):
            raise MemfitError(
                f"{path} is kept: {record}.",
                hint="--force replaces it, --records writes elsewhere.",
            )
        outcomes = []
        for batch_size in (*entry.batch_sizes, *([0] if with_limit else [])):
            work = Work(entry, batch_size)
            kept = record.measurement(batch_size)
            if kept is not None:
                outcomes.append(self._kept(entry, record, kept))
                continue
            outcomes.append(self._measure(record, work, path, is_composed=True))
            record = outcomes[-1].record
        return outcomes

    # -- what there is to do -------------------------------------------------------------------

    def _record_of(self, entry: Entry, path: Path) -> Record | str:
        """The record to go on with, a new one, or why the old one is left alone.

        Raises:
            OtherVersion: the record has another form.
        """
        new = Record(
            entry.name,
            entry.family,
            self.target.facts(),
            self._versions,
            recipe_facts(entry.recipe) | {"model": entry.facts["model"]},
        )
        if not path.exists() or (self.is_forced and path not in self._begun):
            self._begun.add(path)
            return new
        old = load_record(path)
        if old.recipe != new.recipe:
            return "it is of another recipe with the same name"
        for name, version in new.versions.items():
            if name in _DECIDING_VERSIONS and old.versions.get(name) != version:
                return f"measured with {name} {old.versions.get(name)}, here is {version}"
        return old

    # -- measuring -----------------------------------------------------------------------------

    def _measure(self, record: Record, work: Work, path: Path, *, is_composed: bool) -> Outcome:
        if work.is_search:
            outcome = self._limit(work.entry, record)
        else:
            outcome = self._batch(work.entry, record, work.batch_size, is_composed=is_composed)
        save_record(path, outcome.record)
        return outcome

    def _batch(
        self, entry: Entry, record: Record, batch_size: int, *, is_composed: bool
    ) -> Outcome:
        plain = self.run(self._process(entry, batch_size))
        measurement = Measurement.of(batch_size, plain)
        record = replace(record, versions=record.versions | plain.get("versions", {}))
        tape, note = None, measurement.message
        if measurement.status == "ok" and is_composed:
            composed = self.run(self._process(entry, batch_size, is_recorded=True))
            measurement = measurement.with_composition(composed)
            if composed["status"] == "ok":
                tape = unpack_tape(composed["sequence"])
                if entry.keep_sequence:
                    kept = record.sequences | {str(batch_size): composed["sequence"]}
                    record = replace(record, sequences=kept)
            else:
                note = f"The peak was not taken apart: {composed.get('message', '')}"
        return self._compared(entry, record.with_measurement(measurement), measurement, tape, note)

    def _kept(self, entry: Entry, record: Record, measurement: Measurement) -> Outcome:
        """What the record holds already."""
        packed = record.sequences.get(str(measurement.batch_size))
        note = f"Measured {record.date[:10]}, kept in the record; --force measures it again."
        tape = None if packed is None else unpack_tape(packed)
        return self._compared(entry, record, measurement, tape, note)

    def _compared(
        self, entry: Entry, record: Record, measurement: Measurement, tape: Tape | None, note: str
    ) -> Outcome:
        if measurement.status != "ok":
            return Outcome(record, measurement, note=note)
        plan = self._plan(entry)
        if isinstance(plan, str):
            return Outcome(record, measurement, note=plan)
        return Outcome(record, measurement, compare(plan, measurement, tape), note=note)

    def _limit(self, entry: Entry, record: Record) -> Outcome:
        plan = self._plan(entry)
        predicted = 0 if isinstance(plan, str) else plan.limits.on(self.target.card).max_batch_size

        def run(batch_size: int) -> str:
            return str(self.run(self._process(entry, batch_size))["status"])

        limit = find_limit(run, predicted)
        record = replace(record, limit=limit)
        shown = record.measurements[-1] if record.measurements else Measurement(0, "ok")
        note = plan if isinstance(plan, str) else ""
        known = None if isinstance(plan, str) else predicted
        return Outcome(record, shown, None, limit, known, note)

    def _process(self, entry: Entry, batch_size: int, *, is_recorded: bool = False) -> Process:
        return Process(entry.recipe, self.target, batch_size, is_recorded)

    def _plan(self, entry: Entry) -> Plan | str:
        """The plan of a recipe for the target's card, or why there is none."""
        if entry.name not in self._plans:
            try:
                job = resolve(entry.recipe, card=self.target.card)
                self._plans[entry.name] = plan_job(job, verify=False)
            except MemfitError as error:
                self._plans[entry.name] = f"It cannot be planned: {error.message}"
        return self._plans[entry.name]


def _is_done(record: Record, work: Work) -> bool:
    if work.is_search:
        return record.limit is not None
    return record.measurement(work.batch_size) is not None


#: Versions that decide what a step allocates; others are only written down.
_DECIDING_VERSIONS = ("torch", "torchvision", "timm", "transformers")
