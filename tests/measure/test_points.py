"""Recorded points reach the page: in a file, and from the server."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memfit.cards.catalogue import gpu
from memfit.cli import main
from memfit.measure.process import recipe_facts
from memfit.measure.records import Measurement, Record, measured_of_plan, save_record
from memfit.measure.target import Target
from memfit.planner.planning import plan
from memfit.recipe.recipe import Recipe
from memfit.web.workers.planning import PlanningDesk
from memfit.web.workers.worker import JobProgress

CARD = gpu("rtx-3060")
RECIPE = Recipe(model="mlp", optimizer="adamw")
POINT = {
    "batch_size": 24,
    "peak_allocated_bytes": 11_000_000,
    "peak_reserved_bytes": 23_000_000,
    "total_bytes": 160_000_000,
    "source": "measured on NVIDIA GeForce RTX 3060 12GB, torch 9.9.9, 2026-11-21",
}


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one made-up record, where records are looked for."""
    measured = Measurement(
        24, "ok", "", 11_000_000, 23_000_000, gpu_used_bytes=160_000_000, others=()
    )
    target = Target("cuda", CARD)
    made = Record(
        "mlp", "mlp", target.facts(), {"torch": "9.9.9"}, recipe_facts(RECIPE),
        "2026-11-21T00:00:00+00:00", (measured,),
    )  # fmt: skip
    folder = tmp_path / "records"
    save_record(folder / target.key / "mlp.json", made)
    monkeypatch.setattr("memfit.measure.records.default_folder", lambda: folder)
    return folder


def bundle(text: str, name: str) -> Any:
    """A document out of a page in one file."""
    found = re.search(r'id="memfit-bundle"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(json.loads(found[1])[name]["gzip"])))


def test_the_file_has_them(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    words = ("plan", "mlp", "--optimizer", "adamw", "--gpu", "rtx-3060", "--quick")
    assert main([*words, "--html", str(page)]) == 0
    assert bundle(page.read_text(encoding="utf-8"), "plan")["measured"] == [POINT]


def asked(**more: Any) -> dict[str, Any]:
    """What a worker answers."""
    recipe = {"model": "mlp", "optimizer": "adamw"}
    request = {"plan": "a", "recipe": recipe, "gpu": "rtx-3060", "free_bytes": None, **more}
    found: dict[str, Any] = json.loads(PlanningDesk().jobs["plan"](request, JobProgress()))
    return found


def test_the_server_has_them() -> None:
    assert asked()["measured"] == [POINT]
    assert asked(gpu="t4")["measured"] == []
    assert asked(gpu=None)["measured"] == []
    assert asked(recipe={"model": "mlp"})["measured"] == []


def test_a_card_that_is_partly_taken_is_the_same_card() -> None:
    made = plan(RECIPE, gpu=CARD.with_free_bytes(4 << 30), verify=False)
    assert measured_of_plan(made) == [POINT]


def test_a_card_that_the_catalogue_does_not_have_goes_by_its_name(records: Path) -> None:
    card = replace(CARD, key="local", name="NVIDIA H999 80GB", is_custom=True)
    made = plan(RECIPE, gpu=card, verify=False)
    assert measured_of_plan(made) == []
    (records / "rtx-3060").rename(records / "nvidia-h999-80gb")
    assert [point["batch_size"] for point in measured_of_plan(made)] == [24]
