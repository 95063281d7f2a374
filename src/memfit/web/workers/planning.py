"""What a worker process of the page does: plans, kept where they were made, and data documents."""

from __future__ import annotations

import json
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from memfit.data.sets.named import NAMED_SETS, open_named
from memfit.errors import DataError
from memfit.files.metrics_file import to_json
from memfit.measure.records import measured_of_plan
from memfit.memory.recording.recorder import Recorder
from memfit.models import model_names
from memfit.models.optional import is_installed
from memfit.page.documents.plan import plan_document, ruled_sizes_at
from memfit.planner.options import ways_to_fit_more
from memfit.planner.plan import Plan
from memfit.planner.planning import plan, plan_job
from memfit.planner.tracing import TRACED_BATCHES
from memfit.step.job import resolve
from memfit.step.optimizers import optimizer_names
from memfit.web.asking.cards import card_of
from memfit.web.workers.worker import Cancelled, JobProgress, work

__all__ = ["PlanningDesk", "short_ladder"]

#: Plans with all their traces; the server has the documents of many more.
_KEPT_PLANS = 8

_SOURCES = ("builtin", "torchvision", "timm", "transformers")


class PlanningDesk:
    """Plans recipes; keeps the last plans to be asked for more."""

    def __init__(self) -> None:
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._lock = threading.Lock()
        self._progress = JobProgress()
        self._threads = ThreadPoolExecutor(2)  # cuDNN computes outside of Python's lock
        register_module_forward_pre_hook(self._stop_in_forward)

    # -- what can be asked -----------------------------------------------------------------------

    @property
    def jobs(self) -> Mapping[str, Callable[[dict[str, Any], JobProgress], bytes]]:
        """What takes a while."""
        return {
            "plan": self._document,
            "options": self._options,
            "sizes": self._sizes,
            "snapshot": self._snapshot,
            "data": _data,
            "learn": _learn,
        }

    @property
    def questions(self) -> Mapping[str, Callable[[dict[str, Any]], bytes | None]]:
        """What is answered during a job, too."""
        return {
            "sizes_now": self._sizes_now, "names": _names, "study": _study, "run": _run,
        }  # fmt: skip

    def hello(self) -> dict[str, Any]:
        """Plan something small, so that the first real plan finds everything loaded."""
        torch.set_num_threads(1)
        for precision in ("fp32", "amp-fp16"):
            small = plan("cnn", gpu="rtx-3060", precision=precision, optimizer="adamw")
            plan_document(small, ladder=(1, 2))
        sources = [s for s in _SOURCES if s in ("builtin", "torchvision") or is_installed(s)]
        return {
            "torch_version": str(torch.__version__),
            "models": {source: model_names(source) for source in sources},
            "optimizers": optimizer_names(),
            "datasets": [name for name in NAMED_SETS if _is_here(name)],
        }

    # -- jobs ------------------------------------------------------------------------------------

    def _document(self, request: dict[str, Any], progress: JobProgress) -> bytes:
        plan = self._plan(request, progress)
        progress.stage("tabling")
        measured = measured_of_plan(plan)
        return _json(plan_document(plan, measured=measured, ladder=short_ladder(plan)))

    def _options(self, request: dict[str, Any], progress: JobProgress) -> bytes:
        plan = self._plan(request, progress)
        with self._watched(progress):
            progress.stage("tracing")
            return _json([asdict(option) for option in ways_to_fit_more(plan)])

    def _sizes(self, request: dict[str, Any], progress: JobProgress) -> bytes:
        plan, batch = self._plan(request, progress), request["batch"]
        if plan.is_affine:
            return _json({"batch": batch, "bytes": ruled_sizes_at(plan, batch)})
        with self._watched(progress):
            progress.stage("tracing")
            plan.tape_at(batch)
        progress.stage("tabling")
        tape = plan_document(plan, ladder=())["traced"][str(batch)]
        return _json({"batch": batch, "tape": tape})

    def _sizes_now(self, request: dict[str, Any]) -> bytes | None:
        plan = self._kept(request["plan"])
        if plan is None or not plan.is_affine:
            return None
        affine, batch = plan.tapes.affine, request["batch"]
        ruled = () if affine is None else affine.ruled
        found = self._threads.map(lambda each: each[0].size_bytes(each[1].at(batch)), ruled)
        return _json({"batch": batch, "bytes": list(found)})

    def _snapshot(self, request: dict[str, Any], progress: JobProgress) -> bytes:
        from memfit.planner.snapshot import plan_snapshot

        plan = self._plan(request, progress)
        with self._watched(progress):
            progress.stage("tabling")
            return plan_snapshot(plan, request["batch"])

    # -- plans -----------------------------------------------------------------------------------

    def _plan(self, request: dict[str, Any], progress: JobProgress) -> Plan:
        """The plan of a request: a kept one, or made now."""
        kept = self._kept(request["plan"])
        if kept is not None:
            return kept
        values = {**request["recipe"]}
        if values.get("input_shape") is not None:
            values["input_shape"] = tuple(values["input_shape"])
        with self._watched(progress):
            watch = partial(_note_trace, progress)
            job = resolve(**values, card=card_of(request["gpu"], request["free_bytes"]))
            plan = plan_job(job, verify=False, watch=watch, validates=True)
            progress.stage("tracing")
            micro_batch = plan.micro_batch
            progress.stage("verifying")
            plan.verify(micro_batch)
        with self._lock:
            self._plans[request["plan"]] = plan
            while len(self._plans) > _KEPT_PLANS:
                self._plans.popitem(last=False)
        return plan

    def _kept(self, name: str) -> Plan | None:
        with self._lock:
            if name in self._plans:
                self._plans.move_to_end(name)
            return self._plans.get(name)

    @contextmanager
    def _watched(self, progress: JobProgress) -> Iterator[None]:
        """While it is entered, every module of a trace asks whether somebody still waits."""
        self._progress = progress
        try:
            yield
        finally:
            self._progress = JobProgress()

    def _stop_in_forward(self, _module: nn.Module, _inputs: Any) -> None:
        """Between two modules a trace can be left as if the model had raised."""
        self._progress.check()


def short_ladder(plan: Plan) -> list[int]:
    """Batches at which sizes are tabled: those asked of the library anyway, and few more.

    A page with a server asks it for the exact sizes of any other batch.
    """
    named = [plan.micro_batch, plan.max_batch_size or 1, plan.recommended_batch_size or 1]
    last = 2 * max(named)
    wide = [batch for batch in (16, 32, 64, 128, 256) if batch < last]
    return sorted({*named, 1, *TRACED_BATCHES, *wide, last})


def _note_trace(progress: JobProgress, micro_batch: int, recorder: Recorder) -> None:
    progress.check()
    if progress.at_stage == "building":
        progress.at_stage = "tracing"
    progress.batch, progress.operators = micro_batch, lambda: recorder.operators


def _data(request: dict[str, Any], progress: JobProgress) -> bytes:
    from memfit.page.documents.data import data_document

    progress.stage("tabling")
    return to_json(data_document(request["name"], None)).encode()


def _learn(_request: dict[str, Any], progress: JobProgress) -> bytes:
    from memfit.page.documents.learn import learn_documents

    progress.stage("tabling")
    return _json(learn_documents())


def _names(request: dict[str, Any]) -> bytes:
    from memfit.page.documents.run import run_names
    from memfit.page.documents.study import study_names

    studies, runs = study_names(Path(request["studies"])), run_names(Path(request["runs"]))
    return _json({"studies": studies, "runs": runs})


def _study(request: dict[str, Any]) -> bytes:
    from memfit.page.documents.study import study_document

    return to_json(study_document(Path(request["folder"]))).encode()


def _run(request: dict[str, Any]) -> bytes:
    from memfit.page.documents.run import run_document

    return to_json(run_document(Path(request["folder"]), request["after"])).encode()


def _is_here(name: str) -> bool:
    try:
        open_named(name)
    except (DataError, OSError):
        return False
    return True


def _json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


if __name__ == "__main__":
    try:
        work(PlanningDesk())
    except (Cancelled, KeyboardInterrupt):
        sys.exit(1)
