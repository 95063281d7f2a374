"""Jobs of workers: shared, kept, stopped, timed out, and replaced when they die."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_worker import DIES, FAILS, HANGS, LISTENS, REFUSES, SLOW
from live_server import FAKE_WORKER, Server, until

Start = Callable[..., Server]
CNN = {"model": "cnn"}


def begin(server: Server, **recipe: object) -> object:
    """A connection on which a plan was begun."""
    body = json.dumps({"recipe": {"model": "mlp", **recipe}}).encode()
    head = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    connection = server.connect()
    connection.sendall(server.head("POST", "/api/plan", *head) + body)
    while b"tracing" not in connection.recv(65536):
        pass
    return connection


def test_progress_comes_before_the_plan(start: Start) -> None:
    server = start()
    first, *between, last = server.lines(
        "/api/plan", {"recipe": {"model": "mlp", "num_classes": SLOW}}
    )
    assert first == {"progress": {"stage": "building", "batch": None, "operators": 0}}
    assert {"progress": {"stage": "tracing", "batch": None, "operators": 0}} in between
    assert last["document"]["asked"]["recipe"] == {"model": "mlp", "num_classes": SLOW}
    assert last["plan"] == last["document"]["asked"]["plan"]


def test_the_same_question_again_is_not_worked_on(start: Start) -> None:
    server = start()
    assert server.plan() == server.plan() == server.plan(batch_size=None)
    assert server.plan(batch_size=8)["document"]["made"] == 2


def test_the_same_question_at_once_is_one_job(start: Start) -> None:
    server = start(size=2)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: server.plan(num_classes=SLOW), range(4)))
    assert [each["document"]["made"] for each in found] == [1] * 4
    assert len({each["document"]["process"] for each in found}) == 1


def test_who_leaves_a_shared_job_does_not_end_it(start: Start) -> None:
    server = start()
    with begin(server, num_classes=SLOW), ThreadPoolExecutor(1) as threads:
        other = threads.submit(server.plan, num_classes=SLOW)
        time.sleep(0.5)
    assert other.result()["document"]["made"] == 1


def test_old_plans_are_forgotten(start: Start) -> None:
    server = start()
    names = [server.plan(batch_size=batch)["plan"] for batch in range(1, 35)]
    assert server.get(f"/api/plan/{names[0]}/sizes?batch=1").status_code == 404
    assert server.get(f"/api/plan/{names[-1]}/sizes?batch=3").json()["bytes"] == [3]
    assert server.plan(batch_size=1)["document"]["made"] == 35


def test_a_job_that_nobody_waits_for_stops_and_its_worker_stays(start: Start) -> None:
    server = start(grace_seconds=60)
    process = server.plan()["document"]["process"]
    begin(server, num_classes=LISTENS).close()
    assert server.plan(batch_size=2)["document"]["process"] == process


def test_a_job_that_does_not_stop_loses_its_worker(start: Start) -> None:
    server = start(grace_seconds=0.1)
    process = server.plan()["document"]["process"]
    begin(server, num_classes=HANGS).close()
    assert server.plan(batch_size=2)["document"]["process"] != process
    until(lambda: not is_running(process))


def test_a_job_in_the_queue_is_left_before_it_begins(start: Start) -> None:
    server = start(grace_seconds=60)
    running = begin(server, num_classes=LISTENS)
    body = b'{"recipe": {"model": "mlp", "num_classes": 7}}'
    head = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    with server.connect() as waiting:
        waiting.sendall(server.head("POST", "/api/plan", *head) + body)
        waiting.recv(65536)
    running.close()
    assert server.plan(batch_size=2)["document"]["made"] <= 3


def test_a_job_that_takes_too_long(start: Start) -> None:
    server = start(timeout_seconds=5)
    process = server.plan()["document"]["process"]
    error = server.plan(num_classes=HANGS)["error"]
    assert "longer than 5 seconds" in error["message"]
    assert "--timeout" in error["hint"]
    assert server.plan(batch_size=2)["document"]["process"] != process


def test_a_worker_that_dies(start: Start) -> None:
    server = start()
    assert "exit code 9" in server.plan(num_classes=DIES)["error"]["message"]
    assert "document" in server.plan()


def test_a_worker_that_is_killed_while_it_waits(start: Start) -> None:
    server = start()
    found = server.plan()
    process = found["document"]["process"]
    os.kill(process, signal.SIGKILL)
    until(lambda: not is_running(process))
    assert server.get(f"/api/plan/{found['plan']}/sizes?batch=5").status_code == 200
    assert server.plan()["document"] == found["document"]
    assert server.get(f"/api/plan/{found['plan']}/sizes?batch=5").json()["bytes"] == [5]
    assert server.get("/api/about").status_code == 200


def test_what_is_wrong_with_the_question_is_told(start: Start, capfd: object) -> None:
    server = start()
    error = {"message": "It is refused.", "hint": "Ask otherwise."}
    assert server.plan(num_classes=REFUSES) == {"error": error}
    assert "KeyError" in server.plan(num_classes=FAILS)["error"]["message"]
    assert "document" in server.plan()


def test_options_are_kept_with_their_plan(start: Start) -> None:
    server = start()
    name = server.plan()["plan"]
    first = server.lines(f"/api/plan/{name}/options", None)
    assert first[-1]["options"]["made"] == 2
    assert server.lines(f"/api/plan/{name}/options", None) == [first[-1]]


def test_more_than_can_wait_are_turned_away(start: Start) -> None:
    server = start(queue_limit=1)
    with begin(server, num_classes=LISTENS), server.connect() as waiting:
        body = b'{"recipe": {"model": "mlp"}}'
        head = ("Content-Type: application/json", f"Content-Length: {len(body)}")
        waiting.sendall(server.head("POST", "/api/plan", *head) + body)
        waiting.recv(65536)
        answer = server.client.post("/api/plan", json={"recipe": CNN})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "busy" in answer.json()["error"]["message"]
    until(lambda: server.client.post("/api/plan", json={"recipe": CNN}).status_code == 200)


def test_sizes_are_answered_during_a_job(start: Start) -> None:
    server = start()
    name = server.plan()["plan"]
    with begin(server, num_classes=LISTENS):
        assert server.get(f"/api/plan/{name}/sizes?batch=9").json() == {"batch": 9, "bytes": [9]}


def test_who_leaves_a_question_ends_its_job(start: Start) -> None:
    server = start(grace_seconds=60)
    name = server.plan(num_classes=REFUSES + 90)["plan"]
    with server.connect() as connection:
        connection.sendall(server.head("GET", f"/api/plan/{name}/snapshot?batch=1"))
    assert "document" in server.plan(batch_size=3)


def test_a_worker_that_cannot_start_is_told(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_WORKER_DIES", "1")
    server = start()
    for _ in range(2):
        answer = server.get("/api/about")
        assert answer.status_code == 503
        assert "exit code 7" in answer.json()["error"]["message"]
    monkeypatch.delenv("FAKE_WORKER_DIES")
    assert server.get("/api/about").status_code == 200


def test_a_second_worker_starts_when_it_is_needed(start: Start) -> None:
    server = start(size=2)
    with begin(server, num_classes=LISTENS):
        assert "document" in server.plan()


def test_html_in_names_stays_text(start: Start) -> None:
    text = "<script>alert(1)</script>"
    answer = start().client.post("/api/plan", json={"recipe": {"model": text, text: 1}})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_workers_end_with_the_server() -> None:
    from live_server import running

    from memfit.web.workers.workers import WorkerPool

    with running({}, WorkerPool(FAKE_WORKER, size=1), None) as server:
        process = server.plan()["document"]["process"]
        hanging = begin(server, num_classes=HANGS)
    hanging.close()
    until(lambda: not is_running(process))


def test_a_worker_ends_when_its_server_is_gone() -> None:
    import subprocess

    worker = subprocess.Popen(FAKE_WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin is not None
    assert worker.stdout is not None
    request = {"number": 1, "job": "plan", "recipe": {"num_classes": HANGS}}
    worker.stdin.write(json.dumps(request).encode() + b"\n")
    worker.stdin.close()
    assert worker.wait(timeout=300) == 0
    worker.stdout.close()


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


assert sys.platform != "win32", "signals and process groups as on POSIX"
