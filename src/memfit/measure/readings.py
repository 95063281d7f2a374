"""What the driver says of the whole GPU: this process's share, and who else is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from memfit.cards.readings import GPUReading, ProcessReading, read_gpus
from memfit.errors import NoGPU

__all__ = ["Reading", "Use", "read_use", "use_of"]


@dataclass(frozen=True, slots=True)
class Use:
    """The whole GPU at one moment.

    Args:
        used_bytes: by all processes, as ``nvidia-smi`` shows.
        listed_bytes: by this process, where the driver lists it under its own number.
        processes: all that the driver lists, as (number, command).
        before: the reading from before this process came to the GPU.
    """

    used_bytes: int
    listed_bytes: int | None
    processes: tuple[tuple[int, str], ...]
    before: Use | None = None

    @property
    def own_bytes(self) -> int | None:
        """What this process takes: as listed, else what the GPU holds more than before.

        In a container the driver's process numbers are not ours, and some drivers list no sizes.
        None where neither can be told: there is no reading from before, or others are there, who
        take and give back while we look.
        """
        if self.listed_bytes is not None:
            return self.listed_bytes
        if self.before is None or self.others:
            return None
        return self.used_bytes - self.before.used_bytes

    @property
    def others(self) -> tuple[str, ...]:
        """Other processes, by command: all from before, and of new ones all but this one."""
        was = dict(self.before.processes) if self.before else {}
        new = [(pid, command) for pid, command in self.processes if pid not in was]
        own = next((p for p in new if p[0] == os.getpid()), new[0] if new else None)
        rest = [*was.items(), *(p for p in new if p != own)]
        return tuple(f"{command or 'a process'} (pid {pid})" for pid, command in rest)


#: Reads a GPU by NVML's number, given the reading from before; None where nobody answers.
Reading = Callable[[int, Use | None], Use | None]


def read_use(index: int, before: Use | None = None) -> Use | None:
    """Ask NVML about one GPU; None without an answer."""
    try:
        (gpu,) = read_gpus(index)
    except NoGPU:
        return None
    return use_of(gpu, before)


def use_of(gpu: GPUReading, before: Use | None) -> Use:
    """A reading as seen from this process."""
    own = next((p for p in gpu.processes if p.pid == os.getpid()), None)
    listed = None if own is None else own.used_bytes
    return Use(gpu.used_bytes, listed, tuple(_named(p) for p in gpu.processes), before)


def _named(process: ProcessReading) -> tuple[int, str]:
    """The program alone: arguments may hold what a record must not."""
    words = process.command.split()
    return process.pid, os.path.basename(words[0]) if words else ""  # noqa: PTH119
