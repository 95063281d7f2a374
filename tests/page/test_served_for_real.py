"""The page of ``memfit serve`` itself: a real server, a real browser, nothing in between."""

from __future__ import annotations

import os
import pickletools
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import js_page
import pytest
from test_plan_tab import expect, it, saved, shown_bytes

import memfit

COMMAND = [sys.executable, "-m", "memfit", "serve", "--port", "0", "--workers", "1"]
MODEL = "torchvision:resnet18"


@pytest.fixture(scope="module")
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where a server listens, with its token."""
    js_page.shared_browser(request.config)  # or skip, before anything starts
    with subprocess.Popen(
        [*COMMAND, "--gpu", "rtx-3060"], stdout=subprocess.PIPE, text=True,
        cwd=tmp_path_factory.mktemp("served"), env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            is_said, _, _ = select.select([server.stdout], [], [], js_page.PATIENCE_MS / 1000)
            said = server.stdout.readline() if is_said else "nothing"
            found = re.search(r"http://127\.0\.0\.1:\d+/#token=\S+", said)
            assert found, said
            yield found[0]
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, address: str) -> Iterator[Any]:
    """The page, opened once; what goes wrong in it is collected in ``page.wrong``."""
    origin = address.split("/#", maxsplit=1)[0]
    page = js_page.new_page(
        request.config,
        viewport={"width": 1280, "height": 900}, locale="en-US", reduced_motion="reduce",
    )  # fmt: skip
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda line: page.wrong.append(line.text) if line.type == "error" else None)
    page.on("request", lambda asked: _hold_to(origin, asked.url, page.wrong))
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error(e.violatedDirective))"
    )
    page.goto(address)
    yield page
    page.context.close()


@pytest.fixture
def page(served: Any) -> Iterator[Any]:
    """The same page for every test; afterwards nothing may have gone wrong."""
    served.locator("#tab-plan").click()
    yield served
    assert served.wrong == []


def _hold_to(origin: str, url: str, wrong: list[str]) -> None:
    if not url.startswith((f"{origin}/", "data:", "blob:")):
        wrong.append(f"request to {url}")


def planned(page: Any, change: Any) -> None:
    """Do something that plans again, and wait for the new plan."""
    with page.expect_response("**/api/plan"):
        change()
    expect(it(page, "cancel")).to_have_count(0)


def choose_model(page: Any, name: str) -> None:
    field = it(page, "field-model")
    field.fill(name)
    planned(page, lambda: field.press("Tab"))


def test_a_plan_is_there_before_anyone_asks(page: Any) -> None:
    expect(it(page, "model-name")).to_have_text("torchvision:resnet50")
    expect(it(page, "verdict")).to_have_text("Fits")
    assert "token" not in page.url
    assert page.locator("main [data-test=plan-error]").count() == 0


def test_another_model_and_recipe_give_the_numbers_of_the_command(page: Any) -> None:
    choose_model(page, MODEL)
    expect(it(page, "model-name")).to_have_text(MODEL)
    planned(page, lambda: it(page, "field-precision").select_option("amp-fp16"))
    optimizer = it(page, "field-optimizer")
    optimizer.fill("adamw")
    planned(page, lambda: optimizer.press("Tab"))
    plan = memfit.plan(MODEL, precision="amp-fp16", optimizer="adamw", gpu="rtx-3060")
    expect(it(page, "recommended")).to_contain_text(str(plan.recommended_batch_size))
    expect(it(page, "largest")).to_contain_text(str(plan.max_batch_size))
    expect(it(page, "batch-number")).to_have_value(str(plan.micro_batch))
    assert shown_bytes(page, "total") == plan.at(plan.micro_batch).total_bytes
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    it(page, "batch-number").fill("37")  # between the tabled batches
    expect(it(page, "total")).to_have_attribute("data-bytes", str(plan.at(37).total_bytes))
    expect(it(page, "exact")).to_have_text("as nvidia-smi shows it")
    assert [url.split("/")[-1] for url in asked] == ["sizes?batch=37"]


def test_another_card_plans_again_and_free_memory_does_not(page: Any) -> None:
    choose_model(page, "cnn")
    it(page, "gpu").click()
    it(page, "gpu-search").fill("v100 16")
    planned(page, lambda: it(page, "gpu-search").press("Enter"))
    expect(it(page, "card-name")).to_contain_text("V100")
    expect(it(page, "command")).to_contain_text("--gpu v100")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    it(page, "freeBytes").fill("2.5")
    it(page, "freeBytes").press("Enter")
    expect(it(page, "command")).to_contain_text("--free 2.5GiB")
    expect(it(page, "largest")).not_to_contain_text("…")
    assert not any(url.endswith("/api/plan") for url in asked)


def test_progress_can_be_cancelled(page: Any) -> None:
    before = it(page, "model-name").text_content()
    field = it(page, "field-model")
    field.fill("torchvision:efficientnet_v2_l")
    field.press("Tab")
    expect(it(page, "progress")).to_contain_text("Tracing a step")
    it(page, "cancel").click()
    expect(it(page, "progress")).to_have_count(0)
    expect(it(page, "model-name")).to_have_text(str(before))
    choose_model(page, "mlp")  # the worker is free again
    expect(it(page, "model-name")).to_have_text("mlp")


def test_an_input_that_the_model_cannot_take(page: Any) -> None:
    choose_model(page, MODEL)
    field = it(page, "field-input_shape")
    field.fill("7x32x32")
    planned(page, lambda: field.press("Tab"))
    expect(it(page, "plan-error").locator("span")).not_to_be_empty()  # the hint
    field.fill("3x64x64")
    planned(page, lambda: field.press("Tab"))
    expect(it(page, "plan-error")).to_have_count(0)
    expect(it(page, "command")).to_contain_text("--input-shape 3x64x64")
    field.fill("")
    planned(page, lambda: field.press("Tab"))


def test_options_and_a_snapshot_for_pytorch(page: Any) -> None:
    choose_model(page, "cnn")
    it(page, "ask-ways").click()
    expect(it(page, "way").first).to_be_visible()
    it(page, "batch-number").fill("16")
    expect(it(page, "exact")).to_have_text("as nvidia-smi shows it")
    protocol, *_ = pickletools.genops(saved(page, "snapshot"))
    assert protocol[:2] == (pickletools.code2op["\x80"], 4)


@pytest.mark.parametrize("tab", ["learn", "data", "study", "runs", "compare"])
def test_every_tab_opens_in_both_languages_and_themes(page: Any, tab: str) -> None:
    page.locator(f"#tab-{tab}").click()
    panel = page.locator(f"#panel-{tab}")
    expect(panel).to_contain_text(re.compile(r"\w{4}"))
    it(page, "language-zh").click()
    it(page, "theme").click()
    expect(panel).to_contain_text(re.compile(r"[\u4e00-\u9fff]{2}"))
    assert page.evaluate("document.documentElement.lang") == "zh"
    it(page, "language-en").click()
    it(page, "theme").click()


def test_a_wrong_token_says_so(request: pytest.FixtureRequest, address: str) -> None:
    page = js_page.new_page(request.config, locale="en-US")
    page.goto(f"{address}x")
    expect(it(page, "plan-error")).to_be_visible()
    page.context.close()
