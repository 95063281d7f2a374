"""The table of fields: one row makes everything that a field is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import memfit
from memfit.errors import UsageError
from memfit.recipe.fields import FIELDS, Field, Offer, offered
from memfit.recipe.kinds import (
    Choice,
    Kind,
    Many,
    Number,
    Range,
    Shape,
    Spec,
    Tensors,
    Text,
    Whole,
)
from memfit.recipe.recipe import Recipe
from memfit.recipe.toml import load_recipe, recipe_to_toml
from memfit.web.asking.names import KnownNames
from memfit.web.asking.openapi import OPENAPI
from memfit.web.asking.refusals import Refusal
from memfit.web.asking.requests import read_plan_request

SOURCE = Path(memfit.__file__).parent
NAMES = KnownNames({"named": [], "builtin": ["mlp"]}, ["adamw", "sgd"], [], "0")
PLAIN = [row for row in FIELDS.values() if row.name != "model"]

# -- a recipe is plain values ----------------------------------------------------------------------

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
OPTION = st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | UNICODE
OPTION |= st.floats(allow_nan=False, allow_infinity=False)


def values_of(kind: Kind) -> st.SearchStrategy[Any]:
    """Everything that a kind allows, by what it says of itself."""
    match kind:
        case Whole():
            return st.integers(kind.least, kind.most)
        case Number():
            low, high = (None if a is None else a for a in (kind.above, kind.below))
            return st.floats(
                kind.least if low is None else low, kind.most if high is None else high,
                exclude_min=low is not None, exclude_max=high is not None,
                allow_nan=False, allow_infinity=False,
            )  # fmt: skip
        case Choice():
            return st.sampled_from(kind.words)
        case Text(characters=str()):
            return st.from_regex(f"[{kind.characters}]{{0,50}}", fullmatch=True)
        case Text():
            return UNICODE
        case Many():
            return st.lists(values_of(kind.each), min_size=kind.least, max_size=4)
        case Range():
            finite = st.floats(allow_nan=False, allow_infinity=False)
            return st.tuples(finite, finite).filter(lambda pair: pair[0] < pair[1])
        case Tensors():
            sizes = st.lists(st.integers(1, 64), min_size=1, max_size=4)
            words = sizes.map(lambda shape: "x".join(map(str, shape)))
            named = st.builds("{}={}:int64".format, st.sampled_from(["ids", "image"]), words)
            return st.lists(words | named | st.sampled_from(["20xNx8", "N"]), max_size=3)
        case Shape():
            return st.lists(st.integers(1, 64), min_size=1, max_size=kind.most)
        case Spec():
            names = st.sampled_from(["sgd", "adamw"])
            lists = st.lists(st.floats(0, 1), min_size=1, max_size=2)
            options = st.dictionaries(UNICODE, OPTION | lists, max_size=3)
            return names | st.builds(lambda name, more: {**more, "name": name}, names, options)
    raise AssertionError(kind)


#: No mode but training has them.
OF_TRAINING = ("accumulation", "global_batch", "eval_batch_size", "gradient_checkpointing")


def recipes() -> st.SearchStrategy[Recipe]:
    values = {row.name: values_of(row.kind) for row in PLAIN}

    def made(given: dict[str, Any]) -> Recipe:
        said = [name for name in ("input", "input_shape", "input_ids") if given.get(name)]
        assume(len(said) < 2)
        if "batch_size" in given:
            given.pop("global_batch", None)
        if given.get("mode", "train") != "train":
            given = {name: value for name, value in given.items() if name not in OF_TRAINING}
        return Recipe(model="mlp", **given)

    return st.fixed_dictionaries({}, optional=values).map(made)


@settings(max_examples=300)
@given(recipe=recipes())
def test_a_recipe_comes_back_from_toml_and_json(
    recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = recipe_to_toml(recipe.to_dict())
    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    path.write_bytes(text.encode())
    assert load_recipe(path) == recipe
    assert Recipe(**json.loads(json.dumps(recipe.to_dict()))) == recipe
    given = {name: value for name, value in recipe.to_dict().items() if value is not None}
    assert tomllib.loads(text) == given


def test_a_short_recipe_is_a_short_file() -> None:
    recipe = Recipe(model="mlp", mean=0.5, frozen="a.*", optimizer="adamw,betas=0.9,eps=1e-3")
    told = {k: v for k, v in recipe.to_dict().items() if k in ("model", "mean", "optimizer")}
    assert recipe_to_toml(told) == (
        'model = "mlp"\nmean = [0.5]\n\n[optimizer]\nname = "adamw"\nbetas = 0.9\neps = 0.001\n'
    )
    assert recipe.frozen == ("a.*",)


@pytest.mark.parametrize(
    "value", [object(), [None], b"x", "\udcff", Path("a"), float("nan"), {"y": 1}]
)
def test_options_that_no_file_can_hold_are_named(value: Any) -> None:
    with pytest.raises(UsageError, match=r"optimizer\.x is"):
        Recipe(model="mlp", optimizer={"name": "sgd", "x": value})


# -- one bound, everywhere -------------------------------------------------------------------------


def edges(row: Field) -> tuple[list[Any], list[Any]]:
    """Values at the edge of what a row allows, and just beyond."""
    match row.kind:
        case Whole(least, most):
            return [least, most], [least - 1, most + 1, 1.5, True, "1"]
        case Number(above, least, below, most):
            good = [v for v in (least, most) if v is not None]
            return good or [0.5], [
                *(v for v in (above, below) if v is not None),
                *(v - 1 for v in (least,) if v is not None),
                *(v * 2 for v in (most,) if v is not None),
                True, "x",
            ]  # fmt: skip
        case Choice(words):
            return list(words), ["nonsense", 1]
        case Text(longest):
            return ["a" * longest], ["a" * (longest + 1), 3]
        case Shape(side, most):
            return [[1] * most, [side.most]], [[], [0], [1] * (most + 1), [side.most + 1], 3]
        case Tensors():
            return [["3x4", "ids=64:int64", "N"], []], [3, ["3x0"], [""], ["x"] * 3, ["1"] * 65]
    return [], [3]


def is_taken(values: dict[str, Any]) -> bool:
    try:
        Recipe(**{"model": "mlp", **values})
    except UsageError:
        return False
    return True


def is_answered(values: dict[str, Any]) -> bool:
    try:
        read_plan_request(json.dumps({"recipe": {"model": "mlp", **values}}).encode(), NAMES)
    except Refusal:
        return False
    return True


@pytest.mark.parametrize("row", [r for r in PLAIN if not r.takes_code], ids=lambda row: row.name)
def test_python_requests_and_openapi_have_the_same_bounds(row: Field) -> None:
    good, bad = edges(row)
    for value in good:
        assert is_taken({row.name: value}), value
    for value in bad:
        assert not is_taken({row.name: value}), value
    assert is_taken({row.name: None}) == (row.default is None)
    properties = OPENAPI["components"]["schemas"]["Recipe"]["properties"]
    assert (row.name in properties) == bool(Offer.REQUEST & row.by)
    if row.name in properties:
        assert properties[row.name] == row.schema
        assert all(is_answered({row.name: value}) for value in good)
        assert not any(is_answered({row.name: value}) for value in bad)
        assert is_answered({row.name: None}) == (row.default is None)


# -- a field is one row ----------------------------------------------------------------------------

ROW = """
    zeal: int = _row(
        3, Whole(2, 41), _MEMORY, _PLAN | Offer.MODEL | _MORE, "Zeal of the whole net.",
        label=("Zeal", "热情"), has_effect=False)
"""
ASKS = """
import contextlib, io, json, runpy, sys
import memfit
from memfit.cli import app
from memfit.errors import UsageError
from memfit.measure.records import _deciding
from memfit.page.documents.command import plan_words
from memfit.page.html import served_page
from memfit.web.about import about_document
from memfit.web.asking.names import KnownNames
from memfit.web.asking.openapi import OPENAPI
from memfit.web.asking.requests import read_plan_request

def refusal(ask):
    try:
        ask()
    except Exception as error:
        return str(error)

names = KnownNames({"named": [], "builtin": ["mlp"]}, ["sgd"], [], "0")
def asked(value):
    body = {"recipe": {"model": "mlp", "zeal": value}}
    return read_plan_request(json.dumps(body).encode(), names).recipe["zeal"]

def flag(words):
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    return bound.arguments["flags"].given()

found = {
    "file": memfit.__file__,
    "recipe": memfit.Recipe(model="mlp").zeal,
    "recipe_refuses": refusal(lambda: memfit.Recipe(model="mlp", zeal=42)),
    "flag": flag(["plan", "mlp", "--zeal", "7"]),
    "model_flag": flag(["model", "mlp", "--zeal", "7"]),
    "asked": asked(41),
    "asking_refuses": refusal(lambda: asked(42)),
    "openapi": OPENAPI["components"]["schemas"]["Recipe"]["properties"]["zeal"],
    "about": about_document(names, None, [], [])["recipe"]["zeal"],
    "page": served_page(),
    "command": plan_words(memfit.Recipe(model="mlp", zeal=7)),
    "identity": _deciding({"model": "mlp", "zeal": 7}) == _deciding({"model": "mlp"}),
    "documents": runpy.run_path(sys.argv[1])["commands"](),
    "docstring": memfit.Recipe.__doc__,
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def with_zeal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a copy of memfit says whose table has one row more; nothing else is changed."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(SOURCE, folder / "memfit", ignore=shutil.ignore_patterns("__pycache__"))
    table = folder / "memfit" / "recipe" / "fields.py"
    text, place = table.read_text(), "\n    # -- training ---"
    assert text.count(place) == 1
    table.write_text(text.replace(place, ROW + place))
    documents = SOURCE.parents[1] / "docs" / "generate.py"
    done = subprocess.run(
        [sys.executable, "-c", ASKS, str(documents)],
        env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert Path(found["file"]).is_relative_to(folder)
    return found


def test_a_new_row_is_a_field_of_the_recipe(with_zeal: dict[str, Any]) -> None:
    assert with_zeal["recipe"] == 3
    assert with_zeal["recipe_refuses"] == "zeal is 42; it must be between 2 and 41."
    assert "zeal: Zeal of the whole net." in with_zeal["docstring"]


def test_a_new_row_is_a_flag(with_zeal: dict[str, Any]) -> None:
    assert with_zeal["flag"] == with_zeal["model_flag"] == {"zeal": 7}
    assert with_zeal["command"] == ["memfit", "plan", "mlp", "--zeal", "7"]
    pages = with_zeal["documents"].split("\n## ")
    has_flag = {p.split("\n")[0] for p in pages if "--zeal INT" in p and "Zeal of the whole" in p}
    assert has_flag == {
        f"memfit {name}"
        for name in ("plan", "model", "train", "study", "noise", "watch", "measure")
    }


def test_a_new_row_can_be_asked_of_the_server(with_zeal: dict[str, Any]) -> None:
    assert with_zeal["asked"] == 41
    assert with_zeal["asking_refuses"] == with_zeal["recipe_refuses"]
    assert with_zeal["openapi"] == {
        "type": "integer", "minimum": 2, "maximum": 41, "default": 3,
        "description": "Zeal of the whole net.",
    }  # fmt: skip
    assert with_zeal["about"] == 3


def test_a_new_row_is_a_control_of_the_page(with_zeal: dict[str, Any]) -> None:
    bundle = json.loads(with_zeal["page"].partition('id="memfit-bundle">')[2].split("</script>")[0])
    assert [row for row in bundle["form"] if row["name"] == "zeal"] == [
        {"name": "zeal", "more": True, "schema": with_zeal["openapi"]}
    ]
    assert bundle["texts"]["field.zeal"] == {"en": "Zeal", "zh": "热情"}


def test_a_new_row_says_whether_it_changes_a_measurement(with_zeal: dict[str, Any]) -> None:
    assert with_zeal["identity"]


# -- mistakes are found before torch is loaded -----------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["mlp", "--precision", "fp99"], "Unknown precision"),
        (["none.toml"], "Cannot read the recipe"),
        (["mlp", "--input-shape", "0x3"], "a size in input_shape"),
        (["mlp", "--input-shape", "big"], "is not a shape"),
        (["mlp", "--batch-size", "3.5"], "not a whole number"),
        (["mlp", "--optimizer", "sgd,lr"], "no option of an optimizer"),
    ],
)
def test_mistakes_are_found_without_torch(words: list[str], says: str, tmp_path: Path) -> None:
    asks = (
        "import sys; sys.modules['torch'] = None\n"
        "from memfit.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asks, "plan", *words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert says in done.stderr


def test_only_code_can_be_given_as_an_object() -> None:
    code = {row.name for row in FIELDS.values() if row.takes_code}
    assert code == {"model", "data", "transform", "optimizer", "loss", "step"}
    assert not code & {row.name for row in offered(Offer.PLAN) if isinstance(row.kind, Choice)}
