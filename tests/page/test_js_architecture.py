"""The floors of the page's scripts: a folder imports only from folders below it."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import PurePosixPath

import pytest

from memfit.page.html import assets, modules

#: From the ground up; folders of one floor do not know each other.
FLOORS = (
    ("engine", "source"),
    ("ui",),
    ("charts", "export"),
    ("memory", "data", "study"),
    ("plan", "learn", "runs"),
    ("tabs",),
    ("app",),
)
#: What draws and what asks; the engine counts.
BROWSER = re.compile(r"\b(document\.(?!\w+_)(create|get|query|body)|window\.|fetch\(|navigator\.)")
MOST_FILES = 15
MOST_LINES = 400

SCRIPTS = {name: assets()[path] for name, path in modules().items() if path.startswith("js/")}


def folder_of(module: str) -> str:
    """``engine`` of ``memfit/engine/tape``; ``app`` of ``memfit/app``."""
    return PurePosixPath(module).parts[1]


def imports_of(module: str) -> set[str]:
    """Own modules that a script names, in types too."""
    return set(re.findall(r'"(memfit/[^"]+)"', SCRIPTS[module].read_text(encoding="utf-8")))


def test_every_folder_has_a_floor() -> None:
    assert {folder_of(module) for module in SCRIPTS} == {name for row in FLOORS for name in row}


@pytest.mark.parametrize("module", SCRIPTS)
def test_imports_go_down(module: str) -> None:
    floor = {name: number for number, row in enumerate(FLOORS) for name in row}
    own = folder_of(module)
    for other in imports_of(module):
        theirs = folder_of(other)
        assert own == theirs or floor[theirs] < floor[own], f"{module} imports {other}"


def test_no_scripts_import_each_other_in_a_circle() -> None:
    graph = {module: imports_of(module) - {module} for module in SCRIPTS}
    assert set(TopologicalSorter(graph).static_order()) == set(SCRIPTS)  # else CycleError


@pytest.mark.parametrize("name", [name for row in FLOORS for name in row])
def test_folders_stay_small(name: str) -> None:
    inside = [path for module, path in SCRIPTS.items() if folder_of(module) == name]
    assert len(inside) <= MOST_FILES
    for path in inside:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, path.name


def test_the_engine_knows_no_browser() -> None:
    engine = {module: path for module, path in SCRIPTS.items() if folder_of(module) == "engine"}
    for module, path in engine.items():
        assert not BROWSER.search(path.read_text(encoding="utf-8")), module
