from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from memfit.step.job import Job, resolve
from memfit.study.measuring.throughput import Throughput
from memfit.study.results import Study
from memfit.study.study import run_study

#: An ``mlp`` on a few shapes: a trial takes a fraction of a second.
TINY = resolve(
    "mlp",
    data="shapes,train=256,val=64,test=64,size=8,channels=1",
    optimizer={"name": "sgd", "momentum": 0.9},
    lr=0.02,
    global_batch=32,
    epochs=2,
)


def pretend_speed(patch: pytest.MonkeyPatch) -> None:
    """Speed is not measured: it differs from run to run, and results are compared."""

    def speed(job: Job, batch_sizes: Sequence[int], **_: Any) -> list[Throughput]:
        return [
            Throughput.of_groups(b, [(1 + b / 64) / 100 * factor for factor in (0.99, 1.0, 1.01)])
            for b in batch_sizes
        ]

    patch.setattr("memfit.study.measuring.throughput.measure_throughput", speed)


@pytest.fixture
def tiny() -> Job:
    return TINY


@pytest.fixture
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_speed(monkeypatch)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A whole study of two batch sizes; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        pretend_speed(patch)
        folder = tmp_path_factory.mktemp("studies") / "whole"
        return run_study(TINY, batch_sizes=(16, 64), seeds=2, folder=folder)
