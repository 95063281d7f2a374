"""Plans of the command beside the page's plans of the same documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, cached_property
from typing import Any

import pytest

import memfit
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.page.documents.plan import plan_document, ruled_sizes_at
from memfit.planner.plan import Plan
from memfit.planner.result import BatchPlan

InPage = Callable[..., Any]

OPEN_PLAN = """
async ({ name, text }, use) => {
  const { openPlan } = await use("memfit/engine/plan");
  window[name] = openPlan(JSON.parse(text));
  return window[name].stops;
}
"""


class Both:
    """A plan of the command, and the page's plan made of its document."""

    def __init__(self, name: str, plan: Plan, document: dict[str, Any], run: InPage) -> None:
        self.name = name
        self.plan = plan
        self.document = document
        self._run = run
        self.stops = run(OPEN_PLAN, {"name": name, "text": json.dumps(self.document)})

    def ask(self, code: str, *values: Any) -> Any:
        """What an expression of ``plan`` and ``values`` is in the page."""
        body = f"({{ name, values }}) => {{ const plan = window[name]; return {code}; }}"
        return self._run(body, {"name": self.name, "values": values})

    def set_exact(self, batch: int) -> None:
        self.ask("plan.setExact(...values)", batch, ruled_sizes_at(self.plan, batch))

    def ask_exactly(self, code: str, *values: Any) -> Any:
        """The answer once all library workspaces that it rests on are exact."""
        asked = """(() => {
          const asked = new Set();
          plan.forget();
          plan.tapeAt = (batch) => {
            asked.add(batch);
            return Object.getPrototypeOf(plan).tapeAt.call(plan, batch);
          };
          try {
            const answer = %s;
            return { answer, inexact: [...asked].filter((batch) => !plan.isExact(batch)) };
          } finally {
            delete plan.tapeAt;
          }
        })()"""
        while True:
            found = self.ask(asked % code, *values)
            if not found["inexact"]:
                return found["answer"]
            for batch in found["inexact"]:
                self.set_exact(batch)

    @cached_property
    def some_stops(self) -> list[int]:
        plan = self.plan
        named = {1, 2, 8, plan.max_batch_size or 1, plan.recommended_batch_size or 1}
        return sorted(batch for batch in named if batch in self.stops)


RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("mlp", {"gpu": "4GiB", "optimizer": "adam"}),
    "cnn": (
        "cnn",
        {
            "gpu": "rtx-3060",
            "input_shape": (3, 32, 32),
            "allocator": "expandable_segments:True,roundup_power2_divisions:4",
        },
    ),
    "resnet50": (
        "torchvision:resnet50",
        {"gpu": "rtx-3060", "optimizer": "adamw", "precision": "amp-fp16"},
    ),
    "vit": (
        "timm:vit_tiny_patch16_224",
        {"gpu": "t4", "optimizer": "adamw", "precision": "amp-bf16", "accumulation": 2},
    ),
}


@cache
def planned(name: str) -> tuple[Plan, dict[str, Any]]:
    """A plan and its document, made once for all files of tests."""
    model, options = RECIPES[name]
    plan = memfit.plan(model, verify=False, **options)
    return plan, plan_document(plan)


@pytest.fixture(scope="module", params=list(RECIPES))
def both(request: pytest.FixtureRequest, in_page: InPage) -> Both:
    return Both(request.param, *planned(request.param), in_page)


def page_settings(settings: AllocatorSettings) -> dict[str, Any]:
    """Settings as documents hold them."""
    divisions = settings.divisions_by_interval()
    return asdict(settings) | {"roundup_power2_divisions": divisions}


def named(at: BatchPlan) -> dict[str, Any]:
    """A batch's figures under the page's names."""
    peak = at.timeline.peak
    return {
        "peakAllocatedBytes": at.peak_allocated_bytes,
        "peakReservedBytes": at.peak_reserved_bytes,
        "totalBytes": at.total_bytes,
        "parts": at.parts,
        "partsMost": at.parts_most,
        "peak": {
            "position": peak.position,
            "phase": str(at.peak.phase),
            "module": at.peak.module,
            "operator": at.peak.operator.removesuffix(".default"),
            "place": at.peak.place,
            "isEvaluation": at.peak.is_evaluation,
        },
    }


AT = "(({ timeline, ...at }) => at)(plan.at(values[0]))"
