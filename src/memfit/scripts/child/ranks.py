"""One rank of many in one process: what ``torchrun`` sets, and a process group without others.

The backend ``fake`` comes with torch for its own tests (``fake_pg.py``, torch 2.11 to 2.15): every
collective ends at once. DDP's buckets and FSDP's shards are real; NCCL's own buffers are not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

import torch.distributed
import torch.multiprocessing
from torch.distributed import device_mesh, distributed_c10d
from torch.nn.parallel import DistributedDataParallel

__all__ = ["play_ranks"]


def play_ranks(ranks: int | None, note: Callable[[str], None]) -> None:
    """From here on, this process is rank 0 of however many the script asks for.

    Args:
        ranks: as ``torchrun`` would start; the script's own number when None.
        note: is told that it was played.
    """
    if ranks is not None:
        os.environ |= {
            "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
        }  # fmt: skip
    _play_group(note)
    _average_alone()
    _play_spawn(ranks)


def _play_group(note: Callable[[str], None]) -> None:
    init = distributed_c10d.init_process_group

    @wraps(init)
    def init_alone(*args: Any, **kwargs: Any) -> None:
        given = int(kwargs.get("world_size", -1))
        world = given if given > 0 else int(os.environ.get("WORLD_SIZE", "0"))
        if not world or not torch.distributed.is_available():
            init(*args, **kwargs)  # says what it misses
            return
        store = import_module("torch.testing._internal.distributed.fake_pg").FakeStore()
        init("fake", store=store, rank=0, world_size=world)
        note(f"Rank 0 of {world} was played: collectives do nothing, NCCL's buffers are not there.")

    modules: tuple[Any, ...] = (distributed_c10d, torch.distributed, device_mesh)
    for module in modules:
        if hasattr(module, "init_process_group"):
            module.init_process_group = init_alone


def _average_alone() -> None:
    """DDP takes its buckets back as they are: the fake group's work has no result for it."""
    make = DistributedDataParallel.__init__
    register = DistributedDataParallel.register_comm_hook

    @wraps(make)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        register(self, None, lambda _, bucket: _done(bucket.buffer()))

    DistributedDataParallel.__init__ = init  # type: ignore[method-assign]
    DistributedDataParallel.register_comm_hook = lambda *_: None  # type: ignore[method-assign]


def _done(value: Any) -> torch.futures.Future[Any]:
    done: torch.futures.Future[Any] = torch.futures.Future()
    done.set_result(value)
    return done


def _play_spawn(ranks: int | None) -> None:
    """A script that starts one process for each GPU runs the first in this one."""
    spawn: Any = torch.multiprocessing.spawn  # type: ignore[attr-defined]

    @wraps(spawn)
    def run_first(fn: Any, args: Any = (), nprocs: int = 1, *more: Any, **kwargs: Any) -> Any:
        if ranks is None and nprocs != 1:
            return spawn(fn, args, nprocs, *more, **kwargs)
        return fn(0, *args)

    torch.multiprocessing.spawn = run_first  # type: ignore[attr-defined]
