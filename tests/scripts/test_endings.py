"""Every way in which a script can end has a clear answer, and the disk is as it was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from memfit.cards.catalogue import gpu
from memfit.scripts.process import on_card
from memfit.scripts.told.answer import Answer, Protection, Status
from memfit.units import GIB

RunSample = Callable[..., Answer]
PROTECTIONS = ("auto", "python")

WRITE = "from pathlib import Path\nPath('log.txt').write_text('begun')\n"
STEPS = """
import torch
model = torch.nn.Linear(4096, 4096).cuda()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
def step(rows=64):
    model(torch.randn(rows, 4096, device="cuda")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_own_error(run_sample: RunSample, protection: str) -> None:
    code = f"{WRITE}import torch\ndef train():\n    open('gone/data.csv')\ntrain()\n"
    answer = run_sample("train.py", code=code, protection=protection)
    assert answer.status is Status.FAILED
    assert answer.message.startswith("FileNotFoundError")
    assert answer.place == "train.py:5"
    lines = answer.traceback.splitlines()
    assert [line for line in lines if "File" in line and "Error" not in line] == [
        line for line in lines if "train.py" in line
    ]
    assert [kept.path for kept in answer.kept] == ["log.txt"]
    assert answer.exit_code == 1


def test_a_fault_in_compiled_code_has_the_users_line(run_sample: RunSample) -> None:
    code = "import ctypes\ndef crash():\n    ctypes.string_at(0)\ncrash()\n"
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.CRASHED
    assert answer.place == "train.py:3"
    assert answer.message == "Its process was killed by SIGSEGV at train.py:3."


@pytest.mark.parametrize("protection", PROTECTIONS)
@pytest.mark.parametrize(
    ("end", "status", "exit_code"),
    [
        ("import os; os._exit(7)", Status.EXITED, 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Status.CRASHED, 0),
        ("raise KeyboardInterrupt", Status.EXITED, 130),
        ("import sys; sys.exit('no data')", Status.EXITED, 1),
        ("import argparse; argparse.ArgumentParser().parse_args(['x'])", Status.EXITED, 2),
        ("pass", Status.NO_TRAINING, 0),
    ],
)
def test_other_ends(
    run_sample: RunSample, protection: str, end: str, status: Status, exit_code: int
) -> None:
    answer = run_sample("train.py", code=f"{WRITE}{end}\n", protection=protection)
    assert (answer.status, answer.exit_code) == (status, exit_code), answer
    assert [kept.path for kept in answer.kept] == ["log.txt"]


def test_endless_loop(run_sample: RunSample) -> None:
    answer = run_sample("train.py", code=f"{WRITE}while True:\n    pass\n", limit_seconds=4.0)
    assert answer.status is Status.TIMED_OUT
    assert answer.place.startswith("train.py:")
    assert "had not made a step" in answer.message


def test_code_that_swallows_everything(run_sample: RunSample) -> None:
    code = "import time\nwhile True:\n    try:\n        time.sleep(1)\n    except BaseException:\n"
    answer = run_sample("train.py", code=f"{code}        pass\n", limit_seconds=2.0)
    assert answer.status is Status.TIMED_OUT


def test_finally_cannot_hang(run_sample: RunSample) -> None:
    code = f"{STEPS}import time\ntry:\n    while True: step()\nfinally:\n    time.sleep(1000)\n"
    answer = run_sample("train.py", code=code, after_seconds=2.0)
    assert answer.status is Status.STOPPED
    assert len(answer.steps) == 3
    assert answer.tape is None
    assert "did not end when it was asked to" in answer.message


def test_what_follows_the_loop_may_fail(run_sample: RunSample) -> None:
    code = (
        f"{STEPS}from torch.utils.data import DataLoader\n"
        "for _ in DataLoader(range(100), num_workers=3): step()\n"
        "raise ValueError('no history')\n"
    )
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.STOPPED
    assert any("no history" in note for note in answer.notes)


def test_out_of_memory_is_pytorchs_own(run_sample: RunSample, environment: dict[str, str]) -> None:
    code = f"{STEPS}step()\nfor rows in (2**16, 2**20):\n    step(rows)\n"
    small = dict(on_card(gpu("rtx-3090"), 4 * GIB))
    answer = run_sample("train.py", code=code, environment=small)
    assert answer.status is Status.OUT_OF_MEMORY
    assert answer.message.startswith("CUDA out of memory. Tried to allocate 16.00 GiB.")
    assert len(answer.steps) == 2
    assert answer.place == "train.py:6"


def test_steps_that_never_look_alike(run_sample: RunSample) -> None:
    code = f"{STEPS}for rows in range(1, 100):\n    step(512 * rows)\n"
    answer = run_sample("train.py", code=code, most_steps=5)
    assert answer.status is Status.STOPPED
    assert len(answer.steps) == 5


def test_processes_of_its_own(run_sample: RunSample) -> None:
    code = (
        "import torch.multiprocessing as mp\n"
        "def work(rank): print('rank', rank)\n"
        "if __name__ == '__main__':\n    mp.spawn(work, nprocs=2)\n"
    )
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.NO_TRAINING
    assert "processes" in answer.message
    assert "rank 0" in answer.output


def test_a_launchers_variables_are_missing(run_sample: RunSample) -> None:
    code = "import torch.distributed as dist\ndist.init_process_group('nccl')\n"
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.FAILED
    assert "RANK" in answer.message


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_no_network_but_its_own(run_sample: RunSample, protection: str) -> None:
    code = (
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname(), 2).close()\n"
        "try:\n    socket.create_connection(('192.0.2.1', 80), 2)\n"
        "except OSError as error:\n    print(type(error), error.errno)\n"
    )
    answer = run_sample("train.py", code=code, protection=protection)
    assert answer.status is Status.NO_TRAINING, answer
    assert "101" in answer.output


def test_a_terminal_is_there_and_nobody_at_it(run_sample: RunSample) -> None:
    code = (
        "import os, sys\n"
        "rows, columns = os.popen('stty size', 'r').read().split()\n"
        "assert sys.stdout.isatty() and (rows, columns) == ('24', '80')\n"
        "try:\n    input('Go on? ')\nexcept EOFError:\n    print('nobody')\n"
    )
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.NO_TRAINING, answer
    assert "nobody" in answer.output


def test_a_module(run_sample: RunSample) -> None:
    code = "import sys\nassert __name__ == '__main__'\nprint(sys.argv[1:], __file__)\nsys.exit(3)\n"
    answer = run_sample("train.py", code=code)
    assert answer.exit_code == 3
    assert answer.protection in Protection


def test_a_crash_tells_the_steps_before_it(run_sample: RunSample) -> None:
    code = f"{STEPS}import os\nstep()\nstep()\nos.kill(os.getpid(), 11)\n"
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.CRASHED
    assert "SIGSEGV" in answer.message
    assert len(answer.steps) == 2


def test_memory_that_was_denied_and_done_without(run_sample: RunSample) -> None:
    code = (
        f"{STEPS}for rows in (2**24, 64, 64, 64):\n    try:\n        step(rows)\n"
        "    except torch.OutOfMemoryError:\n        print('smaller')\n"
    )
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.STOPPED, answer
    assert "An allocation at train.py:6 failed for want of memory; the run went on." in answer.notes


def test_a_missing_data_set_has_advice(run_sample: RunSample) -> None:
    code = "from torchvision import datasets\ndatasets.CIFAR10('gone')\n"
    answer = run_sample("train.py", code=code)
    assert answer.status is Status.FAILED
    assert any("--fake-data" in note for note in answer.notes)


def test_nothing_of_the_script_is_imported_before_its_folder_is_entered() -> None:
    """``multiprocessing`` remembers the folder in which it was imported, and torch imports it."""
    code = (
        "import sys, memfit.scripts.child.__main__\n"
        "print({'torch', 'multiprocessing'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
