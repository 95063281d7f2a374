"""One checkpoint: a plain ``torch.save`` file that carries its own checksum.

``torch.save`` writes a zip file (torch 2.15, ``torch/serialization.py`` and
``caffe2/serialize/inline_container.cc``). A zip file may end in a comment, and the seal is that
comment: the format version and the SHA-256 of every byte before the digest. So one file holds
content and checksum, no kill can part them, and plain PyTorch reads it in two lines::

    state = torch.load("runs/x/checkpoints/last.pt", weights_only=True)
    model.load_state_dict(state["model"])

Tensors are stored for the CPU, so these lines work on a machine without a GPU.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from memfit.errors import CheckpointError, DamagedCheckpoint, OtherVersion
from memfit.files.durable import replacing, why_not_written

__all__ = [
    "SCHEMA_VERSION",
    "content_bytes",
    "load_checkpoint",
    "save_checkpoint",
    "unpickling_reason",
]

#: Of the checkpoint's content; counted up when an older memfit could not use it.
SCHEMA_VERSION = 1

_SEAL = re.compile(rb"(memfit checkpoint (\d{4}) sha256 )([0-9a-f]{64})")
_SEAL_SIZE = len(b"memfit checkpoint 0001 sha256 ") + 64
#: Size of a zip file's last record without its comment (APPNOTE.TXT 6.3.10, section 4.3.16); the
#: comment's length is in its last two bytes.
_ZIP_END_SIZE = 22
_CHUNK = 1 << 20
#: What ``weights_only`` loading accepts besides tensors and containers (torch 2.11 and 2.15,
#: ``torch/_weights_only_unpickler.py``).
_PLAIN = frozenset(
    {str, int, float, bool, complex, type(None), torch.dtype, torch.device, torch.Size}
)
#: It refuses whole numbers whose pickle needs LONG4, of 256 bytes and more.
_LARGEST_BITS = 2000
_NO_CHECKSUM = "its end, with the checksum, is missing: truncated, or not written by memfit"


def save_checkpoint(path: Path, content: dict[str, Any]) -> int:
    """Write a checkpoint so that at every moment the old or the new file is there, whole.

    Args:
        path: the file; its folder exists.
        content: tensors and plain values in dicts, lists, tuples and sets; ``schema_version``
            is added.

    Returns:
        The bytes written.

    Raises:
        CheckpointError: no space, no permission, or a value that could not be read back. The old
            file is untouched.
    """
    stored = _storable({"schema_version": SCHEMA_VERSION, **content}, "content", {})
    try:
        with replacing(path) as file:
            sealed = _SealedFile(file)
            torch.save(stored, cast("IO[bytes]", sealed))
            return sealed.finish()
    except OSError as error:
        raise CheckpointError(
            f"Cannot write the checkpoint {path}: "
            f"{why_not_written(error, path.parent, content_bytes(stored))}.",
            hint="Checkpoints written before are untouched. Make room or write elsewhere, "
            "then resume.",
        ) from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing is unpickled before the checksum agrees.

    Raises:
        DamagedCheckpoint: truncated, altered, or no checkpoint of memfit.
        OtherVersion: whole, but of a format that this memfit does not know.
        CheckpointError: it cannot be opened or read.
    """
    try:
        with path.open("rb") as file:
            _check_version(path, _checked_version(path, file))
            file.seek(0)
            return _unpickled(path, file)
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from None


def content_bytes(content: Any) -> int:
    """Bytes of the tensors in ``content``; storage that several tensors share counts once."""
    storages: dict[int, int] = {}
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
    return sum(storages.values())


def unpickling_reason(error: Exception) -> str:
    """What ``torch.load`` found, in a few words and without its advice to trust the file."""
    text = str(error)
    if foreign := re.search(r"Unsupported global: GLOBAL (\S+)", text):
        return f"it holds a {foreign[1]}, which is neither a tensor nor plain data"
    if "TorchScript" in text:
        return "it is a TorchScript program"
    if isinstance(error, RuntimeError) and text:
        return text.strip().splitlines()[0].partition(". ")[0].rstrip(".")
    return "it was not written by torch.save, or is damaged"


class _SealedFile:
    """What ``torch.save`` writes into: hashes, holds back the zip's end, and adds the seal.

    torch writes a file object strictly from start to end (``inline_container.cc`` checks the
    position of each write), so one pass is enough. A failed write is kept and raised in
    ``finish``: raised inside, it would come out of C++ as another error without its reason.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.failure: OSError | None = None
        self._file = file
        self._digest = hashlib.sha256()
        self._held = b""
        self._written_bytes = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        if size >= _ZIP_END_SIZE:
            self._put(self._held)
            self._put(view[:-_ZIP_END_SIZE])
            self._held = bytes(view[-_ZIP_END_SIZE:])
        else:
            joined = self._held + bytes(view)
            self._put(joined[:-_ZIP_END_SIZE])
            self._held = joined[-_ZIP_END_SIZE:]
        return size

    def flush(self) -> None:
        """Nothing to do: the file is flushed once it is whole."""

    def finish(self) -> int:
        assert self._held.startswith(b"PK\x05\x06") or self.failure, "torch.save wrote no zip file"
        self._put(self._held[:-2] + struct.pack("<H", _SEAL_SIZE))
        self._put(b"memfit checkpoint %04d sha256 " % SCHEMA_VERSION)
        self._put(self._digest.hexdigest().encode())
        if self.failure is not None:
            raise self.failure
        return self._written_bytes

    def _put(self, data: bytes | memoryview) -> None:
        if self.failure is not None:
            return
        self._digest.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            self.failure = error
        self._written_bytes += len(data)


def _checked_version(path: Path, file: BinaryIO) -> int:
    """The format version in the seal of a file whose checksum agrees."""
    size = os.fstat(file.fileno()).st_size
    if size < _SEAL_SIZE + _ZIP_END_SIZE:
        raise DamagedCheckpoint(path, f"only {size} bytes long" if size else "empty")
    file.seek(size - _SEAL_SIZE)
    seal = _SEAL.fullmatch(file.read(_SEAL_SIZE))
    if seal is None:
        raise DamagedCheckpoint(path, _NO_CHECKSUM)
    file.seek(0)
    digest = hashlib.sha256()
    remaining = size - len(seal[3])
    while remaining and (chunk := file.read(min(_CHUNK, remaining))):
        digest.update(chunk)
        remaining -= len(chunk)
    if remaining or digest.hexdigest().encode() != seal[3]:
        raise DamagedCheckpoint(path, "its content does not agree with its checksum")
    return int(seal[2])


def _check_version(path: Path, version: int) -> None:
    if version == SCHEMA_VERSION:
        return
    age = "a newer" if version > SCHEMA_VERSION else "an older"
    raise OtherVersion(
        f"{path} was written by {age} memfit: checkpoint format {version}; "
        f"this one reads format {SCHEMA_VERSION}.",
        hint="Use the memfit that wrote it (its version is in the run's run.json), or take the "
        'weights alone: torch.load(path, weights_only=True)["model"].',
    )


def _unpickled(path: Path, file: BinaryIO) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the unpickler raises whatever a strange pickle leads it to
        raise DamagedCheckpoint(path, unpickling_reason(error)) from None
    if not isinstance(content, dict):
        raise DamagedCheckpoint(path, f"it holds a {type(content).__name__}, not a dict")
    return content


def _storable(value: Any, where: str, moved: dict[Any, torch.Tensor]) -> Any:
    """``value`` with its tensors on the CPU; raises where loading would be refused."""
    if isinstance(value, torch.Tensor):
        return _cpu_tensor(value, where, moved)
    kind = type(value)
    if kind in _PLAIN and not (kind is int and value.bit_length() > _LARGEST_BITS):
        return value
    if kind in (dict, OrderedDict):
        stored = copy.copy(value)  # keeps a state dict's module versions, ``_metadata``
        for key, entry in value.items():
            _storable(key, f"a key of {where}", moved)
            stored[key] = _storable(entry, f"{where}[{key!r}]", moved)
        return stored
    if kind in (list, tuple):
        return kind(_storable(entry, f"{where}[{i}]", moved) for i, entry in enumerate(value))
    if kind is set:
        return {_storable(entry, f"an entry of {where}", moved) for entry in value}
    raise CheckpointError(
        f"{where} is a {kind.__module__}.{kind.__qualname__}; it could not be read back.",
        hint="Keep tensors, numbers, words and plain containers of them; for a numpy value, "
        "value.tolist(); for bytes, a uint8 tensor.",
    )


def _cpu_tensor(tensor: torch.Tensor, where: str, moved: dict[Any, torch.Tensor]) -> torch.Tensor:
    """The tensor on the CPU; two names of one tensor stay one."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_meta:
        kind = "on the meta device" if tensor.is_meta else f"a {type(tensor).__qualname__}"
        raise CheckpointError(
            f"The tensor {where} is {kind}; it has no values of its own to store.",
            hint="Gather sharded tensors first, see torch.distributed.checkpoint.state_dict.",
        )
    tensor = tensor.detach()
    if tensor.device.type == "cpu":
        return tensor
    place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
    if place not in moved:
        moved[place] = tensor.cpu()
    return moved[place]
