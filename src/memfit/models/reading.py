"""What importing a user's file would do, read from its text: nothing is run to find out.

A file of models is imports, constants, functions and classes; importing it is harmless. A script
trains when it is imported, and writes its checkpoints. What is refused is what the statements of a
file reach, through the functions and modules of its folder, without ``__name__ == "__main__"``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

__all__ = ["Deed", "assigns", "file_of", "first_deed"]

_PARSES = {
    "parse_args", "parse_known_args", "parse_intermixed_args", "parse_args_into_dataclasses",
    "docopt", "Fire", "fire.Fire", "typer.run", "tyro.cli", "app.run", "getopt.getopt", "input",
}  # fmt: skip
#: Decorators that make of a function one that parses arguments when it is called.
_COMMANDS = re.compile(r"\b(click|hydra|app|cli|typer)\.(command|main|group)\b")
_WRITES = {
    "torch.save", "np.save", "np.savez", "np.savetxt", "numpy.save", "joblib.dump", "save_image",
    "write_text", "write_bytes", "savefig", "imsave", "to_csv", "to_parquet", "save_pretrained",
    "mkdir", "makedirs", "touch", "unlink", "os.remove", "os.rename", "os.replace", "shutil.move",
    "shutil.copy", "shutil.copyfile", "shutil.copytree", "rmtree", "SummaryWriter", "wandb.init",
    "urlretrieve",
}  # fmt: skip
_STARTS = {
    "spawn", "os.system", "subprocess.run", "subprocess.call", "subprocess.Popen",
    "subprocess.check_call", "subprocess.check_output", "init_process_group", "notebook_launcher",
}  # fmt: skip
_TRAINERS = re.compile(r"trainer|learn|runner|engine", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that importing a file would do.

    Args:
        path: the file in which it is.
        line: of that file, from 1.
        does: such as ``"trains"``, with the line of the function that does it.
    """

    path: Path
    line: int
    does: str


def first_deed(path: Path, attribute: str, roots: tuple[Path, ...]) -> Deed | None:
    """The first thing that importing a file would do beside defining; None where it is harmless.

    Args:
        path: a Python file.
        attribute: a function of it that will be called, or something else of no interest.
        roots: folders of its own modules; those that it imports are read, too.
    """
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        file = _File.read(waiting.pop(0))
        if file is None or file.path in seen:
            continue
        seen.add(file.path)
        reader = _Reader(roots)
        deed = reader.of(file, file.tree.body)
        if deed is None and file.path == path and attribute in file.functions:
            deed = reader.of(file, file.functions[attribute].body)
        if deed is not None:
            return deed
        waiting += file.imported_from(roots)
    return None


def assigns(path: Path, name: str) -> bool:
    """Whether importing a file makes an object of this name, rather than a function or a class."""
    file = _File.read(path)
    nodes = () if file is None else _executed(file.tree.body)
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
        for node in nodes
    )


@dataclass(frozen=True)
class _File:
    path: Path
    tree: ast.Module

    @classmethod
    def read(cls, path: Path) -> _File | None:
        """None where there is no such file, or it is no Python: importing it will say so."""
        try:
            return cls(path, ast.parse(path.read_bytes()))
        except (OSError, SyntaxError, ValueError):
            return None

    @cached_property
    def functions(self) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
        """Its functions, and the methods of its classes, by name."""
        return {
            node.name: node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }

    @cached_property
    def names(self) -> dict[str, tuple[str, str]]:
        """Names that it imports: the module, and the name in it (empty for the module itself)."""
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    found[name.asname or name.name.partition(".")[0]] = (name.name, "")
            elif isinstance(node, ast.ImportFrom):
                for name in node.names:
                    found[name.asname or name.name] = (node.module or "", name.name)
        return found

    def imported_from(self, roots: tuple[Path, ...]) -> list[Path]:
        """The files of these folders that importing this one imports."""
        modules = []
        for node in _executed(self.tree.body):
            if isinstance(node, ast.Import):
                modules += [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules.append(node.module or "")
                modules += [f"{node.module or ''}.{name.name}".strip(".") for name in node.names]
        return [path for module in modules if (path := file_of(module, roots)) is not None]


def file_of(module: str, roots: tuple[Path, ...]) -> Path | None:
    """The file of a module that lies below one of these folders; None of installed ones."""
    for root in roots:
        base = root.joinpath(*module.split(".")) if module else root
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


@dataclass
class _Reader:
    """Follows what runs, through the functions of the user's modules.

    Args:
        roots: where these are looked for.
    """

    roots: tuple[Path, ...]
    _called: set[int] = field(default_factory=set)

    def of(self, file: _File, body: Sequence[ast.stmt]) -> Deed | None:
        """The first deed of statements that run."""
        is_module = body is file.tree.body
        for node in _executed(body):
            does = "runs a loop" if is_module and isinstance(node, ast.While) else _does(node)
            if does:
                return Deed(file.path, getattr(node, "lineno", 0), does)
            if isinstance(node, ast.Call):
                deed = self._of_call(file, node)
                if deed is not None:
                    return deed
        return None

    def _of_call(self, file: _File, call: ast.Call) -> Deed | None:
        owner, function = self._called_by(file, call.func)
        if function is None or id(function) in self._called:
            return None
        if any(_COMMANDS.search(ast.unparse(d)) for d in function.decorator_list):
            return Deed(file.path, call.lineno, "parses arguments")
        self._called.add(id(function))
        deed = self.of(owner, function.body)
        if deed is None:
            return None
        cause = "" if "(" in deed.does else f" ({deed.path.name}, line {deed.line})"
        return Deed(file.path, call.lineno, deed.does + cause)

    def _called_by(self, file: _File, func: ast.expr) -> tuple[_File, Any]:
        """A function of the folder, and its file."""
        name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
        root = _dotted(func).partition(".")[0]
        if root in file.names:
            module, inner = file.names[root]
            path = file_of(module, self.roots)
            other = _File.read(path) if path is not None else None
            if other is not None:
                return other, other.functions.get(inner or name)
            if isinstance(func, ast.Attribute):  # of a library
                return file, None
        is_method = isinstance(func, ast.Attribute)
        return file, file.functions.get(name) if not is_method or root else None


def _executed(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Every node that runs when these statements do, in order."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _executed([*node.decorator_list, *node.args.defaults])
        elif isinstance(node, ast.Lambda):
            continue
        elif isinstance(node, ast.If) and _asks_for_main(node.test):
            yield from _executed(node.orelse)
        else:
            yield node
            yield from _executed(list(ast.iter_child_nodes(node)))


def _asks_for_main(test: ast.expr) -> bool:
    text = ast.unparse(test)
    return "__name__" in text and "__main__" in text and "!=" not in text


def _does(node: ast.AST) -> str:
    """What a node does beside defining; empty for most."""
    if isinstance(node, ast.For | ast.AsyncFor):
        return "runs over data" if "loader" in ast.unparse(node.iter).lower() else ""
    if isinstance(node, ast.Subscript):
        return "parses arguments" if _dotted(node.value) == "sys.argv" else ""
    return _call_does(node) if isinstance(node, ast.Call) else ""


def _call_does(call: ast.Call) -> str:
    dotted = _dotted(call.func)
    owner, _, name = dotted.rpartition(".")
    is_method = isinstance(call.func, ast.Attribute)
    if is_method and (name in ("backward", "step") or _is_fit(name, owner)):
        return "trains"
    if dotted == "torch.autograd.grad":
        return "trains"
    # As in parse_args([]): nothing of the command line is read.
    is_given = name.startswith("parse") and call.args and "argv" not in ast.unparse(call)
    if {name, dotted} & _PARSES and not (name == "input" and is_method) and not is_given:
        return "parses arguments"
    if {name, dotted} & _WRITES or _opens_for_writing(call, name, is_method=is_method):
        return "writes to the disk"
    if any(k.arg == "download" and _is_true(k.value) for k in call.keywords):
        return "downloads data"
    return "starts processes" if {name, dotted} & _STARTS else ""


def _is_fit(name: str, owner: str) -> bool:
    if name.startswith("fit"):
        return bool(_TRAINERS.search(owner)) or owner.endswith("model")
    return name == "train" and bool(_TRAINERS.search(owner))


def _opens_for_writing(call: ast.Call, name: str, *, is_method: bool) -> bool:
    if name != "open":
        return False
    is_path = is_method and _dotted(call.func) not in ("io.open", "gzip.open", "codecs.open")
    position = 0 if is_path else 1
    modes = [k.value for k in call.keywords if k.arg == "mode"]
    modes += call.args[position : position + 1]
    texts = [str(mode.value) for mode in modes if isinstance(mode, ast.Constant)]
    return any(set("wax+") & set(text) for text in texts)


def _is_true(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def _dotted(node: ast.expr) -> str:
    """``"torch.save"``; what is no name is left out, the last attribute stays."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else node.attr
    return _dotted(node.func) if isinstance(node, ast.Call) else ""
