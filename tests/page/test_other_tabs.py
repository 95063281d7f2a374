"""The Study and Runs tabs, and Learn and Data, of a served page: files answer for the server."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import js_page
import pytest

from memfit.page.documents.data import data_document
from memfit.page.documents.learn import learn_documents
from memfit.page.documents.run import run_document, run_names
from memfit.page.documents.study import study_document, study_names
from memfit.page.html import assets, served_page
from memfit.trainer.run.run_folder import RunFolder

ORIGIN = "http://memfit.test"
DOCS = Path(__file__).parents[2] / "docs"
PLAN = {"micro_batch": 8, "at": {
    "batch_size": 8, "peak_reserved_bytes": 3 << 20, "parts": {
        "parameters": 1 << 20, "activations": 1 << 20, "cache": 1 << 20, "context": 1 << 27,
    },
}}  # fmt: skip

Serve = Callable[..., Any]


@pytest.fixture
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """Open the served page at a tab; studies and runs are in ``tmp_path``."""
    wrong: list[str] = []
    pages: list[Any] = []

    def serve(tab: str, *, width: int = 1280) -> Any:
        view = {"width": width, "height": 900}
        page = js_page.new_page(request.config, viewport=view, locale="en-US")
        pages.append(page)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.route("**/*", lambda route: answer(route, tmp_path, wrong))
        page.goto(f"{ORIGIN}/#{tab}")
        return page

    yield serve
    for page in pages:
        page.context.close()
    assert not wrong


def answer(route: Any, root: Path, wrong: list[str]) -> None:
    url = urlparse(route.request.url)
    path = unquote(url.path)
    if not route.request.url.startswith(ORIGIN):
        wrong.append(f"asked for {route.request.url}")
        route.abort()
    elif path == "/":
        route.fulfill(content_type="text/html", body=served_page())
    elif path.startswith("/assets/"):
        kind = "text/css" if path.endswith(".css") else "text/javascript"
        file = assets()[path.removeprefix("/assets/")]
        route.fulfill(content_type=kind, body=file.read_text(encoding="utf-8"))
    else:
        route.fulfill(content_type="application/json", body=json.dumps(said(path, url.query, root)))


def said(path: str, query: str, root: Path) -> Any:
    studies, runs = root / "studies", root / "runs"
    kind, _, name = path.removeprefix("/api/").partition("/")
    if kind == "studies":
        return study_document(studies / name)
    if kind == "runs":
        return run_document(runs / name, int(parse_qs(query)["after"][0]))
    if kind == "data":
        return data_document(name)
    if kind == "learn":
        return learn_documents()
    return {
        "datasets": ["shapes,train=16,test=8,size=16"],
        "studies": study_names(studies), "runs": run_names(runs),
        "version": "", "torch_version": "", "models": [], "cards": [], "gpu": None,
        "choices": {}, "recipe": {},
    }  # fmt: skip


# -- studies ---------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "studies" / "demo"
    folder.mkdir(parents=True)
    shutil.copy(DOCS / "batch-size" / "study.json", folder)
    (folder / "settings.json").write_text("{}")
    return folder


def test_a_study_shows_its_curves_and_its_advice(serve: Serve, study: Path) -> None:
    page = serve("study")
    page.wait_for_selector("[data-test=plot-noise] canvas")
    known = json.loads((study / "study.json").read_text())
    for name in ("speed", "steps", "accuracy", "gap", "rates"):
        assert page.locator(f"[data-test=plot-{name}] canvas").count() == 1
    rows = page.locator("[data-test=sizes] tbody tr")
    assert rows.count() == len(known["sizes"])
    assert page.locator("[data-test=plot-memory] .part-row").count() == len(known["memory"])
    advice = page.inner_text("[data-test=advice] h2")
    assert advice == "Batch size 32, learning rate 0.05"
    page.click("[data-test=language-zh]")
    assert page.inner_text("[data-test=advice] h2") == "批大小 32，学习率 0.05"


def test_the_curves_are_drawn_again_in_the_other_theme(serve: Serve, study: Path) -> None:
    page = serve("study")
    place = "[data-test=plot-speed] canvas"
    page.wait_for_selector(place)
    light = page.evaluate(f"document.querySelector('{place}').toDataURL()")
    page.click("[data-test=theme]")
    page.wait_for_function(
        f"(old) => document.querySelector('{place}').toDataURL() !== old", arg=light
    )


def test_a_study_that_found_nothing_still_shows(serve: Serve, study: Path) -> None:
    known = json.loads((study / "study.json").read_text())
    nothing = ("goal", "knee", "noise_batch", "tradeoff", "rate_rule", "recommendation", "card")
    empty = dict.fromkeys(nothing) | {"throughput": [], "noise": []}
    for size in known["sizes"]:
        size |= {name: None for name in size if name not in ("batch_size", "tried")}
    (study / "study.json").write_text(json.dumps(known | empty))
    page = serve("study")
    page.wait_for_selector("[data-test=sizes]")
    assert page.locator("[data-test=plot-speed]").count() == 0
    assert page.locator("[data-test=plot-memory]").count() == 1


def test_a_study_that_goes_on_says_so(serve: Serve, study: Path) -> None:
    (study / "study.json").unlink()
    assert "not finished" in serve("study").inner_text("[data-test=unfinished]")


# -- runs ------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path / "runs", "one") as run:
        run.write_recipe({"model": "mlp", "global_batch": 64, "steps": 40, "epochs": 5})
        run.write_json("plan.json", PLAN)
        yield run


def write(run: RunFolder, first: int, last: int, micro_batch: int = 8) -> None:
    for number in range(first, last + 1):
        run.metrics.append({
            "step": number, "event": "step", "epoch": 0, "loss": 2 / number,
            "learning_rate": 0.1, "micro_batch": micro_batch,
        })  # fmt: skip


def test_a_run_grows_while_one_looks(serve: Serve, run: RunFolder) -> None:
    page = serve("runs")
    page.wait_for_selector("[data-test=no-rows]")
    write(run, 1, 10)
    page.wait_for_selector("[data-test=plot-loss] canvas")
    assert has_text(page, "10 / 40")
    with run.metrics.path.open("a") as file:
        file.write('{"step": 11, "event": "st')  # the writer is in the middle of a line
    with page.expect_response(lambda found: "/api/runs/" in found.url):
        pass
    assert has_text(page, "10 / 40")
    run.metrics.repair()
    write(run, 11, 20)
    page.wait_for_function("document.body.innerText.includes('20 / 40')")
    run.set_status("finished")
    page.wait_for_function(
        "document.querySelector('[data-test=run-status]').innerText === 'finished'"
    )


def test_memory_that_ran_out_is_marked(serve: Serve, run: RunFolder) -> None:
    write(run, 1, 5)
    run.metrics.append({
        "step": 6, "event": "micro-batch", "phase": "backward", "from": 8, "to": 4,
        "message": "<b>CUDA out of memory</b>", "predicted_bytes": 3 << 20, "limit_bytes": 2 << 20,
    })  # fmt: skip
    write(run, 6, 9, micro_batch=4)
    write_pace(run, 9)
    page = serve("runs")
    events = page.inner_text("[data-test=events]")
    assert "Step 6: out of memory, micro-batch 8 → 4" in events
    assert "<b>CUDA out of memory</b>" in events  # text, not markup
    page.wait_for_selector("[data-test=plot-micro-batch] canvas")
    page.wait_for_selector("[data-test=plot-reserved] canvas")
    page.hover("[data-test=plot-reserved] .u-over")  # somewhere in the middle
    labels = page.locator("[data-test=plot-reserved] .u-label").all_inner_texts()
    assert labels[1:] == ["reserved", "plan", "limit 2.0 MiB"]
    values = page.locator("[data-test=plot-reserved] .u-value").all_inner_texts()
    assert values[1:3] == ["1.5 MiB", "3.0 MiB"]


def write_pace(run: RunFolder, steps: int) -> None:
    run.pace.append({"step": 0, "event": "start", "total_steps": 40, "device": "a card",
                     "limit_bytes": 2 << 20})  # fmt: skip
    for number in range(1, steps + 1):
        run.pace.append({
            "step": number, "event": "step", "seconds": number / 2, "samples": 64 * number,
            "reserved_bytes": 3 << 19, "planned_bytes": 3 << 20,
        })  # fmt: skip


def test_memory_and_speed_grow_with_the_run(serve: Serve, run: RunFolder) -> None:
    write(run, 1, 3)
    page = serve("runs")
    page.wait_for_selector("[data-test=plot-loss] canvas")
    assert page.locator("[data-test=plot-reserved]").count() == 0
    run.write_recipe({"model": "mlp", "global_batch": 64, "epochs": 5})  # no steps: the pace knows
    write_pace(run, 3)
    page.wait_for_selector("[data-test=plot-reserved] canvas")
    assert has_text(page, "a card")
    assert has_text(page, "3 / 40")
    page.hover("[data-test=plot-speed] .u-over")
    values = page.locator("[data-test=plot-speed] .u-value").all_inner_texts()
    assert values[1:] == ["128", "128"]


def test_a_budget_on_the_cpu_is_named_in_chinese(serve: Serve, run: RunFolder) -> None:
    write(run, 1, 3)
    run.pace.append({"step": 0, "event": "start", "total_steps": 3, "limit_bytes": 2 << 20,
                     "device": "CPU under a virtual budget"})  # fmt: skip
    page = serve("runs")
    page.wait_for_selector("[data-test=run-view]")
    page.click("[data-test=language-zh]")
    assert "虚拟显存预算" in page.inner_text("[data-test=run-view]")


def test_measured_stands_beside_predicted(serve: Serve, run: RunFolder) -> None:
    write(run, 1, 3)
    predicted = {"reserved_bytes": 3 << 20, "parts": PLAN["at"]["parts"]}
    measured = {"reserved_bytes": 2 << 20, "allocated_bytes": 1 << 20}
    run.write_json("summary.json", {
        "step": 3, "device": "a card", "largest_micro_batch": 8, "evaluation": None,
        "memory": {"predicted": predicted, "measured": measured},
    })  # fmt: skip
    run.set_status("finished")
    page = serve("runs")
    page.wait_for_selector("[data-test=run-parts]")
    rows = page.locator("[data-test=run-parts] .part-row").all_inner_texts()
    assert [re.sub(r"\s+", " ", row) for row in rows] == ["plan (8) 3.0 MiB", "measured 2.0 MiB"]


def test_rows_that_were_taken_back_do_not_stay(serve: Serve, run: RunFolder) -> None:
    write(run, 1, 20)
    page = serve("runs")
    page.wait_for_function("document.body.innerText.includes('20 / 40')")
    run.metrics.rewind(5)
    page.wait_for_function("document.body.innerText.includes('5 / 40')")


def test_a_damaged_run_says_so_and_the_page_lives(serve: Serve, run: RunFolder) -> None:
    run.path.joinpath("metrics.jsonl").write_text("[1]\n")
    run.set_status("finished")

    def refused(route: Any) -> None:
        error = {"error": {"message": "metrics.jsonl line 1 is no JSON object", "hint": "Look."}}
        route.fulfill(status=422, content_type="application/json", body=json.dumps(error))

    page = serve("learn")
    page.route("**/api/runs/**", refused)
    page.click("#tab-runs")
    assert "line 1 is no JSON object" in page.inner_text("[data-test=failure] [lang=en]")
    page.click("#tab-learn")
    page.wait_for_selector("[data-test=four]")


@pytest.mark.parametrize("tab", ["study", "runs"])
def test_nothing_is_wider_than_a_phone(serve: Serve, study: Path, run: RunFolder, tab: str) -> None:
    write(run, 1, 30)
    page = serve(tab, width=390)
    page.wait_for_selector("canvas")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_without_any_the_tabs_say_how_to_make_one(serve: Serve) -> None:
    page = serve("study")
    page.wait_for_function("document.body.innerText.includes('memfit study makes one')")
    page.click("#tab-runs")
    page.wait_for_function("document.body.innerText.includes('memfit train makes one')")


def test_data_comes_from_the_server(serve: Serve) -> None:
    page = serve("data")
    page.wait_for_selector("[data-test=data-view]")
    assert page.locator("[data-test=samples] img").count() == 16


def has_text(page: Any, text: str) -> bool:
    return text in page.inner_text("body")
