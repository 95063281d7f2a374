"""A small recipe, and measuring in this process: as the child does, without its start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memfit.measure.child import answer
from memfit.measure.process import Process
from memfit.measure.session import Session
from memfit.measure.suite import Entry, entry_of
from memfit.measure.target import Target, choose_target
from memfit.recipe.recipe import Recipe

SMALL = Recipe(model="mlp", input_shape=(1, 8, 8), optimizer={"name": "sgd", "momentum": 0.9})


def run_here(job: Process) -> dict[str, Any]:
    """What the child answers, through JSON as its answers are."""
    result: dict[str, Any] = json.loads(json.dumps(answer(json.loads(json.dumps(job.to_dict())))))
    return result


@pytest.fixture
def run_in_process() -> Callable[[Process], dict[str, Any]]:
    return run_here


@pytest.fixture
def target() -> Target:
    return choose_target("cpu:64MiB")


@pytest.fixture
def entry() -> Entry:
    return entry_of(SMALL, (4, 8, 16))


@pytest.fixture
def make_session(target: Target, tmp_path: Path) -> Callable[..., Session]:
    def make(**options: Any) -> Session:
        return Session(target, tmp_path / "records", **{"run": run_here, **options})

    return make
