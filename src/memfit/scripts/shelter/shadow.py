"""Without help of the kernel: Python's functions for files work on copies in a folder apart.

What a script writes lies there under its own absolute path and reads back; what it deletes is
remembered. Python's audit events are the net below: whatever would still change a file elsewhere,
or connect to another machine, is refused. Compiled code that opens files itself is not held.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from memfit.scripts.shelter.layers import deleted_of

__all__ = ["Shadow"]

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_KERNELS = ("/proc", "/sys", "/dev")
_LOOPBACK = ("127.", "::1", "localhost")
#: Audit events of functions that change what a path names, with the places of the paths.
_CHANGES = {
    "os.remove": (0,), "os.rename": (0, 1), "os.mkdir": (0,), "os.rmdir": (0,), "os.link": (1,),
    "os.symlink": (1,), "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,),
}  # fmt: skip


class Shadow:
    """A folder that stands before the disk.

    Args:
        folder: for what is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.deleted: set[str] = set()
        self._os = {name: getattr(os, name) for name in _ALL}
        self._open = io.open

    def install(self) -> None:
        """From here on, this process writes nowhere else."""
        os.makedirs(self.folder, exist_ok=True)
        for name in _READS:
            setattr(os, name, self._reading(self._os[name]))
        for name in _CHANGES_ONE:
            setattr(os, name, self._changing(self._os[name]))
        os.mkdir = self._mkdir
        os.remove = os.unlink = self._remove
        os.rmdir = self._rmdir
        os.rename = os.replace = self._rename  # type: ignore[assignment]
        os.symlink = self._linking(self._os["symlink"])
        os.link = self._linking(self._os["link"])
        os.listdir = self._listdir
        os.scandir = self._scandir
        os.open = self._open_number
        builtins.open = io.open = self._open_file
        shutil._use_fd_functions = False  # type: ignore[attr-defined]
        sys.addaudithook(self._audit)

    # -- where a path lies ---------------------------------------------------------------------

    def _absolute(self, path: Any) -> str | None:
        """A path as the script knows it; None for numbers and the kernel's."""
        if isinstance(path, int):
            return None
        full: str = os.path.abspath(os.fsdecode(path)).removeprefix(self.folder) or "/"
        return None if full.startswith(tuple(f"{kernels}/" for kernels in _KERNELS)) else full

    def _copy_of(self, full: str) -> str:
        return self.folder + full

    def _has(self, path: str) -> bool:
        try:
            self._os["lstat"](path)
        except OSError:
            return False
        return True

    def _is_folder(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(self._os["stat"](path).st_mode)
        except OSError:
            return False

    def _to_read(self, path: Any) -> Any:
        full = self._absolute(path)
        if full is None:
            return path
        is_gone = any(full == gone or full.startswith(f"{gone}/") for gone in self.deleted)
        copy = self._copy_of(full)
        if self._has(copy) and (is_gone or not self._is_folder(full)):
            return copy
        if is_gone:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), full)
        return full

    def to_write(self, path: Any, *, keeps: bool = True) -> Any:
        """The copy; what was there is copied first where it is kept."""
        full = self._absolute(path)
        if full is None:
            return path
        copy = self._copy_of(full)
        if not self._has(copy):
            self._make_parents(full)
            is_there = full not in self.deleted and os.path.isfile(full)
            if keeps and is_there:
                with self._open(full, "rb") as old, self._open(copy, "wb") as new:
                    shutil.copyfileobj(old, new)
        self.deleted.discard(full)
        return copy

    def _note_deleted(self, full: str) -> None:
        self.deleted.add(full)
        with self._open(deleted_of(Path(self.folder)), "a", encoding="utf-8") as file:
            file.write(f"{full}\n")

    def _make_parents(self, full: str) -> None:
        parent = os.path.dirname(full)
        if not os.path.isdir(parent):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), full)
        missing = []
        while not self._has(self._copy_of(parent)):
            missing.append(parent)
            parent = os.path.dirname(parent)
        for one in reversed(missing):
            self._os["mkdir"](self._copy_of(one))

    # -- functions instead of Python's ---------------------------------------------------------

    def _open_file(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if set(mode) & set("wax+"):
            file = self.to_write(file, keeps="w" not in mode)
        else:
            file = self._to_read(file)
        return self._open(file, mode, *args, **kwargs)

    def _open_number(self, path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if kwargs.get("dir_fd") is None:
            path = self.to_write(path) if flags & _WRITES else self._to_read(path)
        number: int = self._os["open"](path, flags, *args, **kwargs)
        return number

    def _reading(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def read(path: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("dir_fd") is not None:
                return function(path, *args, **kwargs)
            return function(self._to_read(path), *args, **kwargs)

        return read

    def _changing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def change(path: Any, *args: Any, **kwargs: Any) -> Any:
            self._to_read(path)
            return function(self.to_write(path), *args, **kwargs)

        return change

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        full = self._absolute(path)
        if full is None or dir_fd is not None:
            self._os["mkdir"](path, mode, dir_fd=dir_fd)
            return
        if os.path.lexists(full):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), full)
        self._os["mkdir"](self.to_write(full), mode)

    def _remove(self, path: Any, *, dir_fd: int | None = None) -> None:
        full = self._absolute(path)
        if full is None or dir_fd is not None:
            self._os["remove"](path, dir_fd=dir_fd)
            return
        found = self._to_read(full)
        if found == self._copy_of(full):
            self._os["remove"](found)
        elif not self._has(full):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), full)
        self._note_deleted(full)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        full = self._absolute(path)
        if full is None or dir_fd is not None:
            self._os["rmdir"](path, dir_fd=dir_fd)
            return
        if self._listdir(full):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), full)
        if self._has(self._copy_of(full)):
            self._os["rmdir"](self._copy_of(full))
        self._note_deleted(full)

    def _rename(self, source: Any, target: Any, **kwargs: Any) -> None:
        full = self._absolute(source)
        if full is None or kwargs:
            self._os["rename"](source, target, **kwargs)
            return
        if os.path.isdir(full) and not self._has(self._copy_of(full)):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), full)  # shutil.move copies then
        self._os["rename"](self.to_write(full), self.to_write(target, keeps=False))
        self._note_deleted(full)

    def _linking(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A link leads to the copy: through it nobody writes to what is below."""

        @wraps(function)
        def link(source: Any, target: Any, *args: Any, **_: Any) -> None:
            beside = os.path.join(os.path.dirname(os.fsdecode(target)), os.fsdecode(source))
            full = self._absolute(beside)
            if full is not None and os.path.isdir(full):
                self._make_parents(f"{full}/.")
            function(self.to_write(beside), self.to_write(target, keeps=False), *args)

        return link

    def _listdir(self, path: Any = ".") -> list[Any]:
        if isinstance(path, int):
            listed: list[Any] = self._os["listdir"](path)
            return listed
        return sorted(self._entries(path))

    def _entries(self, path: Any) -> dict[str, os.DirEntry[str]]:
        """Entries of a folder by name: the copies stand before what is below."""
        full = self._absolute(path) or os.fsdecode(path)
        found: dict[str, os.DirEntry[str]] = {}
        copy = self._copy_of(full)
        if full not in self.deleted and self._has(full):
            for entry in self._os["scandir"](full):
                if f"{full.rstrip('/')}/{entry.name}" not in self.deleted:
                    found[entry.name] = entry
        elif not self._has(copy):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), full)
        if self._has(copy):
            found |= {entry.name: entry for entry in self._os["scandir"](copy)}
        return found

    def _scandir(self, path: Any = ".") -> Any:
        if isinstance(path, int):
            return self._os["scandir"](path)
        return _Entries(self._entries(path), os.fsdecode(path))

    # -- the net below -------------------------------------------------------------------------

    def _audit(self, event: str, values: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(values[0], (str, bytes)):
            if isinstance(values[2], int) and values[2] & _WRITES:
                self._refuse(values[0])
        elif event in _CHANGES:
            for place in _CHANGES[event]:
                self._refuse(values[place])
        elif event == "socket.connect":
            host = values[1][0] if isinstance(values[1], tuple) else "localhost"
            if not str(host).startswith(_LOOPBACK):
                raise OSError(errno.ENETUNREACH, "memfit lets a script reach no network")

    def _refuse(self, path: Any) -> None:
        full = os.path.abspath(os.fsdecode(path)) if not isinstance(path, int) else ""
        if full and not full.startswith(
            (f"{os.path.dirname(self.folder)}/", *(f"{k}/" for k in _KERNELS))
        ):
            raise PermissionError(errno.EPERM, "memfit keeps a script from changing", full)


class _Entries:
    """``os.scandir`` of a folder and its copy."""

    def __init__(self, found: dict[str, os.DirEntry[str]], path: str) -> None:
        self._left = iter([_Entry(entry, os.path.join(path, n)) for n, entry in found.items()])

    def __iter__(self) -> Iterator[_Entry]:
        return self._left

    def __next__(self) -> _Entry:
        return next(self._left)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """All was read already."""


class _Entry:
    """A ``DirEntry`` under the path that the script knows."""

    def __init__(self, entry: os.DirEntry[str], path: str) -> None:
        self._entry = entry
        self.path = path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)

    def __fspath__(self) -> str:
        return self.path


_READS = ("stat", "lstat", "access", "readlink", "chdir", "statvfs")
_CHANGES_ONE = ("chmod", "utime", "truncate")
_ALL = (
    *_READS, *_CHANGES_ONE, "mkdir", "remove", "rmdir", "rename", "link", "symlink", "listdir",
    "scandir", "open",
)  # fmt: skip
