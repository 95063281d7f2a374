"""``memfit watch``: live GPU memory against a plan."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfit.commands.shared.flags import JsonFlag, MemoryFlags, Whole, recipe_of
from memfit.commands.shared.output import working, write
from memfit.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from memfit.cards.readings import GPUReading
    from memfit.report.watch import WatchGoal

__all__ = ["watch"]


def watch(
    plan: str | None = None,
    *,
    flags: MemoryFlags | None = None,
    device: Whole = None,
    interval: float = 1.0,
    count: Whole = None,
    as_json: JsonFlag = False,
) -> int:
    """Live GPU memory of every process, against a plan and the safe share of the card.

    Drawn anew on a terminal until Ctrl-C; one line for each GPU and moment in a pipe.

    Parameters
    ----------
    plan:
        What the training should take: a file from memfit plan --json, a run folder, or a model
        or recipe file with the flags of memfit plan.
    device:
        Only this GPU, as nvidia-smi counts.
    interval:
        Seconds between two looks.
    count:
        End after so many looks.
    as_json:
        One JSON object a line for each look, and nothing else.
    """
    from memfit.cards.readings import read_gpus

    if not 0 < interval < 1e6:
        raise UsageError(f"--interval is {interval}; it is a number of seconds above 0.")
    if count is not None and count < 1:
        raise UsageError(f"--count is {count}; it must be 1 or more.")
    read_gpus(device)  # first of all: is there anything to look at?
    goal = _goal(plan, flags or MemoryFlags(), device)
    looks = _looks(device, interval, count)
    try:
        if as_json:
            for readings in looks:
                write(json.dumps(_as_dict(readings, goal)) + "\n")
        elif sys.stdout.isatty():
            _draw(looks, goal)
        else:
            _print_lines(looks, goal)
    except KeyboardInterrupt:
        pass  # the usual way to end
    return ExitCode.OK


def _looks(device: int | None, interval: float, count: int | None) -> Iterator[list[GPUReading]]:
    from memfit.cards.readings import read_gpus

    looked = 0
    while count is None or looked < count:
        if looked:
            time.sleep(interval)
        yield read_gpus(device)
        looked += 1


def _draw(looks: Iterator[list[GPUReading]], goal: WatchGoal) -> None:
    from rich.console import Console
    from rich.live import Live

    from memfit.report.watch import UsedSoFar, render_readings

    console = Console(highlight=False, emoji=False, markup=False)
    history: dict[int, UsedSoFar] = defaultdict(UsedSoFar)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for readings in looks:
            for reading in readings:
                history[reading.index].add(reading.used_bytes)
            live.update(render_readings(readings, goal, history, console), refresh=True)


def _print_lines(looks: Iterator[list[GPUReading]], goal: WatchGoal) -> None:
    from memfit.report.watch import reading_line

    for readings in looks:
        write("".join(reading_line(reading, goal) + "\n" for reading in readings))


def _as_dict(readings: list[GPUReading], goal: WatchGoal) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "time": time.time(),
        "plan": None if goal.total_bytes is None else asdict(goal),
        "gpus": [
            asdict(reading) | {"safe_bytes": int(goal.safety * reading.total_bytes)}
            for reading in readings
        ],
    }


def _goal(plan: str | None, flags: MemoryFlags, device: int | None) -> WatchGoal:
    from memfit.recipe.recipe import Recipe
    from memfit.report.watch import WatchGoal

    given = flags.given()
    if plan is None:
        if others := given.keys() - {"safety"}:
            raise UsageError(f"--{min(others).replace('_', '-')} needs a model to plan.")
        return WatchGoal(Recipe(model="mlp", **given).safety)
    path = Path(plan)
    if path.is_dir():
        path /= "plan.json"
    if path.suffix == ".json":
        return _read_goal(path)
    from memfit.cards.catalogue import local_gpu
    from memfit.planner.planning import plan as make_plan

    found = local_gpu(device or 0)  # CUDA's count; the card as it is when nothing else runs on it
    card = found[0] if found else None
    made = working("planning", lambda: make_plan(recipe_of(plan, given), gpu=card))
    at = made.at(None)
    return WatchGoal(made.recipe.safety, made.model_name, at.batch_size, at.total_bytes)


def _read_goal(path: Path) -> WatchGoal:
    from memfit.report.watch import WatchGoal

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        at = content["at"]
        goal = WatchGoal(
            float(content["recipe"]["safety"]),
            str(content["model"]["name"]),
            int(at["batch_size"]),
            int(at["total_bytes"]),
        )
        if not 0 < goal.safety <= 1 or not goal.total_bytes or goal.total_bytes < 0:
            raise ValueError
        return goal
    except OSError as error:
        raise UsageError(f"Cannot read the plan {path}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UsageError(
            f"{path} is no plan.", hint="Make one with: memfit plan MODEL --json > plan.json"
        ) from None
