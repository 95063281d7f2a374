"""Processes behind stub libraries that were built for these tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memfit.cards.catalogue import gpu
from memfit.errors import NoStubs
from memfit.virtual_cuda.child import child_environment
from memfit.virtual_cuda.stubs import Stubs, build_stubs

CARD = gpu("rtx-3060")
END = "import os, sys; sys.stdout.flush(); os._exit(0)"

Child = Callable[..., Any]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def stubs(cache: Path) -> Stubs:
    try:
        return build_stubs(cache / "memfit")
    except NoStubs as error:
        pytest.skip(f"PyTorch itself does not run here without a GPU: {error.message}")


@pytest.fixture
def run_child(stubs: Stubs) -> Child:
    """Run code behind the stubs; what it prints last is JSON."""

    def run(code: str, **options: Any) -> Any:
        here = dict(os.environ)
        environment = here | child_environment(stubs, CARD, **options)
        done = subprocess.run(
            [sys.executable, "-c", f"import json, torch\nfrom torch import nn\n{code}\n{END}"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert dict(os.environ) == here
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
