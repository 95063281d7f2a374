"""The user's own model: ``path/to/file.py:NAME``, ``package.module:NAME`` or a callable.

NAME is a function, a class or an ``nn.Module`` instance. It is called with nothing, or with
``num_classes`` and ``input_shape`` where its signature has them.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from memfit.elsewhere import cuda_is
from memfit.errors import MemfitError, ModelError, UserCodeError
from memfit.models.meta import construct_on_meta, is_for_training, random_state_kept
from memfit.models.only_defining import only_building, only_defining, refuse_deeds
from memfit.models.reading import assigns, file_of

__all__ = [
    "called", "construct_from_callable", "construct_from_spec", "example_beside", "import_object",
    "where_raised",
]  # fmt: skip

_load_count = itertools.count()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an object of the user's is: a file or a module, and the name in it."""

    spec: str
    where: str
    attribute: str
    path: Path | None

    @classmethod
    def of(cls, spec: str) -> _Place:
        where, _, attribute = spec.rpartition(":")
        if not attribute.isidentifier():
            raise ModelError(
                f"{spec!r} does not say what to use.",
                hint="Write path/to/file.py:NAME or package.module:NAME.",
            )
        path = Path(where).resolve() if _is_path(where) else None
        if path is not None and not path.is_file():
            raise ModelError(f"There is no file {path}.")
        return cls(spec, where, attribute, path)

    @contextmanager
    def importable(self) -> Iterator[None]:
        """What the user's code raises becomes an error with its place; its prints are messages."""
        file = self.path or _module_file(self.where)
        try:
            with redirect_stdout(sys.stderr), _importing_from(
                self.path.parent if self.path else Path.cwd()
            ):  # fmt: skip
                yield
        except ModuleNotFoundError as error:
            if self.path is None and error.name and f"{self.where}.".startswith(f"{error.name}."):
                raise ModelError(
                    f"There is no Python module {error.name!r} here or among the installed "
                    "packages.",
                    hint="Run memfit in the folder that holds it, or pass path/to/file.py:NAME.",
                ) from error
            raise _user_code_error(error, file, self.spec) from error
        except MemfitError:
            raise
        except (Exception, SystemExit) as error:
            raise _user_code_error(error, file, self.spec) from error

    @property
    def folders(self) -> tuple[Path, ...]:
        """From which it imports modules of its own."""
        return (self.path.parent,) if self.path else (Path.cwd(),)

    def load(self, *, builds: bool = True) -> Any:
        """What is named; its file is read first, and imported where that only defines.

        Args:
            builds: whether it makes a model: then it may not write, and has shapes only.
        """
        file = self.path or file_of(self.where, self.folders)
        if file is None:  # installed
            return _attribute(importlib.import_module(self.where), self.attribute, self.where)
        refuse_deeds(file, self.attribute if builds else "", (*self.folders, file.parent))
        is_made = builds and assigns(file, self.attribute)  # on import: with shapes only
        found = _attribute(self._imported(file, is_made), self.attribute, self.where)
        if isinstance(found, nn.Module) and is_for_training():  # its weights are drawn here
            found = _attribute(self._import(), self.attribute, self.where)
        return found

    def module(self) -> ModuleType:
        """Where it is, already read and imported by :meth:`load`."""
        file = self.path or file_of(self.where, self.folders)
        if file is None:
            return importlib.import_module(self.where)
        return self._imported(file, assigns(file, self.attribute))

    def _imported(self, file: Path, is_made: bool) -> ModuleType:
        """The module, imported once as long as no file of it changes."""
        known = _imports.get((self.where, file, is_made))
        if known is not None and known.is_fresh():
            return known.module
        before = set(sys.modules)
        with random_state_kept():
            module = construct_on_meta(self._import) if is_made else self._import()
        assert isinstance(module, ModuleType)
        own = {sys.modules[name] for name in set(sys.modules) - before}
        files = {Path(m.__file__) for m in own if _lies_in(m, self.folders[0]) and m.__file__}
        _imports[self.where, file, is_made] = _Import(
            module, {path: _stamp(path) for path in {file, *files}}
        )
        return module

    def _import(self) -> ModuleType:
        with cuda_is("cpu"), only_defining():
            return _import_file(self.path) if self.path else importlib.import_module(self.where)


@dataclass(frozen=True)
class _Import:
    """A module, and when the files were written that it came from."""

    module: ModuleType
    stamps: dict[Path, tuple[int, int]]

    def is_fresh(self) -> bool:
        return all(_stamp(path) == stamp for path, stamp in self.stamps.items())


_imports: dict[tuple[str, Path, bool], _Import] = {}


def _stamp(path: Path) -> tuple[int, int]:
    """When it was written, and its size; zeros where it is gone."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_mtime_ns, state.st_size


def import_object(spec: str, *, builds: bool = True) -> Any:
    """What ``path/to/file.py:NAME`` or ``package.module:NAME`` names.

    Args:
        spec: the file or module, and the name in it.
        builds: whether it makes a model: then it may not write, and what importing it makes has
            shapes only.

    Raises:
        ModelError: no such file, module or attribute.
        UserCodeError: importing it raised.
    """
    place = _Place.of(spec)
    with place.importable():
        return place.load(builds=builds)


def called(maker: Callable[..., Any], name: str) -> Any:
    """What the user's function or class yields, called without arguments.

    Raises:
        ModelError: it needs some.
        UserCodeError: it raised.
    """
    try:
        with redirect_stdout(sys.stderr):
            return _call(maker, name, None, None)
    except MemfitError:
        raise
    except Exception as error:
        raise _user_code_error(error, _source_file(maker), name) from error


def where_raised(error: BaseException, source: object) -> str:
    """What the user's code raised, and where in its own file: for one line.

    Args:
        error: that was raised.
        source: the function or class whose file it is.
    """
    text = str(_user_code_error(error, _source_file(source), "it"))
    return " ".join(text.split())


def example_beside(spec: str) -> Callable[[int], Any] | None:
    """The ``example_batch`` of the file or module that a model's spec names; None without one."""
    place = _Place.of(spec)
    with place.importable():
        found = getattr(place.module(), "example_batch", None)
    return found if callable(found) else None


def construct_from_spec(
    spec: str, input_shape: tuple[int, ...] | None, num_classes: int | None
) -> nn.Module:
    """Import what ``spec`` names and build it, parameters on meta where that is possible.

    Raises:
        ModelError: no such file, module or attribute, or it yields no ``nn.Module``.
        UserCodeError: the user's code raised.
    """
    place = _Place.of(spec)
    with place.importable():
        builder = place.load()
        built = _built(builder, spec, input_shape, num_classes)
    return _checked_module(built, spec)


def construct_from_callable(
    builder: Callable[..., object], input_shape: tuple[int, ...] | None, num_classes: int | None
) -> nn.Module:
    """Build what a function or class returns, parameters on meta where that is possible.

    Raises:
        ModelError: it needs other arguments, or yields no ``nn.Module``.
        UserCodeError: it raised.
    """
    name = getattr(builder, "__qualname__", type(builder).__qualname__)
    try:
        built = _built(builder, name, input_shape, num_classes)
    except MemfitError:
        raise
    except Exception as error:
        raise _user_code_error(error, _source_file(builder), name) from error
    return _checked_module(built, name)


def _built(
    builder: Any, name: str, input_shape: tuple[int, ...] | None, num_classes: int | None
) -> object:
    """What a builder returns; ``"cuda"`` in it means where it is built, and nothing trains."""
    with cuda_is("cpu"), only_building():
        return construct_on_meta(lambda: _call(builder, name, input_shape, num_classes))


def _is_path(where: str) -> bool:
    return where.endswith(".py") or "/" in where or "\\" in where


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Put ``folder`` on the import path; afterwards forget what was imported from it.

    Two projects may both have a ``layers.py``, and a file may change between two loads. No
    bytecode is written: the folder may be read-only, and it is not ours.
    """
    before = set(sys.modules)
    write_no_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code may have taken it off
            sys.path.remove(str(folder))
        sys.dont_write_bytecode = write_no_bytecode
        for name in set(sys.modules) - before:
            if _lies_in(sys.modules[name], folder) and not name.startswith("memfit_user_"):
                del sys.modules[name]


def _lies_in(module: ModuleType, folder: Path) -> bool:
    file = Path(getattr(module, "__file__", None) or "/")
    return folder in file.parents and "site-packages" not in file.parts


def _import_file(path: Path) -> ModuleType:
    """Import ``path`` under a name of its own, so that it shadows nothing."""
    name = f"memfit_user_{path.stem}_{next(_load_count)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} is not a Python file.", hint="Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look classes up here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _attribute(module: ModuleType, attribute: str, where: str) -> Any:
    if hasattr(module, attribute):
        return getattr(module, attribute)
    defined = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, nn.Module))
    ]
    own = [
        name for name in defined if getattr(vars(module)[name], "__module__", "") == module.__name__
    ]
    nearest = difflib.get_close_matches(attribute, defined, n=4, cutoff=0.5) or own[:8]
    raise ModelError(
        f"{where} has no {attribute!r}.",
        hint=f"Did you mean {' or '.join(nearest)}?" if nearest else None,
    )


def _call(
    builder: Any, name: str, input_shape: tuple[int, ...] | None, num_classes: int | None
) -> object:
    """Call ``builder`` with what it asks for; a module instance is taken as it is."""
    if isinstance(builder, nn.Module):
        return builder
    if not callable(builder):
        raise ModelError(f"{name} is of type {type(builder).__name__}: neither model nor function.")
    try:
        parameters = dict(inspect.signature(builder).parameters)
    except ValueError:  # some classes implemented in C have no signature
        parameters = {}
    known = {"input_shape": input_shape, "num_classes": num_classes}
    given = {key: value for key, value in known.items() if key in parameters and value is not None}
    for parameter in parameters.values():
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if not optional and parameter.name not in given:
            raise _missing_argument(name, parameter.name)
    return builder(**given)


def _missing_argument(name: str, parameter: str) -> ModelError:
    if parameter in ("input_shape", "num_classes"):
        flag = f"--{parameter.replace('_', '-')}"
        return ModelError(
            f"{name} needs {parameter}.", hint=f"Say it with {flag}, or give a default."
        )
    return ModelError(
        f"{name} needs the argument {parameter!r}; memfit passes num_classes and input_shape only.",
        hint="Give it a default, or write a function without arguments that calls it.",
    )


def _checked_module(built: object, name: str) -> nn.Module:
    if isinstance(built, nn.Module):
        return built
    raise ModelError(
        f"{name} yields {type(built).__name__}, not an nn.Module.",
        hint="Return the model itself; memfit makes the loss and the optimizer.",
    )


def _user_code_error(error: BaseException, file: str | Path | None, name: str) -> UserCodeError:
    """What was raised and the innermost line of the user's file that led there."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if file and Path(frame.filename) == Path(file)]
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}, line {error.lineno}"
    elif own or frames:
        frame = (own or frames)[-1]
        place = f"{frame.filename}, line {frame.lineno}"
    else:
        place = str(file)
    reason = error.msg if isinstance(error, SyntaxError) else str(error)
    return UserCodeError(
        f"{name} raised {type(error).__name__}{': ' if reason else ''}{reason}\n  at {place}"
    )


def _module_file(where: str) -> str | None:
    try:
        spec = importlib.util.find_spec(where)
    except (ImportError, ValueError):
        return None
    return spec.origin if spec else None


def _source_file(builder: object) -> str | None:
    try:
        return inspect.getsourcefile(inspect.unwrap(builder))  # type: ignore[arg-type]
    except (TypeError, OSError):
        return None
