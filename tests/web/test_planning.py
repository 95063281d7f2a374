"""Real plans in a real worker."""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from live_server import Server, running, until

from memfit.page.documents.plan import plan_document, ruled_sizes_at
from memfit.planner.planning import plan
from memfit.trainer.run.run_folder import RunFolder
from memfit.web.workers.planning import PlanningDesk, short_ladder
from memfit.web.workers.worker import Cancelled, JobProgress
from memfit.web.workers.workers import PLANNING_WORKER, WorkerPool

MODEL = """
import torch

def build():
    print("somebody's own words")
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(MODEL)
    with RunFolder.create(folder / "runs", "first") as run:
        run.metrics.append({"step": 1, "loss": float("nan")})
    site = {
        "models": (f"{folder / 'own.py'}:build",),
        "studies": folder / "studies",
        "runs": folder / "runs",
    }
    with running(site, WorkerPool(PLANNING_WORKER, size=1), None) as server:
        yield server


def test_what_there_is(live: Server) -> None:
    about = live.get("/api/about").json()
    kinds = {model["kind"] for model in about["models"]}
    assert {"named", "builtin", "torchvision"} <= kinds
    assert about["recipe"]["model"].endswith("own.py:build")
    assert {"rtx-3060"} < {card["key"] for card in about["cards"]}
    assert about["choices"]["precision"][0] == "fp32"
    assert "adamw" in about["choices"]["optimizer"]
    assert "shapes" in about["datasets"]
    assert about["studies"] == []
    assert about["runs"] == ["first"]


def test_a_run_as_it_goes_on(live: Server) -> None:
    run = live.get("/api/runs/first?after=0").json()
    assert run["name"] == "first"
    assert [row["step"] for row in run["rows"]] == [1]
    assert live.get("/api/runs/first?after=1").json()["rows"] == []
    assert live.get("/api/runs/second").status_code == 404
    assert live.get("/api/studies/first").status_code == 404


def test_a_plan_is_the_one_that_python_makes(live: Server) -> None:
    found = live.plan(gpu="rtx-3060", optimizer="adamw", num_classes=7)
    own = plan("mlp", optimizer="adamw", num_classes=7, gpu="rtx-3060")
    expected = plan_document(own, ladder=short_ladder(own))
    assert found["document"] == expected
    exact = live.get(f"/api/plan/{found['plan']}/sizes?batch=77").json()
    assert exact == {"batch": 77, "bytes": ruled_sizes_at(own, 77)}
    snapshot = live.get(f"/api/plan/{found['plan']}/snapshot?batch=8")
    assert snapshot.headers["content-type"] == "application/octet-stream"
    assert snapshot.content.startswith(b"\x80\x04")


def test_free_memory_counts(live: Server) -> None:
    answer = live.client.post(
        "/api/plan",
        json={"recipe": {"model": "mlp"}, "gpu": "rtx-3060", "free_bytes": 1 << 30},
    )
    assert f'"usable_bytes":{1 << 30}' in answer.text


def test_own_code_runs_only_as_it_was_named(live: Server) -> None:
    name = live.get("/api/about").json()["recipe"]["model"]
    found = live.plan(model=name, input_shape=[3, 2, 2])
    assert found["document"]["model"]["parameters"] == 39
    answer = live.client.post(
        "/api/plan", json={"recipe": {"model": name.replace("build", "MODEL")}}
    )
    assert answer.status_code == 422


def test_an_edited_model_is_planned_anew(live: Server) -> None:
    name = live.get("/api/about").json()["recipe"]["model"]
    file = Path(name.rpartition(":")[0])

    def parameters() -> int:
        found: int = live.plan(model=name, input_shape=[3, 2, 2])["document"]["model"]["parameters"]
        return found

    assert parameters() == 12 * 3 + 3
    file.write_text(MODEL.replace("Linear(12, 3)", "Linear(12, 50)"))
    assert parameters() == 12 * 50 + 50
    file.write_text(MODEL)


def test_what_a_model_does_not_take_is_said(live: Server) -> None:
    error = live.plan(model="torchvision:resnet18", input_shape=[1, 8, 8])["error"]
    assert "3-channel" in error["message"]


def test_ways_to_fit_more_and_lessons_and_data(live: Server) -> None:
    name = live.plan(gpu="rtx-3060", optimizer="adamw", batch_size=512)["plan"]
    options = live.lines(f"/api/plan/{name}/options", None)[-1]["options"]
    assert {"name", "flag", "saved_bytes"} < set(options[0])
    assert live.get("/api/learn").json()["grey-adam-fp32"]["kind"] == "plan"
    assert live.get("/api/data/shapes").json()["schema_version"] == 1


def test_a_plan_is_made_again_when_its_worker_is_gone(live: Server) -> None:
    found = live.plan(gpu="rtx-3060", batch_size=16)
    before = live.get(f"/api/plan/{found['plan']}/sizes?batch=33").json()
    (worker,) = workers_here()
    os.kill(worker, signal.SIGKILL)
    until(lambda: workers_here() != [worker])
    assert live.get(f"/api/plan/{found['plan']}/sizes?batch=33").json() == before


def workers_here() -> list[int]:
    def is_worker(process: psutil.Process) -> bool:
        try:
            return "memfit.web.workers.planning" in process.cmdline()
        except psutil.Error:
            return False

    return [process.pid for process in psutil.Process().children() if is_worker(process)]


def test_a_trace_stops_between_two_modules_and_leaves_nothing_behind() -> None:
    """Stopped anywhere, the next plan in the same worker is as good as the first."""
    desk = PlanningDesk()
    request = {"plan": "a", "recipe": {"model": "cnn"}, "gpu": "rtx-3060", "free_bytes": None}
    whole = desk.jobs["plan"](request, JobProgress())

    class Impatient(JobProgress):
        left = 12

        def check(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Cancelled

    for left in range(0, 60, 7):
        impatient = Impatient()
        impatient.left = left
        with pytest.raises(Cancelled):
            desk.jobs["plan"]({**request, "plan": f"left {left}"}, impatient)
        assert gc.isenabled()
    assert desk.jobs["plan"]({**request, "plan": "b"}, JobProgress()) == whole


def test_batches_of_a_plan_that_is_traced_each(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = PlanningDesk()
    request = {"plan": "a", "recipe": {"model": "mlp"}, "gpu": "rtx-3060", "free_bytes": None}
    desk.jobs["plan"](request, JobProgress())
    made = desk._plans["a"]
    made.tapes.affine, made.tapes.not_affine_because = None, "a test says so"
    assert desk.questions["sizes_now"]({"plan": "a", "batch": 5}) is None
    found = json.loads(desk.jobs["sizes"]({**request, "batch": 5}, JobProgress()))
    own = made.step.trace(5)
    assert found["tape"]["constant"] == own.sizes_bytes
    assert found["batch"] == 5


def test_progress_counts_operators() -> None:
    desk, progress = PlanningDesk(), JobProgress()
    seen: list[tuple[str, int | None, int]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            seen.append((progress.at_stage, progress.batch, progress.operators()))
            time.sleep(0.001)

    watcher = threading.Thread(target=look)
    watcher.start()
    recipe = {"model": "torchvision:resnet18"}
    desk.jobs["plan"]({"plan": "a", "recipe": recipe, "gpu": None, "free_bytes": None}, progress)
    ended.set()
    watcher.join()
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == ["building", "tracing", "verifying", "tabling"]
    assert max(count for stage, batch, count in seen if batch == 4) > 100
