"""Scripts as people write them, run on a card that is not there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memfit.cards.catalogue import gpu
from memfit.errors import NoStubs
from memfit.scripts.process import on_card, run_script
from memfit.scripts.told.answer import Answer
from memfit.scripts.told.job import ScriptJob

SAMPLES = Path(__file__).parent / "samples"
CARD = gpu("rtx-3090")

RunSample = Callable[..., Answer]


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything in a folder: mode, time of change, content."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    try:
        return dict(on_card(CARD))
    except NoStubs as error:
        pytest.skip(f"PyTorch itself does not run here without a GPU: {error.message}")


@pytest.fixture
def run_sample(run_script_in: RunSample, environment: dict[str, str]) -> RunSample:
    """Run a sample, or code, on PyTorch itself."""

    def run(*words: str, **options: Any) -> Answer:
        card = options.pop("environment", {})
        return run_script_in(environment | card, *words, **options)

    return run


@pytest.fixture
def run_script_in(tmp_path: Path) -> RunSample:
    """Run a sample, or code, in a folder that must be afterwards what it was before."""

    def run(
        environment: dict[str, str], name: str, *arguments: str, code: str = "", **options: Any
    ) -> Answer:
        if code:
            (tmp_path / name).write_text(code, encoding="utf-8")
        else:
            shutil.copy(SAMPLES / name, tmp_path / name)
        before = state_of(tmp_path)
        job = ScriptJob(name, arguments, str(tmp_path), **options)
        answer = run_script(job, environment)
        assert state_of(tmp_path) == before
        return answer

    return run
