"""Neither Ctrl-C nor a killed memfit leaves anything: no process, no folder, no change."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

PARENT = """
import json, sys
from memfit.scripts.process import run_script
from memfit.scripts.told.job import ScriptJob
run_script(ScriptJob(**json.loads(sys.argv[1])), {}, lambda text: print(text, flush=True))
"""
SCRIPT = """
from pathlib import Path
import subprocess, sys, time
Path("checkpoint.bin").write_bytes(bytes(1000))
Path("train.py").write_text("overwritten")
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print("ready", flush=True)
try:
    time.sleep(1000)
except KeyboardInterrupt:
    Path("interrupted.bin").write_bytes(bytes(10))
    print("saved", flush=True)
"""


def rooms_of(process: int) -> list[Path]:
    places = (Path("/tmp"), Path("/var/tmp"))
    return [room for place in places for room in place.glob(f"memfit-run-{process}-*")]


def start(folder: Path, protection: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A memfit whose script has written, and all the processes below it."""
    (folder / "train.py").write_text(SCRIPT)
    job = f'{{"script": "train.py", "folder": "{folder}", "protection": "{protection}"}}'
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, job], stdout=subprocess.PIPE, text=True, cwd=folder
    )
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "ready"
    return parent, psutil.Process(parent.pid).children(recursive=True)


@pytest.mark.parametrize("protection", ["auto", "python"])
def test_ctrl_c(tmp_path: Path, protection: str) -> None:
    parent, below = start(tmp_path, protection)
    assert len(below) >= 3
    assert rooms_of(parent.pid)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=30)
    assert parent.returncode == -signal.SIGINT
    assert not psutil.wait_procs(below, 10)[1]
    assert not rooms_of(parent.pid)
    assert list(tmp_path.iterdir()) == [tmp_path / "train.py"]
    assert (tmp_path / "train.py").read_text() == SCRIPT


@pytest.mark.skipif(sys.platform != "linux", reason="nobody ends a child with its parent elsewhere")
def test_killed(tmp_path: Path) -> None:
    parent, below = start(tmp_path, "auto")
    parent.kill()
    parent.communicate(timeout=10)
    assert not psutil.wait_procs(below, 10)[1]
    assert list(tmp_path.iterdir()) == [tmp_path / "train.py"]
    assert rooms_of(parent.pid)
    subprocess.run(  # the next run sweeps
        [sys.executable, "-c", PARENT, f'{{"script": "gone.py", "folder": "{tmp_path}"}}'],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert not rooms_of(parent.pid)
