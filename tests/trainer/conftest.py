"""Places that a process without rights can reach."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which any user may make files; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="memfit-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)
