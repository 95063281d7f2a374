"""The page's plan against the one of the command: the same bytes, fits and batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import js_page
import js_plans
import pytest
from js_plans import AT, Both, named, page_settings

import memfit
from memfit.cards.catalogue import GPU, gpu
from memfit.memory.allocator.allocator import AllocatorSettings
from memfit.memory.allocator.timeline import fits
from memfit.page.documents.plan import batch_ladder, plan_document
from memfit.planner.curve import memory_curve
from memfit.planner.largest import BatchLimits
from memfit.planner.layers import summarise_layers
from memfit.planner.plan import Plan

InPage = Callable[..., Any]

in_page = js_page.in_page
both = js_plans.both

CARDS = ("t4", "a100-40gb")
VECTORS = json.loads((Path(__file__).parent.parent / "engine" / "limits.json").read_text())


def test_every_stop_is_what_the_command_says(both: Both) -> None:
    assert set(batch_ladder(both.plan)) <= set(both.stops)
    for batch in both.some_stops:
        at = both.ask(AT, batch)
        assert at == {"batch": batch, "exact": True} | named(both.plan.at(batch))
        assert sum(at["parts"].values()) == at["totalBytes"]


def test_between_stops_the_answer_says_so_until_the_server_was_asked(both: Both) -> None:
    plan = both.plan
    batch = next(b for b in range(9, 10**6) if b not in both.stops)
    ruled = both.document["tape"]["ruled"]["entries"]
    assert both.ask("plan.isExact(values[0])", batch) is (not ruled)
    assert both.ask("plan.at(values[0]).exact", batch) is (not ruled)
    both.set_exact(batch)
    assert both.ask(AT, batch) == {"batch": batch, "exact": True} | named(plan.at(batch))
    assert batch in both.ask("plan.stops")


def card(name: str | GPU | None) -> tuple[GPU, dict[str, int]]:
    found = gpu(name) if isinstance(name, str) else name
    assert found is not None
    names = ("usable_bytes", "context_bytes", "total_bytes")
    return found, {name: getattr(found, name) for name in names}


def runs_safely(plan: Plan, card: GPU, batch: int) -> bool:
    """Whether it runs on a card with the recipe's share of the memory."""
    share = plan.recipe.safety
    less = {name: int(getattr(card, name) * share) for name in ("usable_bytes", "total_bytes")}
    return plan.limits.runs_on(replace(card, **less), batch)


def test_what_fits_a_card(both: Both) -> None:
    for name in CARDS:
        ours, theirs = card(name)
        for batch in both.some_stops:
            fits = both.plan.limits.runs_on(ours, batch)
            assert both.ask("plan.fitsOn(...values)", theirs, batch) is fits
            total = both.plan.at(batch).total_bytes - both.plan.card.context_bytes
            is_more = total + ours.context_bytes > ours.usable_bytes
            tight = fits and is_more and not runs_safely(both.plan, ours, batch)
            verdict = both.ask("plan.verdict(...values)", theirs, batch)
            assert verdict == ("tight" if tight else "fits" if fits else "no")


def test_the_largest_and_the_recommended_batch_of_any_card(both: Both) -> None:
    for name in CARDS:
        ours, theirs = card(name)
        assert both.ask_exactly("plan.limitsOn(values[0])", theirs) == in_script(
            both.plan.limits.on(ours)
        )


def in_script(limits: BatchLimits | None) -> dict[str, int]:
    assert limits is not None
    return {
        "largest": limits.max_batch_size,
        "largestThatRuns": limits.largest_that_runs,
        "recommended": limits.recommended_batch_size,
    }


def test_the_same_of_the_plans_own_card(both: Both) -> None:
    _, theirs = card(both.plan.gpu)
    expected = in_script(both.plan.batch_limits)
    assert both.ask("plan.limitsOn(values[0])", theirs) == expected
    both.ask("void (plan.document.gpu = null)")  # worked out, not read
    assert both.ask_exactly("plan.limitsOn(values[0])", theirs) == expected
    both.ask("void (plan.document.gpu = values[0])", both.document["gpu"])


def test_a_batch_that_fits_only_with_releases_is_tight(both: Both) -> None:
    ours = both.plan.gpu
    assert ours is not None
    largest = both.plan.max_batch_size
    assert largest is not None
    at = both.plan.at(largest)
    _, theirs = card(ours)
    is_tight = at.total_bytes > ours.usable_bytes and not runs_safely(both.plan, ours, largest)
    assert both.ask("plan.verdict(...values)", theirs, largest) == ("tight" if is_tight else "fits")
    less = ours.with_free_bytes(at.total_bytes - 1)
    fits = both.plan.limits.runs_on(less, largest)
    is_tight = fits and not runs_safely(both.plan, less, largest)
    expected = "tight" if is_tight else "fits" if fits else "no"
    assert both.ask("plan.verdict(...values)", card(less)[1], largest) == expected


def test_the_recommended_batch_is_never_tight(both: Both) -> None:
    for name in CARDS:
        ours, theirs = card(name)
        recommended = both.plan.limits.on(ours).recommended_batch_size
        if recommended:
            assert both.ask("plan.verdict(...values)", theirs, recommended) == "fits"


def test_the_curve(both: Both) -> None:
    points = memory_curve(both.plan)
    asked = {"from": points[0].batch_size, "to": points[-1].batch_size, "points": 12}
    for point in points:
        both.set_exact(point.batch_size)
    assert both.ask("plan.curve(plan.document.card, values[0])", asked) == [
        {"batch": p.batch_size, "neededBytes": p.needed_bytes, "totalBytes": p.total_bytes}
        for p in points
    ]
    assert both.ask("plan.curve(plan.document.card, { from: 8, to: 8, points: 5 }).length") == 1


KEPT = """(() => {
  const kept = {};
  const visit = (node) => {
    if (node.keptBytes) kept[node.path] = node.keptBytes;
    node.children.forEach(visit);
  };
  const root = plan.moduleTree(values[0]);
  visit(root);
  return { kept, total: root.totalBytes, name: root.name };
})()"""


def test_the_module_tree_adds_up_to_what_the_layers_keep(both: Both) -> None:
    for batch in {1, both.some_stops[-1]}:
        table = summarise_layers(both.plan, batch_size=batch)
        found = both.ask(KEPT, batch)
        assert found["kept"] == {x.path: x.kept_bytes for x in table.layers if x.kept_bytes}
        assert found["total"] == table.kept_bytes > 0
        assert found["name"] == both.plan.model_name


# -- plans whose batches are traced one by one -----------------------------------------------------


def test_a_plan_that_is_not_affine_knows_what_was_traced(in_page: InPage) -> None:
    plan = memfit.plan("mlp", gpu="4GiB", batch_size=8, verify=False)
    plan.tapes.affine = None
    plan.tape_at(16)
    both = Both("traced", plan, plan_document(plan), in_page)
    assert both.document["tape"] is None
    assert both.stops == sorted(int(batch) for batch in both.document["traced"])
    assert {4, 8, 16} <= set(both.stops)
    assert both.ask(AT, 16) == {"batch": 16, "exact": True} | named(plan.at(16))
    assert both.ask("[plan.knows(4), plan.knows(5), plan.isExact(4)]") == [True, False, True]
    refused = "(() => { try { return plan.at(5); } catch (error) { return error.name; } })()"
    assert both.ask(refused) == "RangeError"
    assert [p["batch"] for p in both.ask("plan.curve(plan.document.card, values[0])",
            {"from": 4, "to": 16, "points": 9})] == [4, 8, 16]  # fmt: skip
    _, theirs = card("t4")
    assert both.ask("plan.limitsOn(values[0]).largest", theirs) == both.stops[-1]
    assert both.ask("plan.moduleTree(8).totalBytes") == (
        summarise_layers(plan, batch_size=8).kept_bytes
    )
    extra = plan_document(plan, ladder=[])["traced"]["8"]
    both.ask("plan.addTraced(5, values[0])", extra)
    assert both.ask("plan.at(5).totalBytes") == plan.at(8).total_bytes


def test_the_rule_of_the_largest_batches_is_the_shared_one(in_page: InPage) -> None:
    code = """async (vectors, use) => {
      const { findLimits } = await use("memfit/engine/search");
      return vectors.map(({ runs, runs_safely, last, stops, useful }) => {
        const within = (rows) => (batch) => rows.some(([a, b]) => a <= batch && batch <= b);
        const found = findLimits(within(runs), within(runs_safely), last, useful, stops);
        return {
          max_batch_size: found.largest,
          largest_that_runs: found.largestThatRuns,
          recommended_batch_size: found.recommended,
        };
      });
    }"""
    found = in_page(code, VECTORS["rules"])
    for vector, answer in zip(VECTORS["rules"], found, strict=True):
        assert answer == vector["expected"], vector["name"]


def test_a_share_of_the_card_limits_what_fits_also_where_the_peak_is_known(
    in_page: InPage,
) -> None:
    plan = memfit.plan(
        "cnn",
        gpu="rtx-3060",
        batch_size=64,
        verify=False,
        allocator="per_process_memory_fraction:0.5",
    )
    both = Both("share", plan, plan_document(plan), in_page)
    _, theirs = card("rtx-3060")
    capacity = theirs["usable_bytes"] - theirs["context_bytes"]
    answers = []
    for batch in (8000, 12_500):
        both.set_exact(batch)
        both.ask("void plan.at(values[0])", batch)
        answers.append(both.ask("plan.fitsOn(...values)", theirs, batch))
        assert plan.at(batch).peak_reserved_bytes <= capacity
        assert answers[-1] is fits(
            *plan.tape_at(batch), capacity, plan.settings, theirs["total_bytes"]
        )
    assert answers == [True, False]


def document_of(vector: dict[str, Any]) -> dict[str, Any]:
    """A shared vector as a plan's document: what jumps is a table of every batch that is tried."""
    lines = list(zip(vector["constant"], vector["slope"], strict=True))
    batches = list(range(1, 257))

    def jump(number: int, batch: int) -> int:
        jumps = (j for j in vector["jumps"] if j["allocation"] == number)
        return sum(j["bytes"] for j in jumps if j["from"] <= batch <= j["to"])

    def sizes(number: int) -> list[int]:
        constant, slope = lines[number]
        return [constant + slope * batch + jump(number, batch) for batch in batches]

    jumping = {j["allocation"] for j in vector["jumps"]}
    entries = [{"allocations": [number], "bytes": sizes(number)} for number in sorted(jumping)]
    zeros = [0] * len(lines)
    names = ("part", "phase", "step", "operator", "module", "dtype", "shape")
    tape = dict.fromkeys(names, zeros) | {
        "parts": ["activations"], "phases": ["forward"], "strings": [""], "shapes": [[]],
        "marks": [], "times_us": None, "ruled": {"batches": batches, "entries": entries},
        "constant": vector["constant"], "slope": vector["slope"], "events": vector["events"],
    }  # fmt: skip
    return {
        "allocator": page_settings(AllocatorSettings.parse(vector["allocator"])),
        "is_affine": True, "tape": tape, "traced": {}, "gpu": None, "safety": vector["safety"],
    }  # fmt: skip


@pytest.mark.parametrize("vector", VECTORS["tapes"], ids=lambda vector: vector["name"])
def test_the_tapes_give_the_shared_answers(in_page: InPage, vector: dict[str, Any]) -> None:
    code = """async ({ document, card }, use) => {
      const { openPlan } = await use("memfit/engine/plan");
      return openPlan(document).limitsOn(card);
    }"""
    found = in_page(code, {"document": document_of(vector), "card": vector["card"]})
    assert found == in_script(BatchLimits(**vector["expected"]))
