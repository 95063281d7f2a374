"""The Plan tab against a server: what it asks, when, and what it makes of the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import js_page
import pytest
from test_plan_tab import expect, it, shown_bytes

import memfit
from memfit.cards.catalogue import gpus
from memfit.page.documents.plan import plan_document, ruled_sizes_at
from memfit.page.html import assets, served_page
from memfit.planner.plan import Plan
from memfit.recipe.fields import Offer, offered
from memfit.recipe.kinds import Choice, Whole

ORIGIN = "http://127.0.0.1:9"
TYPES = {"js": "text/javascript", "css": "text/css"}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return memfit.plan("cnn", optimizer="adamw", gpu="rtx-3060")


class Server:
    """Answers as memfit serve would, from one plan; keeps what it was asked."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.recipes: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.refusal: dict[str, str] | None = None

    def answer(self, route: Any) -> None:
        request = route.request
        path = request.url.removeprefix(ORIGIN)
        if path == "/":
            route.fulfill(content_type="text/html", body=served_page())
        elif path.startswith("/assets/"):
            file = assets()[path.removeprefix("/assets/")]
            route.fulfill(content_type=TYPES[file.suffix[1:]], body=file.read_text("utf-8"))
        elif request.headers.get("authorization") != "Bearer secret":
            route.fulfill(status=401, body="{}")
        else:
            self.paths.append(path)
            route.fulfill(body=self.api(path, request))

    def api(self, path: str, request: Any) -> str:
        if path == "/api/about":
            return json.dumps(self.about())
        if path == "/api/plan":
            self.recipes.append(request.post_data_json)
            return "\n".join(json.dumps(line) for line in self.lines())
        assert path.startswith("/api/plan/one/sizes?batch="), path
        batch = int(path.split("=")[1])
        return json.dumps({"batch": batch, "bytes": ruled_sizes_at(self.plan, batch)})

    def about(self) -> dict[str, Any]:
        cards = plan_document(self.plan, ladder=[1])["cards"]
        return {
            "version": "0", "torch_version": "0", "models": [{"name": "cnn", "kind": "builtin"}],
            "cards": cards, "recipe": self.plan.recipe.to_dict(), "gpu": "rtx-3060",
            "choices": {"precision": ["fp32", "bf16"], "optimizer": ["adamw", "sgd"]},
            "datasets": [], "studies": [], "runs": [],
        }  # fmt: skip

    def lines(self) -> list[dict[str, Any]]:
        yes = {"plan": "one", "document": plan_document(self.plan, ladder=[1, 1024])}
        stage = {"progress": {"stage": "tracing", "batch": 4, "operators": 10}}
        return [stage, {"error": self.refusal} if self.refusal else yes]


@pytest.fixture
def server(plan: Plan) -> Server:
    return Server(plan)


@pytest.fixture
def page(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    page = js_page.new_page(request.config, locale="en-US")
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.route("**/*", server.answer)
    page.goto(f"{ORIGIN}/#token=secret")
    yield page
    page.context.close()
    assert not errors


def test_the_first_recipe_is_planned_at_once(page: Any, server: Server, plan: Plan) -> None:
    expect(it(page, "verdict")).to_have_text("Fits")
    assert "token" not in page.url
    [asked] = server.recipes
    assert asked["recipe"]["model"] == "cnn"
    assert asked["gpu"] == "rtx-3060"
    assert int(it(page, "batch-number").input_value()) == plan.recommended_batch_size


def test_a_choice_plans_again(page: Any, server: Server) -> None:
    expect(it(page, "verdict")).to_be_visible()
    with page.expect_response("**/api/plan"):
        it(page, "field-precision").select_option("bf16")
    assert server.recipes[-1]["recipe"]["precision"] == "bf16"


def test_every_field_that_the_table_offers_has_its_control(page: Any) -> None:
    expect(it(page, "verdict")).to_be_visible()
    page.locator("details.more > summary").click()
    rows = offered(Offer.FORM | Offer.MORE)
    assert {"model", "precision", "accumulation", "clip_grad_norm", "ema"} < {r.name for r in rows}
    for row in rows:
        control = it(page, f"field-{row.name}")
        expect(page.locator("label", has=control)).to_contain_text(row.label[0])
        if isinstance(row.kind, Whole):
            expect(control).to_have_attribute("min", str(row.kind.least))
            expect(control).to_have_attribute("max", str(row.kind.most))
        elif isinstance(row.kind, Choice) and not row.kind.is_switch:
            assert control.locator("option").all_inner_texts() == list(row.kind.words)


def test_another_card_plans_again(page: Any, server: Server) -> None:
    expect(it(page, "verdict")).to_be_visible()
    it(page, "gpu").click()
    it(page, "gpu-search").fill("v100 16")
    with page.expect_response("**/api/plan"):
        it(page, "gpu-search").press("Enter")
    assert server.recipes[-1]["gpu"] in gpus()
    assert server.recipes[-1]["gpu"] != "rtx-3060"


def test_a_batch_between_stops_is_asked_for(page: Any, server: Server, plan: Plan) -> None:
    expect(it(page, "verdict")).to_be_visible()
    it(page, "batch-number").fill("100")
    expect(it(page, "exact")).to_have_text("as nvidia-smi shows it")
    expect(it(page, "total")).to_have_attribute("data-bytes", str(plan.at(100).total_bytes))
    assert server.paths[-1] == "/api/plan/one/sizes?batch=100"
    assert shown_bytes(page, "peak-allocated") == plan.at(100).peak_allocated_bytes


def test_what_is_being_typed_stays(page: Any) -> None:
    expect(it(page, "verdict")).to_be_visible()
    it(page, "field-optimizer").fill("adamw,momentum=0.9")
    it(page, "language-zh").evaluate("(button) => button.click()")  # draws all of it again
    expect(it(page, "verdict")).to_have_text("放得下")
    expect(it(page, "field-optimizer")).to_have_value("adamw,momentum=0.9")


def test_a_refusal_is_shown_with_its_hint(page: Any, server: Server) -> None:
    expect(it(page, "verdict")).to_be_visible()
    server.refusal = {"message": "No such model.", "hint": "Try resnet50."}
    it(page, "field-model").fill("nothing")
    it(page, "plan").click()
    expect(it(page, "plan-error")).to_contain_text("No such model.Try resnet50.")
    expect(it(page, "verdict")).to_be_visible()
