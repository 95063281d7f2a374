"""A suite that stops and goes on, survives crashes, and leaves other people's records alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from memfit.errors import MemfitError, OtherVersion
from memfit.measure.limit import find_limit
from memfit.measure.process import Process
from memfit.measure.records import load_record, record_path
from memfit.measure.session import Session
from memfit.measure.suite import Entry, entry_of, in_order
from memfit.measure.target import Target
from memfit.recipe.recipe import Recipe

Make = Callable[..., Session]
_OK = {
    "status": "ok", "peak_allocated_bytes": 100, "peak_reserved_bytes": 200, "versions": {},
}  # fmt: skip


def pretend(job: Process, **changes: Any) -> dict[str, Any]:
    """A run that went well; nothing is taken apart."""
    return {"status": "crashed"} if job.is_recorded else _OK | changes


def test_a_recipe_is_measured_taken_apart_and_kept(make_session: Make, entry: Entry) -> None:
    session = make_session()
    outcomes = session.measure(entry, with_limit=True)
    record = load_record(record_path(session.folder, session.target, entry.name))
    assert [m.batch_size for m in record.measurements] == [4, 8, 16]
    assert record == outcomes[-1].record
    assert set(record.sequences) == {"4", "8", "16"}
    for outcome in outcomes[:3]:
        assert outcome.comparison is not None
        by_name = {f.name: f for f in outcome.comparison.parts}
        assert by_name["parameters"].error == 0
        assert outcome.measurement.parts is not None
    kept = make_session(run=lambda _: pytest.fail("it is in the record")).measure(entry)
    assert [k.comparison for k in kept] == [outcome.comparison for outcome in outcomes[:3]]
    assert "--force" in kept[0].note
    limit = outcomes[-1].limit
    assert limit is not None
    assert limit.is_complete
    tried = dict(limit.tried)
    assert tried[limit.max_batch_size] == "ok"
    assert tried[limit.max_batch_size + 1] == "out_of_memory"


def test_out_of_memory_is_a_result(make_session: Make, entry: Entry) -> None:
    outcome = make_session().measure(replace(entry, batch_sizes=(1 << 17,)))[0]
    assert outcome.measurement.status == "out_of_memory"
    assert "virtual budget" in outcome.measurement.message
    assert outcome.comparison is None


def test_a_suite_goes_on_where_it_stopped(make_session: Make, entry: Entry) -> None:
    entries = [entry, replace(entry, name="second")]
    time, ran = [0.0], []

    def run(job: Process) -> dict[str, Any]:
        time[0] += 30
        if not job.is_recorded:
            ran.append(job.batch_size)
        return pretend(job)

    slow = make_session(run=run, clock=lambda: time[0])
    first = slow.measure_suite(entries, minutes=2.5)
    assert (len(first.outcomes), first.left) == (2, 4)
    assert time[0] == 120  # another minute would not have ended in time
    assert ran == [8, 8]  # the middle micro-batch of every recipe comes first
    second = slow.measure_suite(entries)
    assert (len(second.outcomes), second.kept, second.left) == (4, 2, 0)
    assert ran[2:] == [4, 16, 4, 16]
    assert slow.measure_suite(entries).kept == 6
    assert make_session(run=run, is_forced=True).measure_suite(entries).kept == 0


def test_a_crash_costs_one_recipe(make_session: Make, entry: Entry) -> None:
    def run(job: Process) -> dict[str, Any]:
        if job.recipe.zero_grad == "zero":
            return {"status": "crashed", "message": "exit code -11"}
        return pretend(job)

    bad = entry_of(entry.recipe.but(zero_grad="zero"), (8,))
    session = make_session(run=run)
    tally = session.measure_suite([bad, replace(entry, keep_sequence=False)])
    statuses = [outcome.measurement.status for outcome in tally.outcomes]
    assert statuses == ["crashed", "ok", "ok", "ok"]
    record = load_record(record_path(session.folder, session.target, bad.name))
    assert record.measurements[0].message == "exit code -11"


def test_other_recipes_and_versions_are_left_alone(make_session: Make, entry: Entry) -> None:
    session = make_session(run=lambda _: _OK | {"status": "out_of_memory"})
    session.measure_suite([entry])
    path = record_path(session.folder, session.target, entry.name)
    content = json.loads(path.read_text())
    content["versions"]["torch"] = "1.13"
    path.write_text(json.dumps(content))
    tally = session.measure_suite([entry])
    assert "torch 1.13" in tally.skipped[path]
    with pytest.raises(MemfitError, match="is kept"):
        session.measure(entry)
    other = replace(entry, facts=entry.facts | {"model": "cnn"})
    assert "another recipe" in session.measure_suite([other]).skipped[path]


def test_a_record_of_another_schema_is_refused(make_session: Make, entry: Entry) -> None:
    session = make_session(run=lambda _: _OK | {"status": "timed_out"})
    session.measure_suite([entry])
    path = record_path(session.folder, session.target, entry.name)
    text = path.read_text()
    for version, hint in ((0, "--force"), (2, "Upgrade")):
        path.write_text(text.replace('"schema_version": 1', f'"schema_version": {version}'))
        with pytest.raises(OtherVersion, match=f"schema version {version}") as caught:
            session.measure_suite([entry])
        assert hint in str(caught.value.hint)


def test_what_cannot_be_planned_is_measured_all_the_same(make_session: Make) -> None:
    class_of = entry_of(Recipe(model="timm:no_such_network", input_shape=(3, 8, 8)), (2,))
    outcome = make_session(run=pretend).measure_suite([class_of]).outcomes[0]
    assert outcome.comparison is None
    assert "cannot be planned" in outcome.note
    assert outcome.record.measurements[0].peak_allocated_bytes == 100


def test_other_processes_make_figures_count_for_nothing(make_session: Make, entry: Entry) -> None:
    session = make_session(run=lambda job: pretend(job, others=["game (pid 9)"]))
    outcome = session.measure_suite([replace(entry, batch_sizes=(4,))]).outcomes[0]
    assert outcome.measurement.others == ("game (pid 9)",)
    assert not outcome.measurement.counts


@pytest.mark.parametrize("predicted", [0, 1, 30, 37, 60, 200])
def test_the_limit_is_found_from_any_prediction(predicted: int) -> None:
    limit = find_limit(lambda batch: "ok" if batch <= 37 else "out_of_memory", predicted)
    reachable = max(4 * predicted, 16)
    assert limit.max_batch_size == min(37, reachable)
    assert limit.is_complete is (reachable > 37)
    assert len(limit.tried) == len({batch for batch, _ in limit.tried}) <= 16


def test_a_crash_ends_the_search() -> None:
    limit = find_limit(lambda batch: "crashed" if batch > 40 else "ok", 32)
    assert not limit.is_complete
    assert 32 <= limit.max_batch_size <= 40


def test_the_order_covers_every_family_first(entry: Entry) -> None:
    names = [(w.entry.name, w.batch_size) for w in in_order([entry, replace(entry, name="b")])]
    assert names == [
        (entry.name, 8), ("b", 8), (entry.name, 4), (entry.name, 16), ("b", 4), ("b", 16),
    ]  # fmt: skip


def test_code_cannot_be_measured(
    run_in_process: Callable[[Process], dict[str, Any]], target: Target
) -> None:
    named = Recipe(model="mlp", input_shape=(1, 8, 8), loss="squared")
    answer = run_in_process(Process(named, target, 4))
    assert answer["status"] == "crashed"
    assert "only your own code has" in answer["message"]
