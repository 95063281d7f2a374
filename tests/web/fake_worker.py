"""A worker without torch: does at once, or does wrong, what the recipe's number of classes says."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from memfit.errors import UsageError
from memfit.web.workers.worker import JobProgress, work

LISTENS, HANGS, DIES, FAILS, REFUSES, SLOW = 1, 2, 3, 4, 5, 6


class FakeDesk:
    def __init__(self) -> None:
        self.made = 0
        self.plans: set[str] = set()

    @property
    def jobs(self) -> Mapping[str, Callable[[dict[str, Any], JobProgress], bytes]]:
        return dict.fromkeys(("plan", "options", "sizes", "snapshot", "data", "learn"), self.job)

    @property
    def questions(self) -> Mapping[str, Callable[[dict[str, Any]], bytes | None]]:
        return {"sizes_now": self.sizes_now, "names": names, "study": echo, "run": echo}

    def hello(self) -> dict[str, Any]:
        if os.environ.get("FAKE_WORKER_DIES"):
            os._exit(7)
        return {
            "torch_version": "0",
            "models": {"builtin": ["cnn", "mlp"], "torchvision": ["torchvision:resnet50"]},
            "optimizers": ["adamw", "sgd"],
            "datasets": ["mnist"],
        }

    def job(self, request: dict[str, Any], progress: JobProgress) -> bytes:
        self.made += 1
        what = request.get("recipe", {}).get("num_classes")
        progress.stage("tracing")
        if what == LISTENS:
            while True:
                progress.check()
                time.sleep(0.01)
        elif what == HANGS:
            time.sleep(1000)
        elif what == DIES:
            os._exit(9)
        elif what == FAILS:
            raise KeyError("nobody foresaw this")
        elif what == REFUSES:
            raise UsageError("It is refused.", hint="Ask otherwise.")
        elif what == SLOW:
            time.sleep(2)
        self.plans.add(request.get("plan", ""))
        return json.dumps({"made": self.made, "process": os.getpid(), "asked": request}).encode()

    def sizes_now(self, request: dict[str, Any]) -> bytes | None:
        if request["plan"] not in self.plans:
            return None
        return json.dumps({"batch": request["batch"], "bytes": [request["batch"]]}).encode()


def names(request: dict[str, Any]) -> bytes:
    return json.dumps({"studies": ["demo"], "runs": ["first", "a b"]}).encode()


def echo(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode()


if __name__ == "__main__":
    work(FakeDesk())
