"""The report of a study: the page's single file, open at the Study tab, with the trials beside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import js_page
import pytest
from test_plan_tab import expect, it

from memfit.page.documents.study import study_document
from memfit.page.single_file import study_page
from memfit.recipe.recipe import Recipe
from memfit.report.study.text import study_rows
from memfit.step.job import resolve
from memfit.study.results import Study
from memfit.study.study import run_study

JOB = resolve(
    Recipe(
        model="mlp",
        data="shapes,train=128,val=32,test=32,size=8,channels=1",
        optimizer={"name": "sgd", "momentum": 0.9},
        lr=0.02,
        global_batch=32,
        epochs=2,
    )
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return run_study(
        JOB, batch_sizes=(16, 32, 64), seeds=2, folder=tmp_path_factory.mktemp("s") / "<b>mine"
    )


@pytest.fixture
def page(request: pytest.FixtureRequest, study: Study, tmp_path: Path) -> Iterator[Any]:
    """The report, opened from the disk; it asks for nothing and writes no error."""
    wrong: list[str] = []
    page = js_page.new_page(request.config, locale="en-US")
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if "http" in asked.url[:5] else None)
    path = tmp_path / "report.html"
    path.write_text(study_page(study.folder), encoding="utf-8")
    page.goto(path.as_uri())
    expect(it(page, "study-view")).to_be_visible()
    yield page
    page.context.close()
    assert not wrong


def test_every_table_of_the_text_is_there(page: Any, study: Study) -> None:
    names = ("speeds", "sizes", "accuracies")
    for name, (_, columns, rows) in zip(names, study_rows(study), strict=True):
        table = it(page, name)
        assert table.locator("th").count() == len(columns)
        first = table.locator("tbody tr td:first-child").all_inner_texts()
        assert first == [row[0] for row in rows]
    accuracies = it(page, "accuracies").locator("tbody tr").first.locator("td").all_inner_texts()
    (_, _, rows) = list(study_rows(study))[2]
    assert [cell.replace(" %", "%") for cell in accuracies] == list(rows[0])


def test_what_was_found_is_told_in_both_languages(page: Any, study: Study) -> None:
    found = study.recommendation
    assert found is not None
    expect(it(page, "advice")).to_contain_text(f"Batch size {found.global_batch}")
    expect(it(page, "advice")).to_contain_text(found.basis)
    for reason in (*found.reasons, *found.changes):
        expect(it(page, "advice")).to_contain_text(reason)
    assert it(page, "findings").locator("li").count() >= 4
    expect(page.locator("h2", has_text="<b>mine")).to_be_visible()
    it(page, "language-zh").click()
    expect(it(page, "advice")).to_contain_text("批大小")
    expect(it(page, "findings")).to_contain_text("拐点")


def test_the_trials_of_the_recommended_batch_are_runs(page: Any, study: Study) -> None:
    found = study.recommendation
    assert found is not None
    page.locator("#tab-runs").click()
    expect(it(page, "run-view")).to_be_visible()
    names = it(page, "chooser").locator("option").all_inner_texts()
    trials = {path.name for path in (study.folder / "runs").glob(f"b{found.global_batch:05d}-*")}
    assert set(names) == trials
    it(page, "chooser").select_option(names[-1])
    expect(it(page, "run-view")).to_contain_text(names[-1])


def test_a_study_that_goes_on_has_a_page_too(open_page: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({}))
    page = open_page({"study": study_document(tmp_path)})
    expect(it(page, "unfinished")).to_contain_text("not finished")
    assert page.locator("#tab-runs").count() == 0
