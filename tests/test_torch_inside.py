"""Only one file of memfit knows PyTorch from inside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import memfit
from memfit import torch_inside

SOURCE = Path(memfit.__file__).parent
FILES = sorted(set(SOURCE.rglob("*.py")) - {Path(torch_inside.__file__)})

#: Private names of others than PyTorch.
NOT_TORCH = {
    ("models/transformers_models.py", "_model_mapping"),
    ("memory/recording/cuda_names.py", "_getframe"),
    ("memory/recording/values.py", "_getframe"),
    ("scripts/child/session.py", "_exit"),
}


def private_names(tree: ast.AST) -> Iterator[str]:
    """Private names that a file takes from elsewhere: imported, or of an object, and not its own.

    Operators, such as ``torch.ops.aten._softmax``, are named by their schema.
    """
    own = {
        node.name if isinstance(node, ast.FunctionDef) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parts = [*(node.module or "").split("."), *(name.name for name in node.names)]
        elif isinstance(node, ast.Import):
            parts = [part for name in node.names for part in name.name.split(".")]
        elif isinstance(node, ast.Attribute) and not _is_own(node.value):
            parts = [] if node.attr in own else [node.attr]
        else:
            continue
        yield from (p for p in parts if p.startswith("_") and not p.startswith("__"))


def _is_own(value: ast.expr) -> bool:
    text = ast.unparse(value)
    return text in ("self", "cls", "super()") or text.rpartition(".")[2] in ("aten", "_aten")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_other_file_uses_a_private_name_of_torch(path: Path) -> None:
    text, name = path.read_text(), path.relative_to(SOURCE).as_posix()
    if "torch" in text:
        assert {(name, found) for found in private_names(ast.parse(text))} <= NOT_TORCH


@pytest.mark.parametrize(
    "text",
    ["torch._C.f()", "tensor._cdata", "from torch.utils._pytree import a", "import torch._dynamo",
     "from torch.nn.modules.batchnorm import _BatchNorm", "torch._foreach_copy_(a, b)"],
)  # fmt: skip
def test_private_names_are_found(text: str) -> None:
    assert list(private_names(ast.parse(text)))


def test_own_names_and_operators_are_not() -> None:
    text = "self._a; torch.ops.aten._softmax\nclass C:\n def _b(self, other): other._b()"
    assert not list(private_names(ast.parse(text)))


def test_every_name_exists_in_the_installed_torch() -> None:
    """The functions that no other test calls in a process without a GPU."""
    assert callable(torch.cuda.memory._set_allocator_settings)
    assert callable(torch.cuda.memory._record_memory_history)
    assert callable(torch.cuda.memory._snapshot)
    assert callable(torch.cuda._get_nvml_device_index)
    assert callable(torch.cuda._lazy_call)
    inside: Any = torch._C
    if torch.version.cuda is not None:
        assert callable(inside._cuda_attach_out_of_memory_observer)
    assert torch_inside.backward_task() == -1
    assert torch_inside.running_node() is None
