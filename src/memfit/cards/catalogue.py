"""The GPU catalogue: how much memory a card has, and what CUDA itself takes of it.

The cards and the readings behind every constant are in ``gpus.toml``. Nothing here needs torch, a
driver or a GPU; :func:`local_gpu` asks the driver through NVML when there is one.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from memfit.cards.services import services
from memfit.errors import UnknownGPU
from memfit.units import GIB, MIB, parse_bytes

__all__ = ["GPU", "context_bytes", "gpu", "gpus", "gpus_named", "local_gpu"]

# The context grows with the threads that can be resident at once (multiprocessors times threads per
# multiprocessor): the driver backs the local memory of each. Fitted to the "lazy" context readings
# of gpus.toml; "bare" readings, without PyTorch's kernels, lie on 38 MiB + 1875 B per thread.
CONTEXT_BASE_BYTES = 30 * MIB
CONTEXT_BYTES_PER_THREAD = 2400
# Before lazy loading (CUDA 11.7) every kernel of PyTorch, cuDNN and cuBLAS was copied to the card;
# cards without tensor cores (before Volta) have fewer. Fitted to the "eager" readings.
EAGER_KERNELS_BYTES = 960 * MIB
EAGER_KERNELS_BEFORE_VOLTA_BYTES = 420 * MIB

# Between a full process and the card's total_memory: 2 to 15 MiB, 8 in the mean, in eight
# out-of-memory messages (total, less free, less "memory in use") from cards with no display.
IDLE_BYTES = 8 * MIB

# nvidia-smi's total less CUDA's total_memory: what the driver keeps. Fitted to the cards of
# gpus.toml that have a reading, most of them from drivers 550 and newer; used for the others only.
# From Turing on the driver runs firmware on the card and keeps more.
RESERVED_BYTES, RESERVED_BYTES_PER_GIB = 390 * MIB, 5 * MIB // 2
RESERVED_BEFORE_TURING_BYTES, RESERVED_BEFORE_TURING_BYTES_PER_GIB = 10 * MIB, 8 * MIB
# Where memory is the system's, too (Jetson), firmware and kernel keep 3, 5 and 5.4 % in the three
# readings of gpus.toml; the others are taken to keep the most of these.
RESERVED_SHARE_OF_SHARED = 18

# A custom size stands for an Ampere card of the 8.6 family, whose desktop members have 1.75 to 6.8
# multiprocessors per GiB (median 3.4) and 9 to 13 GB/s for each multiprocessor.
_CUSTOM_CAPABILITY = (8, 6)
_CUSTOM_MULTIPROCESSORS_PER_GIB = 4
_CUSTOM_MULTIPROCESSORS = 84
_CUSTOM_GB_PER_S_PER_MULTIPROCESSOR = 11.0

_VENDOR_WORDS = ("nvidia", "geforce", "tesla", "quadro", "rtx", "gtx")
_SIZE = re.compile(r"\s*-?[0-9.]+\s*([kmgt]i?b?|b)\s*", re.IGNORECASE)
_SIZE_IN_GB = re.compile(r".*[kmgt]b\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GPU:
    """A GPU as a training process sees it.

    Args:
        key: what users type, such as ``"rtx-3060"``.
        name: the driver's name, with the memory where cards share a name.
        aliases: other spellings that :func:`gpu` accepts, beside any case, space or dash.
        total_bytes: ``torch.cuda.get_device_properties().total_memory`` on Linux.
        usable_bytes: what one process may take on an idle card without a display, its CUDA context
            included.
        multiprocessors: streaming multiprocessors.
        compute_capability: such as ``(8, 6)``.
        architecture: such as ``"Ampere"``.
        bandwidth_gb_per_s: memory bandwidth, decimal GB/s.
        context_bytes: estimate of the CUDA context of a PyTorch process at work, modules loaded
            lazily (CUDA 11.7 and newer).
        context_source: where that estimate comes from.
        l2_cache_bytes: L2 cache, where known.
        total_source: where ``total_bytes`` comes from.
        is_custom: not a card of the catalogue: a size the user gave, or read from the driver.
        is_shared: the memory is the system's, too.
    """

    key: str
    name: str
    aliases: tuple[str, ...]
    total_bytes: int
    usable_bytes: int
    multiprocessors: int
    compute_capability: tuple[int, int]
    architecture: str
    bandwidth_gb_per_s: float
    context_bytes: int
    context_source: str
    l2_cache_bytes: int | None = None
    total_source: str = ""
    is_custom: bool = False
    is_shared: bool = False

    @property
    def capacity_bytes(self) -> int:
        """The most that PyTorch's allocator may reserve: what is left beside the CUDA context."""
        return self.usable_bytes - self.context_bytes

    @property
    def eager_context_bytes(self) -> int:
        """The context with every kernel loaded: CUDA before 11.7, or CUDA_MODULE_LOADING=EAGER."""
        tensor_cores = self.compute_capability >= (7, 0)
        kernels = EAGER_KERNELS_BYTES if tensor_cores else EAGER_KERNELS_BEFORE_VOLTA_BYTES
        return self.context_bytes + kernels

    def to_dict(self, *names: str) -> dict[str, Any]:
        """Plain values for JSON under the names of the attributes: all, or those asked for."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {name: plain[name] for name in names or plain}

    def with_free_bytes(self, free_bytes: int) -> GPU:
        """The same card, of which only so much is free."""
        return replace(self, usable_bytes=free_bytes, is_custom=True)


class _Catalogue(Mapping[str, GPU]):
    """Cards by key in the order of the file; any spelling of a card finds it, too."""

    def __init__(self, by_key: dict[str, GPU], by_device: dict[str, list[GPU]]) -> None:
        self._by_key = by_key
        self._by_device = by_device
        self._by_spelling = {device: cards[0] for device, cards in by_device.items()}
        for service in services().values():
            self._by_spelling[_spelling(service.name)] = by_key[service.cards[0]]
        for card in by_key.values():
            for name in (card.key, card.name, *card.aliases):
                self._by_spelling[_spelling(name)] = card

    def __getitem__(self, name: str) -> GPU:
        spelling = _spelling(name)
        if spelling in self._by_spelling:
            return self._by_spelling[spelling]
        close = difflib.get_close_matches(spelling, self._by_spelling, n=3, cutoff=0.6)
        nearest = dict.fromkeys(self._by_spelling[match].key for match in close)
        hint = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
        hint += "`memfit gpus` lists all; a size such as 11GiB stands for any other card."
        raise UnknownGPU("GPU", name, self._by_key, hint=hint)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

    def of_device(self, device: str, total_bytes: int) -> GPU | None:
        """The card that the driver calls ``device``: of those that share the name, by memory."""
        cards = self._by_device.get(_spelling(device), [])
        near = [c for c in cards if abs(c.total_bytes - total_bytes) < c.total_bytes // 8]
        return min(near, key=lambda c: abs(c.total_bytes - total_bytes), default=None)


def gpus() -> Mapping[str, GPU]:
    """The catalogue, in the order of its file.

    Iterating gives the keys; ``[]``, ``in`` and ``get`` take any spelling that :func:`gpu` takes.
    What is missing raises :class:`UnknownGPU`, which is a ``KeyError`` too.

    >>> gpus()["RTX 3090"].multiprocessors
    82
    """
    return _catalogue()


def gpu(name: str) -> GPU:
    """A card of the catalogue, or one with the memory that was given.

    Args:
        name: a key, an alias or the driver's name, in any case and with any spaces and dashes
            (``"3060"``, ``"RTX3060"``, ``"NVIDIA GeForce RTX 3060"``); the usual card of a service
            (``"colab"``); or a size with a unit (``"11GiB"``; ``"11GB"`` and ``"11g"`` are the same
            here): a card of the Ampere family with that much usable memory.

    Raises:
        UnknownName: no such card; names the nearest.
        UsageError: a size that is not positive.

    >>> gpu("3060").key, gpu("11GiB").usable_bytes == 11 * GIB, gpu("24GB").name
    ('rtx-3060', True, 'GPU with 24GB = 24 GiB')
    """
    if name not in gpus() and _SIZE.fullmatch(name):
        return _custom(parse_bytes(name, of_card=True), name)
    return gpus()[name]


def gpus_named(names: str) -> list[GPU]:
    """Cards with commas between them; the name of a service stands for all that it offers.

    Raises:
        UnknownName: no such card.
        UsageError: a size that is not positive.

    >>> [card.key for card in gpus_named("rtx-3060,kaggle")]
    ['rtx-3060', 't4', 'p100']
    """
    found: dict[str, GPU] = {}
    for name in names.split(","):
        service = services().get(name.strip().lower())
        for each in service.cards if service else (name,):
            card = gpu(each)
            found.setdefault(card.key, card)
    return list(found.values())


def context_bytes(multiprocessors: int, compute_capability: tuple[int, int]) -> int:
    """Estimate of what a PyTorch process takes outside the allocator, modules loaded lazily.

    Args:
        multiprocessors: streaming multiprocessors of the card.
        compute_capability: such as ``(8, 6)``; one that is not known counts as the newest known
            before it.
    """
    threads = multiprocessors * _capability(compute_capability)["threads"]
    return int(CONTEXT_BASE_BYTES + CONTEXT_BYTES_PER_THREAD * threads)


def local_gpu(index: int = 0) -> tuple[GPU, int] | None:
    """A GPU that CUDA would use here, and its free bytes, without making a CUDA context.

    ``CUDA_VISIBLE_DEVICES`` is heeded; without it devices are counted in NVML's order.

    Args:
        index: as in ``cuda:0``.

    Returns:
        The card of the catalogue (or one made from the driver's figures when the catalogue does not
        have it) and the bytes free on it now; None without a driver or a GPU.
    """
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except ImportError:
        return None
    except nvml.NVMLError:
        return None
    try:
        device = _visible_device(nvml, index)
        return None if device is None else _read_device(nvml, device)
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("gpus.toml").read_text(encoding="utf-8"))


@cache
def _catalogue() -> _Catalogue:
    families = _tables()["family"]
    rows = [(tuple(f["compute_capability"]), row) for f in families for row in f["gpus"]]
    names = [row["devices"][0] for _, row in rows]
    by_key: dict[str, GPU] = {}
    by_device: dict[str, list[GPU]] = {}
    for capability, row in rows:
        card = _from_row(capability, row, name_is_shared=names.count(row["devices"][0]) > 1)
        by_key[card.key] = card
        for device in row["devices"]:
            by_device.setdefault(_spelling(device), []).append(card)
    return _Catalogue(by_key, by_device)


def _from_row(capability: tuple[int, int], row: dict[str, Any], *, name_is_shared: bool) -> GPU:
    device = row["devices"][0]
    total_bytes, total_source = _total(capability, row)
    return GPU(
        key=row["key"],
        name=f"{device} {row['gib']}GB" if name_is_shared else device,
        aliases=_aliases(row),
        total_bytes=total_bytes,
        usable_bytes=total_bytes - IDLE_BYTES,
        multiprocessors=row["sm"],
        compute_capability=capability,
        architecture=_capability(capability)["architecture"],
        bandwidth_gb_per_s=float(row["gbps"]),
        context_bytes=context_bytes(row["sm"], capability),
        context_source="fitted to public readings: 30 MiB + 2400 B per resident thread",
        l2_cache_bytes=int(row["l2_mib"] * MIB) if "l2_mib" in row else None,
        total_source=total_source,
        is_shared=row.get("shared", False),
    )


def _aliases(row: dict[str, Any]) -> tuple[str, ...]:
    """Other names of the driver, those of the row, and the key with the memory on the box."""
    size = f"{row['gib']}gb"
    named = row["key"] if size in row["key"] else f"{row['key']}-{size}"
    return tuple(dict.fromkeys([*row["devices"][1:], *row.get("aliases", ()), named]))


def _total(capability: tuple[int, int], row: dict[str, Any]) -> tuple[int, str]:
    """``total_memory`` as it was printed, or the nominal memory less what the driver keeps."""
    if "total_bytes" in row or "total_mib" in row:
        return row.get("total_bytes") or row["total_mib"] * MIB, row["total_source"]
    nominal_bytes = row["gib"] * GIB
    if row.get("ecc"):
        nominal_bytes -= nominal_bytes // 16
    if row.get("shared"):
        total_bytes = nominal_bytes - nominal_bytes // RESERVED_SHARE_OF_SHARED
        return total_bytes // MIB * MIB, "nominal, less what the system keeps on similar boards"
    smi_bytes = row["smi_mib"] * MIB if "smi_mib" in row else nominal_bytes
    fixed, per_gib = RESERVED_BYTES, RESERVED_BYTES_PER_GIB
    if capability < (7, 5):
        fixed, per_gib = RESERVED_BEFORE_TURING_BYTES, RESERVED_BEFORE_TURING_BYTES_PER_GIB
    total_bytes = smi_bytes - fixed - per_gib * row["gib"]
    return total_bytes // MIB * MIB, "nominal, less what the driver keeps on similar cards"


def _custom(usable_bytes: int, typed: str) -> GPU:
    multiprocessors = _CUSTOM_MULTIPROCESSORS_PER_GIB * usable_bytes // GIB
    multiprocessors = min(max(multiprocessors, 1), _CUSTOM_MULTIPROCESSORS)
    size = f"{usable_bytes / GIB:.4g} GiB"
    return GPU(
        key=size.replace(" ", "").lower(),
        name=f"GPU with {typed.strip()} = {size}"
        if _SIZE_IN_GB.fullmatch(typed)
        else f"GPU with {size}",
        aliases=(),
        total_bytes=usable_bytes,
        usable_bytes=usable_bytes,
        multiprocessors=multiprocessors,
        compute_capability=_CUSTOM_CAPABILITY,
        architecture=_capability(_CUSTOM_CAPABILITY)["architecture"],
        bandwidth_gb_per_s=_CUSTOM_GB_PER_S_PER_MULTIPROCESSOR * multiprocessors,
        context_bytes=context_bytes(multiprocessors, _CUSTOM_CAPABILITY),
        context_source=f"assumed: an Ampere card (8.6) with {multiprocessors} multiprocessors",
        total_source="given",
        is_custom=True,
    )


def _capability(version: tuple[int, int]) -> dict[str, Any]:
    """The row of a compute capability, or of the newest one before it."""
    rows: list[dict[str, Any]] = _tables()["compute_capability"]
    return next((r for r in reversed(rows) if tuple(r["version"]) <= version), rows[0])


def _spelling(name: str) -> str:
    """A name without case, spaces and dashes, and without the words that every name has."""
    spelling = re.sub(r"[^a-z0-9]", "", name.lower()).removesuffix("gpu")
    for word in _VENDOR_WORDS:
        spelling = spelling.removeprefix(word)
    return re.sub(r"(\d)g(ib)?$", r"\1gb", spelling.replace("mobile", "laptop"))


def _visible_device(nvml: ModuleType, index: int) -> Any | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index)] * (index + 1) if visible is None else visible.split(",")
    chosen = names[index].strip() if index < len(names) else ""
    if chosen.startswith("GPU-"):
        return nvml.nvmlDeviceGetHandleByUUID(chosen)
    if not chosen.isdecimal() or int(chosen) >= nvml.nvmlDeviceGetCount():
        return None
    return nvml.nvmlDeviceGetHandleByIndex(int(chosen))


def _read_device(nvml: ModuleType, device: Any) -> tuple[GPU, int]:
    memory = nvml.nvmlDeviceGetMemoryInfo(device, version=nvml.nvmlMemory_v2)
    total_bytes = memory.total - memory.reserved
    name = nvml.nvmlDeviceGetName(device)
    card = _catalogue().of_device(name, total_bytes)
    return card or _from_driver(nvml, device, name, total_bytes), memory.free


def _from_driver(nvml: ModuleType, device: Any, name: str, total_bytes: int) -> GPU:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(device)
    capability = _capability((major, minor))
    multiprocessors = nvml.nvmlDeviceGetNumGpuCores(device) // capability["cores"]
    # Two transfers a clock, as in NVIDIA's deviceQuery sample.
    memory_mhz = nvml.nvmlDeviceGetMaxClockInfo(device, nvml.NVML_CLOCK_MEM)
    bus_bytes = nvml.nvmlDeviceGetMemoryBusWidth(device) / 8
    return GPU(
        key="local",
        name=name,
        aliases=(),
        total_bytes=total_bytes,
        usable_bytes=total_bytes - IDLE_BYTES,
        multiprocessors=multiprocessors,
        compute_capability=(major, minor),
        architecture=capability["architecture"],
        bandwidth_gb_per_s=2 * memory_mhz * bus_bytes / 1000,
        context_bytes=context_bytes(multiprocessors, (major, minor)),
        context_source="fitted to public readings of other cards",
        total_source="NVML",
        is_custom=True,
    )
