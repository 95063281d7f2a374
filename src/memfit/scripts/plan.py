"""Plan a script: its tape at any batch, and PyTorch's own verdict on the card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from memfit.cards.catalogue import GPU
from memfit.errors import ScriptError, UsageError
from memfit.measure.limit import largest_batch
from memfit.planner.overview import overview
from memfit.planner.plan import Plan
from memfit.planner.result import Option, PlanResult, Verdict
from memfit.scripts.subject import Script
from memfit.scripts.told.answer import Answer

__all__ = ["Proof", "ScriptPlan", "plan_script"]

_MOST_BATCH = 1 << 16
#: Batches that are tried from the one that was worked out down, should PyTorch not take it.
_MOST_TRIES = 4


@dataclass(frozen=True)
class Proof:
    """PyTorch's own verdict: a run within the card's memory.

    Args:
        batch_size: of the run.
        answer: what came of it.
    """

    batch_size: int
    answer: Answer

    @property
    def fits(self) -> bool:
        """Whether it trained, and no allocation failed on the way."""
        return self.answer.status.is_trained and not self.answer.denied


@dataclass(frozen=True)
class ScriptPlan:
    """What a script needs, and whether it runs on the card.

    Args:
        script: that ran.
        plan: of its tapes, the same as a recipe's.
        found: everything that is reported of it; the verdict is the proof's.
        proof: the run within the card's memory; None without a card, and on meta tensors.
        why_fixed: why other batches are not spoken of; empty where they are.
    """

    script: Script
    plan: Plan
    found: PlanResult
    proof: Proof | None
    why_fixed: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The names of ``memfit plan --json``, and beside them the script, engine and values."""
        first, found = self.script.first, self.found
        shown = self.script.answer(found.micro_batch)
        options = [asdict(option) for option in found.options or ()]
        script = {
            "name": self.script.name,
            "knob": asdict(first.knob),
            "why_fixed": self.why_fixed,
            "samples": first.samples,
            "steps": [asdict(step) for step in shown.steps],
            "evaluations": [asdict(evaluation) for evaluation in shown.evaluations],
            "kept": [asdict(kept) for kept in first.kept],
            "notes": list(first.notes),
            "protection": str(first.protection),
            "is_benchmarked": first.is_benchmarked,
            "proof": None if self.proof is None else _proof_dict(self.proof),
        }
        known = found.to_dict() | {"recipe": None, "options": options}
        values = [asdict(value) for value in first.values]
        return known | {"script": script, "engine": self.script.engine, "made_up": values}


def _proof_dict(proof: Proof) -> dict[str, Any]:
    answer = proof.answer
    return {
        "batch_size": proof.batch_size,
        "fits": proof.fits,
        "status": str(answer.status),
        "message": answer.message,
        "place": answer.place or next(iter(answer.denied), ""),
        "steps": len(answer.steps),
        "peak_allocated_bytes": answer.peak_allocated_bytes,
        "peak_reserved_bytes": answer.peak_reserved_bytes,
    }


def plan_script(
    script: Script, gpu: GPU | None, *, is_largest: bool = False, has_more: bool = True
) -> ScriptPlan:
    """Plan a script that ran.

    Args:
        script: of the card, limited to it where one is named.
        gpu: the card; None where none is named.
        is_largest: the largest batch is found and run, instead of the script's own.
        has_more: whether other batches are looked at, and ways to fit more.

    Raises:
        UsageError: the largest batch is wanted, and nothing sets it or no card is named.
    """
    plan, why_fixed = _plan(script, gpu, has_more=has_more or is_largest)
    if is_largest:
        if gpu is None:
            raise UsageError("--batch auto finds the largest batch on a card.", hint="Add --gpu.")
        script.batch = _largest(plan, script, why_fixed)
        if plan.is_fixed:
            script.narrow()
            plan = Plan(script, gpu)
        else:
            plan = plan.asking(script.batch)
    has_proof = gpu is not None and script.can_prove
    proof = Proof(script.batch, script.proof(script.batch)) if has_proof else None
    options = list(_ways(plan)) if has_more else None
    found = overview(plan, options)
    if proof is not None and found.verdict is not None:
        found = replace(found, fits=proof.fits, verdict=_proved(found.verdict, proof))
    return ScriptPlan(script, plan, found, proof, why_fixed)


def _plan(script: Script, gpu: GPU | None, *, has_more: bool) -> tuple[Plan, str]:
    """The plan, and why it is of one batch only."""
    why = ""
    if has_more:
        if script.widen():
            try:
                plan = Plan(script, gpu)
                if plan.is_affine:
                    return plan, ""
                because = plan.tapes.not_affine_because
                why = f"runs at two batches differ in more than sizes ({because})"
            except ScriptError as error:
                why = error.message
            script.narrow()
        else:
            why = "nothing is known that sets it: write {batch} where the arguments want the number"
    return Plan(script, gpu), why


def _largest(plan: Plan, script: Script, why_fixed: str) -> int:
    """The largest batch that PyTorch itself trains with on the card; 1 where none does."""
    if not script.has_knob:
        raise UsageError(f"--batch auto: {why_fixed}.")

    if not script.can_prove:
        return max(plan.max_batch_size or 1, 1)

    def fits(batch: int) -> bool:
        return Proof(batch, script.proof(batch)).fits

    samples = script.first.samples or _MOST_BATCH  # a larger batch would be no larger
    if plan.max_batch_size is None:
        return largest_batch(fits, samples, min(script.batch, samples)) or 1
    most = min(plan.max_batch_size, samples)
    for _ in range(_MOST_TRIES):
        if most <= 1 or fits(most):
            break
        most = max(1, most - max(1, most // 32))
    return max(most, 1)


def _proved(verdict: Verdict, proof: Proof) -> Verdict:
    """The verdict, as PyTorch itself gave it."""
    if proof.fits == verdict.fits:
        return verdict
    return replace(verdict, fits=proof.fits, is_tight=proof.fits)


def _ways(plan: Plan) -> Iterator[Option]:
    """What can be worked out from the tape alone."""
    before = plan.at(None)
    if not plan.settings.expandable_segments:
        after = plan.with_allocator("expandable_segments:True")
        total = after.at(before.batch_size).total_bytes
        if total < before.total_bytes:
            largest = None if plan.batch_limits is None else after.max_batch_size
            yield Option(
                "segments that grow", "PYTORCH_ALLOC_CONF=expandable_segments:True",
                largest, total, before.total_bytes - total,
                "an environment variable; PYTORCH_CUDA_ALLOC_CONF before torch 2.9",
            )  # fmt: skip
    half, rest = divmod(before.batch_size, 2)
    if plan.is_affine and half > 1 and not rest:
        smaller = plan.at(half)
        total = smaller.total_bytes + smaller.parts_most["gradients"]
        if total < before.total_bytes:
            yield Option(
                f"accumulate 2 micro-batches of {half}", f"batch {half}, a step every second",
                None, total, before.total_bytes - total,
                "at most so much: gradients stay through the next forward",
            )  # fmt: skip
