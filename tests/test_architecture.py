"""The house rules that a machine can hold: floors, names, documents."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import memfit

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "memfit"

#: A room imports only from rooms on lower floors. Rooms of a room obey the same rule among
#: themselves, and its own files stand above them.
FLOORS = {
    "errors": 1, "progress": 1, "version": 1, "torch_inside": 1, "places": 1,
    "units": 2, "elsewhere": 2,
    "files": 3, "recipe": 3, "cards": 3, "models": 3,
    "data": 4,
    "data.images": 1, "data.samples": 2, "data.tables": 3, "data.sets": 4, "data.facts": 5,
    "data.loading": 5,
    "memory": 5,
    "memory.tape": 1, "memory.allocator": 2, "memory.kernels": 2, "memory.cuda": 3,
    "memory.snapshot": 3, "memory.recording": 4,
    "memory.kernels.cudnn": 1,
    "step": 6, "explain": 6, "virtual_cuda": 6,
    "planner": 7,
    "trainer": 8,
    "trainer.recovery": 1, "trainer.ranks": 1, "trainer.weights": 1, "trainer.step": 2,
    "trainer.run": 3,
    "measure": 9, "study": 9,
    "study.science": 1, "study.measuring": 2, "study.trials": 2,
    "scripts": 10,
    "scripts.told": 1, "scripts.shelter": 2, "scripts.values": 2, "scripts.child": 3,
    "report": 11,
    "report.console": 1, "report.data": 2, "report.plan": 3, "report.figures": 3,
    "report.training": 4, "report.study": 4,
    "page": 12,
    "page.documents": 1,
    "web": 13,
    "web.asking": 1, "web.workers": 2,
    "commands": 14,
    "commands.shared": 1,
    "cli": 15,
    "__main__": 16,
}  # fmt: skip
WITHOUT_TORCH = (
    "errors.py", "progress.py", "units.py", "recipe/recipe.py", "recipe/fields.py",
    "recipe/kinds.py", "recipe/words.py", "recipe/toml.py", "cards/catalogue.py", "cli.py",
    "commands/shared/flags.py", "commands/plan.py", "commands/train.py", "commands/study.py",
    "memory/tape/tape.py", "memory/tape/parts.py",
    "memory/allocator/timeline.py", "memory/allocator/allocator.py",
    "planner/largest.py", "planner/learning_rate.py",
)  # fmt: skip

LONGEST_FILE, LARGEST_FOLDER = 400, 16

MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
    if path != SOURCE / "__init__.py"  # the roof: it loads every name when it is asked for
}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports; those that only types need, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{name.name}" for name in node.names}
            known = {name for name in inner if name.removeprefix("memfit.") in MODULES}
            found |= known or {node.module}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def own_imports_of(module: str) -> set[str]:
    """The modules of memfit that one imports; ``""`` is memfit itself."""
    names = imports_of(MODULES[module])
    return {n.removeprefix("memfit").lstrip(".") for n in names if n.split(".")[0] == "memfit"}


def rooms_where_they_part(module: str, imported: str) -> tuple[str, str]:
    """The two rooms, beside each other, that an import connects."""
    ways = []
    for name in (module, imported):
        parts = name.split(".")
        ways.append([".".join(parts[: i + 1]) for i in range(len(parts))])
    return next(((a, b) for a, b in zip(*ways, strict=False) if a != b), ("", ""))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    for imported in own_imports_of(module):
        assert imported, f"{module} imports from the roof"
        above, below = rooms_where_they_part(module, imported)
        if above in FLOORS:
            assert below in FLOORS, f"{module}, a room below, imports {imported}"
            assert FLOORS[below] < FLOORS[above], f"{module} imports {imported}"


def test_every_room_has_a_floor() -> None:
    rooms = {".".join(p.parent.relative_to(SOURCE).parts) for p in SOURCE.rglob("__init__.py")}
    assert rooms - {""} <= FLOORS.keys()


def test_a_stranger_finds_every_room() -> None:
    house = (ROOT / "CONTRIBUTING.md").read_text().split("## The house")[1].split("\n## ")[0]
    named = [name.rstrip("/") for name in re.findall(r"`(\w+/?)`(?=[,` |])", house)]
    rooms = [name for name in FLOORS if "." not in name]
    assert set(rooms) <= set(named)
    floors = [FLOORS[name] for name in named if name in FLOORS]
    assert floors == sorted(floors), "as they stand above each other"


def test_files_and_folders_stay_small() -> None:
    for folder in {path.parent for path in MODULES.values()}:
        assert len(list(folder.glob("*.py"))) <= 1 + LARGEST_FOLDER, folder
    for module, path in MODULES.items():
        assert len(path.read_text().splitlines()) <= LONGEST_FILE, module


def test_no_circle_of_files() -> None:
    waiting = {module: own_imports_of(module) & MODULES.keys() for module in MODULES}
    while free := [module for module, needs in waiting.items() if not needs & waiting.keys()]:
        for module in free:
            del waiting[module]
    assert not waiting


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_some_rooms_know_nothing_of_torch(name: str) -> None:
    assert not {module for module in imports_of(SOURCE / name) if module.split(".")[0] == "torch"}


def test_exported_names_exist() -> None:
    assert len(set(memfit.__all__)) == len(memfit.__all__)
    for name in memfit.__all__:
        assert getattr(memfit, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        memfit.nonsense  # noqa: B018


def test_stable_calls_work_after_submodules_are_loaded() -> None:
    import memfit.cards.catalogue
    import memfit.planner.plan

    assert memfit.gpus()["rtx-3090"].usable_bytes > 20 * 1024**3
    assert callable(memfit.plan)


def test_the_readmes_python_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        names: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), names)
        assert names["plan"].max_batch_size > 0  # type: ignore[attr-defined]


def test_the_readmes_recipe_is_one(tmp_path: Path) -> None:
    from memfit.recipe.toml import load_recipe

    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "recipe.toml").write_text(text)
    assert load_recipe(tmp_path / "recipe.toml").global_batch == 256


def test_the_documents_are_not_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util
    import sys

    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 0
