"""The house rules that a machine can hold: floors, names, documents."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import memfit

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "memfit"

#: A module imports only from lower floors, or its own.
FLOORS = {
    "errors": 1, "units": 1,
    "data": 2, "precision": 2, "models": 2, "recipe": 2, "catalogue": 2,
    "gpu_readings": 2,
    "memory": 3,
    "planner": 4, "api": 4, "explain": 4,
    "trainer": 5, "report": 5, "measure": 5,
    "study": 6, "web": 6,
    "cli": 7, "flags": 7, "commands": 7, "__main__": 8, "__init__": 0,
}  # fmt: skip
WITHOUT_TORCH = (
    "errors.py", "units.py", "recipe.py", "catalogue.py", "cli.py", "flags.py",
    "commands/plans.py", "commands/runs.py", "commands/studies.py",
    "memory/tape.py", "memory/timeline.py", "memory/allocator.py", "planner/search.py",
    "planner/learning_rate.py",
)  # fmt: skip


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def floor_of(module: str) -> int:
    parts = module.split(".")
    return FLOORS[parts[1]] if len(parts) > 1 else 0


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.name)
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own == "__init__":
        return  # names are loaded when asked for
    for module in imports_of(path):
        if module.startswith("memfit"):
            assert floor_of(module) <= FLOORS[own], f"{own} imports {module}"


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
    import memfit.catalogue
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
    from memfit.recipe import load_recipe

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
