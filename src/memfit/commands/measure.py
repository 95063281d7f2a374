"""``memfit measure``: real training steps on a GPU, beside what was predicted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfit.commands.shared.flags import JsonFlag, MemoryFlags, Switch, recipe_of
from memfit.commands.shared.output import show, show_json, working
from memfit.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from memfit.measure.session import Outcome, Session
    from memfit.measure.suite import Entry
    from memfit.measure.target import Target
    from memfit.recipe.recipe import Recipe

__all__ = ["measure"]


def measure(
    model: str | None = None,
    *,
    flags: MemoryFlags | None = None,
    suite: Switch = False,
    find_limit: Switch = False,
    fraction: float = 1.0,
    minutes: float | None = None,
    records: Path | None = None,
    on: str | None = None,
    force: Switch = False,
    as_json: JsonFlag = False,
) -> int:
    """Run real training steps on a GPU and hold the plan against them.

    Parameters
    ----------
    model:
        As for memfit plan; with --suite the suite's file.
    suite:
        Measure all recipes of bench/truth/suite.toml, or of the file named; goes on where it
        stopped.
    find_limit:
        Also find the largest micro-batch that really runs.
    fraction:
        Play a smaller card: the share of the GPU's memory that PyTorch may reserve.
    minutes:
        With --suite: begin nothing that would not end within so long.
    records:
        Folder of the records; bench/truth/records in a checkout, else records.
    on:
        virtual:rtx-3060 asks PyTorch itself, its allocator and cuDNN, on a card that is not there;
        cpu:2GiB tries the harness on the CPU under a virtual budget. Both are kept apart from GPUs.
    force:
        Measure again what a record holds already.
    as_json:
        Print what was measured as JSON and nothing else.
    """
    given = (flags or MemoryFlags()).given()
    if minutes is not None and not (suite and minutes > 0):
        raise UsageError("--minutes is for --suite, and above 0.")
    if suite and given:
        raise UsageError("The suite says what to measure; leave out the recipe's flags.")
    recipe = None if suite else recipe_of(model, given)

    from memfit.measure.target import choose_target

    target = choose_target(on, fraction)

    from memfit.measure.records import default_folder
    from memfit.measure.session import Session

    session = Session(target, records or default_folder(), is_forced=force)
    if recipe is None:
        return _suite(session, model, minutes, find_limit=find_limit, as_json=as_json)
    return _one(session, recipe, find_limit=find_limit, as_json=as_json)


def _suite(
    session: Session, file: str | None, minutes: float | None, *, find_limit: bool, as_json: bool
) -> int:
    from memfit.measure.suite import default_suite, load_suite
    from memfit.report.measure import outcome_line, render_tally

    entries = load_suite(Path(file) if file else default_suite())

    def tell(outcome: Outcome) -> None:
        print(outcome_line(outcome), file=sys.stderr)

    tally = session.measure_suite(entries, minutes=minutes, with_limits=find_limit, told=tell)
    if as_json:
        skipped = {str(path): reason for path, reason in tally.skipped.items()}
        more = {"kept": tally.kept, "left": tally.left, "skipped": skipped}
        show_json(_as_dict(session.target, tally.outcomes) | more)
    else:
        folder = session.folder / session.target.key
        show(lambda console: render_tally(session.target, tally, folder, console))
    return _exit_code(tally.outcomes, of_suite=True)


def _one(session: Session, recipe: Recipe, *, find_limit: bool, as_json: bool) -> int:
    from memfit.measure.records import record_path
    from memfit.report.measure import render_outcomes

    entry = working("planning", lambda: _entry(session, recipe))
    outcomes = working("measuring", lambda: session.measure(entry, with_limit=find_limit))
    if as_json:
        show_json(_as_dict(session.target, outcomes))
    else:
        path = record_path(session.folder, session.target, entry.name)
        show(lambda console: render_outcomes(session.target, outcomes, path, console))
    return _exit_code(outcomes, of_suite=False)


def _entry(session: Session, recipe: Recipe) -> Entry:
    """The recipe under a name of its own; without a micro-batch the one that a plan recommends."""
    from memfit.measure.suite import entry_of
    from memfit.planner.planning import plan

    batch_size = recipe.batch_size
    if batch_size is None:
        made = plan(recipe, gpu=session.target.card, verify=False)
        batch_size = max(1, made.recommended_batch_size or 1)
    return entry_of(recipe, (batch_size,))


def _exit_code(outcomes: list[Outcome], *, of_suite: bool) -> int:
    """Out of memory is an answer of a suite, and the answer about a single recipe."""
    statuses = {outcome.measurement.status for outcome in outcomes}
    if statuses & {"crashed", "timed_out"}:
        return ExitCode.INCOMPLETE
    if "out_of_memory" in statuses and not of_suite:
        return ExitCode.DOES_NOT_FIT
    return ExitCode.OK


def _as_dict(target: Target, outcomes: list[Outcome]) -> dict[str, Any]:
    found = [_outcome_dict(outcome) for outcome in outcomes]
    return {"schema_version": 1, "target": target.facts(), "outcomes": found}


def _outcome_dict(outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    found, limit = outcome.comparison, outcome.limit
    return {
        "name": outcome.record.name,
        "recipe": outcome.record.recipe,
        "versions": outcome.record.versions,
        "measurement": asdict(outcome.measurement),
        "comparison": None if found is None else found.to_dict(),
        "limit": None if limit is None else asdict(limit),
        "predicted_max_batch_size": outcome.predicted_limit,
        "note": outcome.note,
    }
