"""Trials as Ray tasks: with what they need, tried again when a node dies, collected the same.

Ray 2.60, "Fault tolerance of Ray tasks": a task whose worker or node dies is run again up to
``max_retries`` times. A trial goes on from its last checkpoint where the folder is on a disk that
all nodes share; elsewhere it begins again.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfit.errors import MemfitError, UsageError
from memfit.recipe.own import Own
from memfit.recipe.recipe import Recipe
from memfit.step.job import Job, resolve
from memfit.study.trials.trial import read_trial, run_trial
from memfit.trainer.step.devices import choose_device

if TYPE_CHECKING:
    from memfit.study.search import Ended, Stepped, Task

__all__ = ["RayRunner"]

_RETRIES = 5
#: What a run's folder has beside its checkpoints; sent home from nodes without our disk.
_FILES = (
    "run.json", "recipe.toml", "plan.json", "metrics.jsonl", "pace.jsonl", "summary.json",
    "skipped.txt", "trial.json",
)  # fmt: skip


class RayRunner:
    """Runs trials on a Ray cluster, as many at once as it has room for.

    Args:
        job: of the study; its recipe and the user's objects are sent to the tasks.
        runs: folder of all trials.
        device: as for :func:`memfit.train`; each task on ``cuda`` takes a GPU.
        address: of the cluster; a local Ray is started when omitted.

    Raises:
        UsageError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, job: Job, runs: Path, device: str, address: str | None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UsageError("--ray needs Ray.", hint="Install it: pip install 'memfit[ray]'")
        self.recipe, self.own, self.runs = job.absolute().asked, job.own, runs.resolve()
        self.needs_gpu = device.startswith("cuda") or choose_device(device).device.type == "cuda"
        self.device = "cuda" if self.needs_gpu else "cpu"
        _connect(address)

    def run(self, tasks: Sequence[Task], *, stepped: Stepped, ended: Ended) -> None:
        """Run all; steps are told when a task has ended."""
        import ray

        remote_run = ray.remote(
            num_cpus=1, num_gpus=int(self.needs_gpu), max_retries=_RETRIES
        )(_run)  # fmt: skip
        waiting = {}
        for task in tasks:
            before = read_trial(task.trial, self.runs)
            start = 0 if before is None else min(before.step, task.until)
            reference = remote_run.remote(task, self.recipe, self.own, str(self.runs), self.device)
            waiting[reference] = (task, start)
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), num_returns=1)
                task, start = waiting.pop(done[0])
                self._keep(task, _result(ray, done[0], task))
                record = read_trial(task.trial, self.runs)
                assert record is not None
                stepped(task, max(0, record.step - start) * task.trial.batch_size)
                ended(task, record)
        finally:
            for reference in waiting:
                ray.cancel(reference)

    def _keep(self, task: Task, files: dict[str, bytes]) -> None:
        """What a node without our disk has written."""
        folder = self.runs / task.trial.name
        for name, content in files.items():
            path = folder / name
            if not path.exists() or path.read_bytes() != content:
                folder.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def _run(task: Task, recipe: Recipe, own: Own, runs: str, device: str) -> dict[str, bytes]:
    """One trial, in a worker of Ray; returns the small files of its folder."""
    import torch

    torch.set_num_threads(1)
    folder = Path(runs)
    folder.mkdir(parents=True, exist_ok=True)
    run_trial(
        task.trial,
        resolve(recipe, **own.given()),
        folder,
        until=task.until,
        device=device,
        with_train_split=task.with_train_split,
    )
    paths = ((name, folder / task.trial.name / name) for name in _FILES)
    return {name: path.read_bytes() for name, path in paths if path.exists()}


def _result(ray: Any, reference: Any, task: Task) -> dict[str, bytes]:
    """Of a task; what went wrong in it is told as if it had happened here."""
    try:
        files: dict[str, bytes] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MemfitError):
            raise error.cause from None
        raise
    except ray.exceptions.WorkerCrashedError:
        raise MemfitError(
            f"The worker of trial {task.trial.name} died {_RETRIES + 1} times.",
            hint="It may run out of memory: study smaller batches, or fewer at once.",
        ) from None
    return files


def _connect(address: str | None) -> None:
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # tasks without a GPU
    try:
        if address is None:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            _check_answers(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"No Ray cluster answers at {address}: {reason}",
            hint="Without ADDRESS a local one starts.",
        ) from None


def _check_answers(address: str) -> None:
    """Ray itself asks again for minutes where nobody listens.

    Raises:
        OSError: nobody does.
    """
    match = re.search(r"([^/:]+):(\d+)$", address)
    if match is not None:
        socket.create_connection((match[1], int(match[2])), timeout=10).close()
