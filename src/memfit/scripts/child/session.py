"""The process that runs the script: arranged, watched, and told about whatever happens."""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

from memfit.cards.catalogue import GPU
from memfit.places import place_of
from memfit.scripts.child.ending import Ending, replace_exit, run_to_its_end
from memfit.scripts.child.engine import Engine, PyTorchEngine
from memfit.scripts.child.frees import with_frees_in_order
from memfit.scripts.child.meta_engine import MetaEngine
from memfit.scripts.child.ranks import play_ranks
from memfit.scripts.child.stand_ins import stand_in_for_data
from memfit.scripts.child.surroundings import (
    BENCHMARK_KEPT_OFF,
    Started,
    arrange,
    redirect_torch,
)
from memfit.scripts.child.telling import Watchdog, tell
from memfit.scripts.child.watch import Enough, Watch
from memfit.scripts.shelter.shadow import Shadow
from memfit.scripts.told.answer import Answer, Status, Step
from memfit.scripts.told.job import CARD_VARIABLE, ScriptJob

__all__ = ["run_session"]

_HELD_ON = "It trained, but did not end when it was asked to; what it allocated is not known."

#: How Python and libraries say that there is no network.
_NO_NETWORK = ("Network is unreachable", "name resolution", "HF_HUB_OFFLINE", "offline mode")


class _Session:
    """One script, from its first line to the answer.

    Args:
        job: what to run.
        pipe: where the answer goes.
    """

    def __init__(self, job: ScriptJob, pipe: int) -> None:
        self.job = job
        self._pipe = pipe
        self._is_told = False
        self._leave = os._exit
        self._engine = _engine_of(job)
        self._watch = Watch(job, self._engine, self._tell_steps)
        self._started = Started()
        self._over_since: float | None = None
        self._watchdog = Watchdog(self._is_over, Enough, self._give_up)

    def run(self) -> None:
        """Run the script, tell, and leave without what it registered for its exit."""
        replace_exit(partial(self.tell, is_recorded=False))
        os.register_at_fork(after_in_child=self._forget)
        arrange(self.job, self._note)
        play_ranks(self.job.ranks, self._note)
        if self.job.fake_data is not None:
            stand_in_for_data(self.job.fake_data, self._note)
        with ExitStack() as stack:
            watch = self._watch
            stack.enter_context(self._engine.running(watch.place, watch.was_denied))
            stack.enter_context(watch.install())
            self._watchdog.start()
            ending = run_to_its_end(self.job, self._engine.missing)
            self._watchdog.stop()
        self.tell(self._judged(ending))
        sys.stdout.flush()
        sys.stderr.flush()
        self._leave(0)

    def _note(self, text: str) -> None:
        self._watch.notes[text] = None

    def _tell_steps(self, steps: list[Step]) -> None:
        """A process that dies without a word has said at least this."""
        if not self._is_told:
            tell(self._pipe, steps=[asdict(step) for step in steps])

    def _advise(self, ending: Ending) -> None:
        """What would have helped a script that failed, or is not seen from its end."""
        if ending.status is not Status.OUT_OF_MEMORY:
            for place in self._watch.denied:
                self._note(f"An allocation at {place} failed for want of memory; the run went on.")
        if ending.status is Status.FAILED:
            if "torchvision/datasets" in ending.traceback and self.job.fake_data is None:
                self._note("--fake-data stands in for data sets of torchvision.")
            if any(text in ending.traceback for text in _NO_NETWORK):
                self._note("A script has no network here; run it once without memfit to download.")

    def _forget(self) -> None:
        """A process that the script forked tells nothing and watches nothing."""
        self._is_told = True
        self._watchdog.stop()

    # -- the end -------------------------------------------------------------------------------

    def _is_over(self, seconds: float) -> bool:
        if self._watch.is_enough:
            if self._over_since is None:
                self._over_since = seconds
            return seconds - self._over_since > self.job.after_seconds
        return seconds > self.job.limit_seconds

    def _judged(self, ending: Ending) -> Ending:
        """What the end means, knowing what was seen."""
        watch, job = self._watch, self.job
        if watch.is_enough and ending.status is not Status.OUT_OF_MEMORY:
            if ending.status is Status.FAILED:
                self._note(f"After its loop had been ended, the script raised {ending.message}")
            if self._watchdog.frame is not None:
                self._note(f"What follows its steps was cut after {job.after_seconds:.0f} s.")
            return Ending(Status.STOPPED)
        if ending.status is Status.STOPPED:  # nobody but the watchdog
            place = place_of(self._watchdog.frame)
            where = f" in {place}" if place else ""
            text = f"It was still running{where} after {job.limit_seconds:.0f} s"
            text += "." if watch.steps else " and had not made a step."
            return Ending(Status.TIMED_OUT, text, place)
        if ending.status is Status.ENDED and not watch.backwards:
            text = "The script ended without a backward pass"
            if self._started.count:
                text += f"; it started {self._started.count} processes, which nobody watched"
            return Ending(Status.NO_TRAINING, f"{text}.")
        return ending

    def _give_up(self) -> None:
        """The script does not let go: tell without it, and leave."""
        ending = self._judged(Ending(Status.STOPPED))
        if ending.status is Status.STOPPED:
            ending = Ending(Status.STOPPED, _HELD_ON)
        self.tell(ending, is_recorded=False)
        self._leave(0)

    def tell(self, ending: Ending, *, is_recorded: bool = True) -> None:
        """Tell the answer, once."""
        if self._is_told:
            return
        self._is_told = True
        watch = self._watch
        watch.end()
        self._advise(ending)
        for note in self._engine.notes():
            self._note(note)
        knob = self.job.knob_in_arguments or watch.knob
        tape = self._engine.tape() if is_recorded else None
        answer = Answer(
            **asdict(ending) | {"status": ending.status},
            steps=tuple(watch.steps),
            evaluations=tuple(watch.evaluations),
            knob=knob,
            notes=tuple(note for note in watch.notes if note != BENCHMARK_KEPT_OFF),
            values=self._engine.values(),
            denied=tuple(watch.denied),
            is_benchmarked=BENCHMARK_KEPT_OFF in watch.notes,
            allocator=_allocator_options(),
            samples=watch.samples,
            parameters=self._engine.parameter_count,
            tape=tape and with_frees_in_order(tape),
            memory_bytes=_most_resident_bytes(),
        )
        tell(self._pipe, answer=answer.to_dict())


def run_session(job: ScriptJob, pipe: int, shadow: Shadow | None) -> None:
    """Run a script and tell about it; does not come back.

    Args:
        job: what to run.
        pipe: where the answer goes.
        shadow: what compiled code of torch is to write to, where the kernel does not help.
    """
    if shadow is not None:
        redirect_torch(shadow)
    _Session(job, pipe).run()


def _allocator_options() -> str:
    """As the script set them; CUDA reads them when it starts."""
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _engine_of(job: ScriptJob) -> Engine:
    if job.engine == "pytorch":
        return PyTorchEngine(is_recorded=job.is_recorded)
    card = json.loads(os.environ[CARD_VARIABLE])
    lists = {name: tuple(card[name]) for name in ("aliases", "compute_capability")}
    return MetaEngine(GPU(**card | lists))


def _most_resident_bytes() -> int:
    most: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) * (1 if sys.platform == "darwin" else 1024)
