"""A study on a local Ray: a worker is killed in the middle, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from memfit.errors import UsageError
from memfit.files.run_lock import writer_of
from memfit.step.job import Job
from memfit.study.ray_runs import RayRunner
from memfit.study.study import run_study

# What Ray itself warns about (files of its processes, its own deprecations) is not ours.
pytestmark = [
    pytest.mark.usefixtures("known_speed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Killer(threading.Thread):
    """Kills the first process that is seen training a trial, once it has taken some steps."""

    def __init__(self, runs: Path) -> None:
        super().__init__(daemon=True)
        self.runs, self.killed = runs, 0
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.is_set():
            for metrics in self.runs.glob("*/metrics.jsonl"):
                lock = metrics.with_name("run.lock")
                writer = writer_of(lock)
                is_training = not metrics.with_name("trial.json").exists()
                if writer and is_training and writer[0] != os.getpid():
                    os.kill(writer[0], signal.SIGKILL)
                    self.killed = writer[0]
                    return
            time.sleep(0.005)


def results_of(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "study.json").read_text())
    return {k: v for k, v in content.items() if k not in ("folder", "seconds")}


def test_a_killed_worker_changes_nothing(
    tiny: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in Ray's workers: sums in another order differ in the last bit
    recipe = tiny.but(epochs=6)
    asked: dict[str, Any] = {"batch_sizes": (16, 64), "seeds": 2, "device": "cpu"}
    run_study(recipe, folder=tmp_path / "here", **asked)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    killer = Killer(tmp_path / "ray" / "runs")
    killer.start()
    try:
        run_study(recipe, folder=tmp_path / "ray", ray=True, **asked)
    finally:
        killer.is_over.set()
        killer.join()
        ray.shutdown()
        torch.set_num_threads(threads)
    assert killer.killed
    assert results_of(tmp_path / "ray") == results_of(tmp_path / "here")


def test_without_ray_it_says_what_to_install(
    tiny: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"memfit\[ray\]"):
        RayRunner(tiny, tmp_path, "cpu", None)


def test_no_cluster_at_the_address(tiny: Job, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match="No Ray cluster answers"):
            run_study(tiny, batch_sizes=(16, 64), folder=tmp_path / "s", ray=address, device="cpu")
