"""The document that the page works from, and the one file that holds it."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser

import pytest

import memfit
from memfit.commands.plan import plan as plan_command
from memfit.memory.tape.parts import PARTS
from memfit.memory.tape.tape import Part
from memfit.page.documents.command import plan_words
from memfit.page.documents.plan import batch_ladder, plan_document, ruled_sizes_at
from memfit.page.html import assets, packed, served_page, single_file
from memfit.planner.plan import Plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    return memfit.plan("cnn", gpu="11GiB", batch_size=48, optimizer="adamw")


@pytest.fixture(scope="module")
def document(plan: Plan) -> dict[str, object]:
    return json.loads(json.dumps(plan_document(plan), allow_nan=False))


def sizes_at(document: dict, batch: int) -> list[int]:
    """Sizes by the document alone, at a stop of the ladder."""
    tape = document["tape"]
    sizes = [a + c * batch for a, c in zip(tape["constant"], tape["slope"], strict=True)]
    stop = tape["ruled"]["batches"].index(batch)
    for entry in tape["ruled"]["entries"]:
        for number in entry["allocations"]:
            sizes[number] = entry["bytes"][stop]
    return sizes


def test_the_document_has_every_size_at_every_stop(plan: Plan, document: dict) -> None:
    stops = document["tape"]["ruled"]["batches"]
    assert {48, plan.max_batch_size, plan.recommended_batch_size} <= set(stops)
    assert stops == sorted(set(stops))
    for batch in stops[1::7]:
        assert sizes_at(document, batch) == plan.tape_at(batch)[1]


def test_sizes_between_stops_are_asked(plan: Plan, document: dict) -> None:
    batch = next(b for b in range(9, 99) if b not in document["tape"]["ruled"]["batches"])
    asked = ruled_sizes_at(plan, batch)
    entries = document["tape"]["ruled"]["entries"]
    _, sizes = plan.tape_at(batch)
    for entry, size in zip(entries, asked, strict=True):
        assert {sizes[number] for number in entry["allocations"]} == {size}


def test_columns_tell_what_the_tape_tells(plan: Plan, document: dict) -> None:
    tape, columns = plan.tape_at(48)[0], document["tape"]
    assert columns["events"] == list(tape.events)
    for number, allocation in enumerate(tape.allocations):
        assert columns["parts"][columns["part"][number]] == allocation.part
        assert columns["phases"][columns["phase"][number]] == allocation.phase
        assert columns["strings"][columns["module"][number]] == allocation.module
        assert columns["strings"][columns["dtype"][number]] == allocation.dtype
        operator = columns["strings"][columns["operator"][number]]
        assert operator == allocation.operator.removesuffix(".default")
    marks = [[m.position, m.step, columns["phases"].index(m.phase)] for m in tape.marks]
    assert columns["marks"] == marks
    assert Part.CACHE not in columns["parts"]


def test_shapes_follow_the_batch(plan: Plan, document: dict) -> None:
    tape, columns = plan.step.trace(48), document["tape"]
    for number, allocation in enumerate(tape.allocations):
        shape = [a + c * 48 for a, c in columns["shapes"][columns["shape"][number]]]
        assert tuple(shape) == allocation.shape


def test_a_batch_of_one_is_a_tape_of_its_own(plan: Plan, document: dict) -> None:
    traced = document["traced"]["1"]
    assert traced["constant"] == plan.step.trace(1).sizes_bytes
    assert set(traced["slope"]) == {0}


def test_what_is_not_affine_has_the_tapes_that_were_traced() -> None:
    made = memfit.plan("mlp", gpu="11GiB", batch_size=16)
    made.tapes.affine = None
    made.tapes.not_affine_because = "tried"
    found = plan_document(made)
    assert found["tape"] is None
    assert not found["is_affine"]
    assert set(found["traced"]) >= {"4", "8", "16"}


def test_without_a_card_there_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memfit.planner.planning.local_gpu", lambda: None)
    found = plan_document(memfit.plan("mlp"))
    assert found["gpu"] is None
    assert found["fits"] is None
    assert found["card"]["key"] == "rtx-3060"
    assert found["assumptions"][0]["key"] == "no_card"


def test_the_ladder_has_room_above_what_fits(plan: Plan) -> None:
    ladder = batch_ladder(plan)
    assert ladder[:8] == list(range(1, 9))
    assert ladder[-1] >= 2 * (plan.max_batch_size or 0)
    assert len(ladder) < 100


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": {"name": "sgd", "momentum": 0.9, "foreach": False}},
        {"optimizer": "adamw", "precision": "amp-bf16", "memory_format": "nhwc", "ema": True},
        {"gradient_checkpointing": "reentrant", "accumulation": 4, "clip_grad_norm": 1.5},
        {"gradient_checkpointing": True, "cudnn_benchmark": True, "zero_grad": "zero"},
        {"input_shape": (3, 64, 64), "num_classes": 7, "frozen": ("a.*", "b")},
        {"allocator": "expandable_segments:True,max_split_size_mb:128", "safety": 0.9},
        {"base_lr": 0.1, "base_batch_size": 128, "global_batch": 512, "attention": "math"},
        {"data": "shapes", "augment": ("flip", "crop=4"), "colour": "grey"},
    ],
)
def test_the_command_gives_the_recipe_again(options: dict) -> None:
    from memfit.cli import app
    from memfit.commands.shared.flags import MemoryFlags, recipe_of

    recipe = memfit.Recipe(model="cnn", **options)
    words = plan_words(recipe)
    assert words[:3] == ["memfit", "plan", "cnn"]
    command, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert command is plan_command
    flags = bound.arguments.get("flags") or MemoryFlags()
    again = recipe_of(bound.arguments["model"], flags.given())
    for name, value in recipe.to_dict().items():
        mine, other = value, again.to_dict()[name]
        if name == "optimizer" and isinstance(other, dict) and set(other) == {"name"}:
            other = other["name"]
        if name == "gradient_checkpointing" and mine == "non-reentrant":
            mine = True
        assert mine == other, name


class Scripts(HTMLParser):
    """Every script of a page, and every address that it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.addresses: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [values[name] or "" for name in ("src", "href") if name in values]
        if tag == "script":
            self._inside = True
            self.scripts.append((values, ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def test_one_file_holds_everything() -> None:
    evil = {"name": "</script><script>alert(1)</script><!--", "unit": "KiB · 显存"}
    page = Scripts(single_file({"plan": evil, "snapshot": b"\x80\x04.", "data": None}))
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    texts = {attributes.get("type"): text for attributes, text in page.scripts}
    modules = json.loads(texts["importmap"])["imports"]
    assert all(address.startswith("data:text/javascript;base64,") for address in modules.values())
    bundle = json.loads(texts["application/json"])
    assert bundle["mode"] == "file"
    assert bundle["data"] is None
    assert [part["part"] for part in bundle["parts"]] == list(PARTS)
    unpacked = gzip.decompress(base64.b64decode(bundle["plan"]["gzip"]))
    assert json.loads(unpacked) == evil
    assert gzip.decompress(base64.b64decode(bundle["snapshot"]["gzip"])) == b"\x80\x04."


def test_the_same_documents_give_the_same_file(document: dict) -> None:
    assert packed(document) == packed(document)


def test_every_module_is_found_by_name() -> None:
    text = next(t for a, t in Scripts(served_page()).scripts if a.get("type") == "importmap")
    names = json.loads(text)["imports"]
    assert {address.removeprefix("/assets/") for address in names.values()} <= set(assets())
    for name, path in assets().items():
        if path.suffix != ".js" or name.startswith("vendor"):
            continue
        source = path.read_text(encoding="utf-8")
        wanted = re.findall(r'(?<![.\w])(?:from|import)\s*\(?\s*"([^"]+)"', source)
        assert set(wanted) <= set(names), name


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = Scripts(served_page())
    assert all(a.startswith(("/assets/", "data:", "#")) for a in page.addresses)
    for path in assets().values():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", text), path.name
