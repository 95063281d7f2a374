"""A script as what is planned: run at a batch, its tape is what PyTorch allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from memfit.cards.catalogue import GPU
from memfit.errors import ScriptError, UsageError
from memfit.memory.tape.tape import Tape
from memfit.planner.assumptions import Assumption
from memfit.recipe.recipe import Recipe
from memfit.scripts.process import on_card, run_script
from memfit.scripts.told.answer import Answer, Status
from memfit.scripts.told.job import ScriptJob
from memfit.scripts.told.knob import KnobKind
from memfit.units import TIB

__all__ = ["Script"]

#: More than any script takes: what is needed is seen to its end.
_NO_LIMIT_BYTES = TIB

#: Of a batch of 1 others do not follow: where a dimension is one, torch views what it else copies.
_BESIDE_ONE = (2, 4)


class Script:
    """A script, run at some batches; a :class:`memfit.planner.subject.Subject`.

    Args:
        job: as the user asked.
        card: the card that is played.
        is_limited: the allocator has no more than the card's memory, so that PyTorch itself says
            whether it fits.
        on_meta_because: why PyTorch itself does not run, where nobody chose meta tensors.
        told: is told what is run, in a few words.
        printed: is given what the script prints.

    Attributes:
        first: what came of it as it is, without a limit where it does not fit.
        batch: the micro-batch that is asked about; 1 where nobody knows.
        traced_batches: of the tapes.
        unsupported: always empty, as PyTorch itself runs.
        unknown_temporaries: always empty for the same reason.

    Raises:
        ScriptError: the script did not train.
        NoStubs: PyTorch itself cannot run here without a GPU.
    """

    is_tokens = False
    batch_words = None
    input_shape: tuple[int, ...] = ()

    def __init__(
        self,
        job: ScriptJob,
        card: GPU,
        *,
        is_limited: bool,
        on_meta_because: str = "",
        told: Callable[[str], None] = lambda _: None,
        printed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.gpu, self.name = card, Path(job.script).name
        self.on_meta_because = on_meta_because
        self.unsupported: dict[str, str] = {}
        self.unknown_temporaries: set[str] = set()
        self._told, self._printed = told, printed
        self._tapes: dict[int, Answer] = {}
        self._proofs: dict[int, Answer] = {}
        asked = job.batch
        is_of_loader = asked is not None and job.knob_in_arguments is None
        self._job = replace(job, batch=None) if is_of_loader else job
        self.first = self._run_as_it_is(is_limited=is_limited)
        self._batch_of_first = self.first.knob.batch or 1
        self._tapes[self._batch_of_first] = self.first
        if is_of_loader and not self.has_knob:
            raise UsageError(
                f"Nothing is known that sets the batch of {self.name}.",
                hint="Write {batch} where its arguments want the number.",
            )
        self.batch = asked or self._batch_of_first
        self.traced_batches: Sequence[int] = (self.batch,)

    def _run_as_it_is(self, *, is_limited: bool) -> Answer:
        capacity_bytes = self.gpu.capacity_bytes if is_limited else _NO_LIMIT_BYTES
        answer = self._run(self._job, capacity_bytes, "")
        if answer.status is not Status.OUT_OF_MEMORY and not answer.denied:
            first = self._checked(answer)
        else:
            first = self._checked(self._run(self._job, _NO_LIMIT_BYTES, " without a limit"))
        if is_limited and self.can_prove and not first.is_benchmarked:
            self._proofs[first.knob.batch or 1] = answer
        return first

    @property
    def samples(self) -> int | None:
        """Of the data set that fed the first backward pass; None where nobody knows."""
        return self.first.samples or None

    # -- runs ----------------------------------------------------------------------------------

    def answer(self, batch: int) -> Answer:
        """What comes of it at a batch, without a limit and with ``cudnn.benchmark`` off.

        Args:
            batch: samples.

        Raises:
            ScriptError: it does not train at that batch.
        """
        if batch not in self._tapes:
            answer = self._run(self._at(batch), _NO_LIMIT_BYTES, f" at batch {batch:,}")
            self._tapes[batch] = self._checked(answer)
        return self._tapes[batch]

    def proof(self, batch: int) -> Answer:
        """What comes of it within the card's memory, with ``cudnn.benchmark`` as it says.

        Args:
            batch: samples.

        Raises:
            ScriptError: it fails for another reason than memory.
        """
        if batch not in self._proofs:
            job = replace(self._at(batch), is_recorded=False)
            where = f" at batch {batch:,} within the memory of the card"
            answer = self._run(job, self.gpu.capacity_bytes, where, is_free=True)
            if not answer.status.is_trained and answer.status is not Status.OUT_OF_MEMORY:
                raise self._error(answer)
            self._proofs[batch] = answer
        return self._proofs[batch]

    def _at(self, batch: int) -> ScriptJob:
        """The same run at a batch: as many steps, so that nothing differs but sizes."""
        job = replace(self._job, steps=len(self.first.steps))
        return job if batch == self._batch_of_first else job.at(batch, self.first.knob)

    def _run(
        self, job: ScriptJob, capacity_bytes: int, where: str, *, is_free: bool = False
    ) -> Answer:
        self._told(f"running {self.name}{where}")
        job = replace(job, is_benchmark_off=not is_free)
        card = on_card(self.gpu, capacity_bytes, job.engine)
        return run_script(job, card, self._printed)

    def _checked(self, answer: Answer) -> Answer:
        if answer.status.is_trained and answer.tape is not None and answer.tape.allocations:
            return answer
        raise self._error(answer)

    def _error(self, answer: Answer) -> ScriptError:
        said = answer.traceback or _last_lines(answer.output)
        hint = "\n".join(answer.notes) or None
        return ScriptError(_why(answer, self.name), said=said, hint=hint)

    @property
    def engine(self) -> str:
        """What ran it, in words."""
        meta = "meta tensors of " if self._job.engine == "meta" else ""
        itself = "" if meta else " itself"
        return f"{meta}PyTorch {version('torch')}{itself}"

    @property
    def can_prove(self) -> bool:
        """Whether PyTorch's own allocator says what fits: meta tensors have none."""
        return self._job.engine == "pytorch"

    @property
    def command(self) -> list[str]:
        """The words that run it again, without the batch and the card."""
        job, fake = self._job, self._job.fake_data
        shape = "x".join(map(str, fake.shape)) if fake and fake.shape else None
        options = {
            "--ranks": job.ranks, "--steps": job.steps,
            "--fake-shape": shape, "--fake-classes": fake and fake.classes,
        }  # fmt: skip
        asked = [word for flag, value in options.items() if value for word in (flag, str(value))]
        name = ["-m", job.script] if job.is_module else [job.script]
        made_up = ["--fake-data"] if fake else []
        return ["memfit", "run", *asked, *made_up, *name, *job.arguments]

    # -- the subject of a plan -----------------------------------------------------------------

    @property
    def recipe(self) -> Recipe:
        """Its batch and the allocator's options; nothing else of a recipe is known of a script."""
        allocator = self.first.allocator
        return Recipe(model=self._job.script, batch_size=self.batch, allocator=allocator)

    @property
    def parameter_count(self) -> int:
        """Parameters of the models that ran."""
        return self.first.parameters

    def trace(self, micro_batch: int) -> Tape:
        """The tape of the whole run at a batch.

        Raises:
            ScriptError: it does not train at that batch.
        """
        tape = self.answer(micro_batch).tape
        assert tape is not None, "asked for with every such run"
        return tape

    @property
    def has_knob(self) -> bool:
        """Whether it is known what sets the batch."""
        return self.first.knob.kind is not KnobKind.NONE and self.first.knob.batch is not None

    def widen(self) -> bool:
        """Say that two batches are to be run, from which others follow.

        Returns:
            False where nothing is known that sets the batch.
        """
        if not self.has_knob:
            return False
        half = self.batch // 2
        pair = (half, self.batch) if half > 1 else (self.batch, 2 * self.batch)
        self.traced_batches = _BESIDE_ONE if self.batch == 1 else pair
        return True

    def narrow(self) -> None:
        """Say that only the batch that is asked about is to be run."""
        self.traced_batches = (self.batch,)

    def not_modelled(self) -> Iterator[Assumption]:
        """Nothing: PyTorch itself runs, and its notes say what it was given."""
        return iter(())

    def assumptions(self) -> Iterator[Assumption]:
        """What its tape takes for granted."""
        if self.on_meta_because:
            yield Assumption("on_meta", {"because": self.on_meta_because.rstrip(".")})
        yield Assumption("whole_run")
        if self.first.is_benchmarked:
            yield Assumption("benchmark_off")
        else:
            yield Assumption("cudnn_heuristics")


def _why(answer: Answer, name: str) -> str:
    """What went wrong, in a sentence."""
    if answer.status.is_trained and not answer.message:
        return f"{name} trained, but not on the GPU: does it move its model there?"
    if answer.status is Status.FAILED:
        at = f" at {answer.place}" if answer.place else ""
        return f"{name} failed{at}: {answer.message}"
    return f"{name}: {answer.message}"


def _last_lines(output: str, most: int = 6) -> str:
    """The end of what a script printed."""
    return "".join(f"{line}\n" for line in output.strip().splitlines()[-most:])
