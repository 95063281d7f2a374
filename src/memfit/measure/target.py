"""What is measured: the first CUDA GPU, a virtual one, or the CPU to try the harness."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

from memfit.cards.catalogue import GPU, context_bytes, gpus, local_gpu
from memfit.cards.catalogue import gpu as find_gpu
from memfit.errors import NoGPU, UsageError
from memfit.units import parse_bytes
from memfit.virtual_cuda.stubs import build_stubs

__all__ = ["Target", "card_from_facts", "choose_target"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where steps are measured.

    Args:
        kind: ``cuda``; ``virtual`` for PyTorch itself on a card that is not there; ``cpu`` for a
            virtual budget.
        card: what the plan is made for; on a GPU with the memory that is free for this process.
        fraction: share of the GPU that the allocator may reserve; 1 for all.
        budget_bytes: what the allocator may reserve on the CPU; None on a GPU.
    """

    kind: Literal["cuda", "virtual", "cpu"]
    card: GPU
    fraction: float = 1.0
    budget_bytes: int | None = None

    @property
    def key(self) -> str:
        """The folder of its records: a GPU, a share of one, and a CPU budget never share one."""
        if self.budget_bytes is not None:
            return f"cpu-{_size_word(self.budget_bytes)}"
        name = self.card.name if self.card.key == "local" else self.card.key
        key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        key = f"virtual-{key}" if self.kind == "virtual" else key
        return key if self.fraction == 1.0 else f"{key}-at-{self.fraction:g}"

    @property
    def name(self) -> str:
        """In words."""
        if self.budget_bytes is not None:
            return f"CPU under a virtual budget of {_size_word(self.budget_bytes)} (no GPU)"
        if self.kind == "virtual":
            return f"PyTorch itself on a {self.card.name} that is not there (no GPU)"
        share = "" if self.fraction == 1.0 else f", {self.fraction:.0%} of it".replace("%", " %")
        return f"{self.card.name}{share}"

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Target:
        """The target of a record.

        Raises:
            UsageError: they are no such facts.
        """
        card = card_from_facts(facts)
        return cls(facts["kind"], card, float(facts["fraction"]), facts["budget_bytes"])

    def facts(self) -> dict[str, Any]:
        """What a record says of it; :meth:`of` makes it again."""
        return {
            "kind": self.kind,
            "fraction": self.fraction,
            "budget_bytes": self.budget_bytes,
            "card": self.card.to_dict(),
        }


def choose_target(on: str | None = None, fraction: float = 1.0) -> Target:
    """The GPU that CUDA would use, or what ``on`` says.

    Args:
        on: ``virtual:rtx-3060`` for PyTorch itself on a card that is not there, ``cpu:2GiB`` for
            a virtual budget on the CPU; the GPU when omitted.
        fraction: share of the GPU's memory that the allocator may reserve, above 0 and at most 1.

    Raises:
        UsageError: ``on`` or ``fraction`` is none.
        NoGPU: there is no CUDA GPU here.
        NoStubs: ``virtual:`` where PyTorch itself cannot run without a GPU.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"--fraction is {fraction:g}; it is a share: above 0, at most 1.")
    if on is None or on == "cuda":
        return _cuda(float(fraction))
    kind, _, size = on.partition(":")
    if kind not in ("cpu", "virtual") or not size:
        raise UsageError(
            f"--on {on!r} is none.",
            hint="Leave it out for the GPU, or write --on virtual:rtx-3060 or --on cpu:2GiB.",
        )
    if kind == "virtual":
        card = find_gpu(size)
        build_stubs()  # here, so that whoever cannot learns it before a plan is made
        return Target("virtual", card, float(fraction))
    if fraction != 1.0:
        raise UsageError("--fraction is a share of a GPU; say the CPU's budget by its size.")
    budget_bytes = parse_bytes(size)
    card = find_gpu(f"{budget_bytes}B")
    return Target("cpu", card.with_free_bytes(budget_bytes + card.context_bytes), 1.0, budget_bytes)


def card_from_facts(facts: dict[str, Any]) -> GPU:
    """The card of a record, as :meth:`Target.facts` wrote it.

    Raises:
        UsageError: they are no such facts.
    """
    try:
        card = dict(facts["card"])
        card["aliases"] = tuple(card["aliases"])
        card["compute_capability"] = tuple(card["compute_capability"])
        return GPU(**card)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"A record describes no GPU: {error}.") from None


def _cuda(fraction: float) -> Target:
    import torch

    found = local_gpu()  # asks the driver and makes no CUDA context
    if not torch.cuda.is_available():
        raise _needs_gpu(found[0].name if found else None, torch.__version__)
    card, free_bytes = found or _card_of_torch()
    if fraction < 1:  # CUDACachingAllocator.cpp: a share of totalGlobalMem, for segments alone
        free_bytes = min(free_bytes, int(fraction * card.total_bytes) + card.context_bytes)
    return Target("cuda", card.with_free_bytes(free_bytes), fraction)


def _needs_gpu(seen: str | None, torch_version: str) -> NoGPU:
    tries = "--on cpu:2GiB tries the harness here; its figures are no GPU's."
    if seen is not None:
        return NoGPU(
            f"The driver sees {seen}, but PyTorch {torch_version} cannot use it.",
            hint=f"Install a CUDA build of PyTorch that fits the driver. {tries}",
        )
    return NoGPU(
        "memfit measure runs real training steps on an NVIDIA GPU, and there is none here.",
        hint="Run it on a machine with one; `memfit plan MODEL --gpu NAME` needs none. " + tries,
    )


#: In a process of its own: asking CUDA makes a context, which would take memory as long as we run.
_ASK_CUDA = """
import json, torch
facts, (free, total) = torch.cuda.get_device_properties(0), torch.cuda.mem_get_info(0)
print(json.dumps([facts.name, facts.major, facts.minor, facts.multi_processor_count, free, total]))
"""


def _card_of_torch() -> tuple[GPU, int]:
    """The card as CUDA describes it, where NVML does not answer (a MIG slice, some containers)."""
    asked = subprocess.run(
        [sys.executable, "-c", _ASK_CUDA],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},  # as where it is measured
    )
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise NoGPU(f"CUDA does not describe its GPU: {last}")
    name, major, minor, multiprocessors, free_bytes, total_bytes = json.loads(
        asked.stdout.strip().splitlines()[-1]
    )
    known = gpus().get(name)
    if known is not None and abs(known.total_bytes - total_bytes) < known.total_bytes // 8:
        return known, free_bytes
    card = replace(
        find_gpu(f"{total_bytes}B"),
        key="local",
        name=name,
        multiprocessors=multiprocessors,
        compute_capability=(major, minor),
        context_bytes=context_bytes(multiprocessors, (major, minor)),
        context_source="fitted to public readings of other cards",
        total_source="CUDA",
    )
    return card, free_bytes


def _size_word(size_bytes: int) -> str:
    for factor, unit in ((1 << 30, "gib"), (1 << 20, "mib")):
        if size_bytes >= factor:
            return f"{size_bytes / factor:g}{unit}"
    return f"{size_bytes}b"
