"""What a module exports: ``__all__`` misses nothing that is public."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import memfit

SOURCE = Path(__file__).parent.parent / "src" / "memfit"
TREES = {
    ".".join(("memfit", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SOURCE.rglob("*.py"))
    if path not in (SOURCE / "__init__.py", SOURCE / "__main__.py", SOURCE / "version.py")
}


def exported(module: str) -> set[str]:
    for node in TREES[module].body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


@pytest.mark.parametrize("module", sorted(TREES))
def test_public_functions_and_classes_are_exported(module: str) -> None:
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = {node.name for node in TREES[module].body if isinstance(node, defined)}
    assert {name for name in names if not name.startswith("_")} <= exported(module)


@pytest.mark.parametrize("module", sorted(TREES))
def test_only_what_is_exported_is_imported(module: str) -> None:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.module in TREES:
            names = {name.name for name in node.names}
            of_files = {name for name in names if f"{node.module}.{name}" in TREES}
            assert names - of_files <= exported(node.module)


@pytest.mark.parametrize("name", sorted(memfit.__all__))
def test_every_public_name_says_what_it_is(name: str) -> None:
    assert (getattr(memfit, name).__doc__ or name == "__version__").strip()
