"""Packages of the ``models`` extra, imported only when a model of theirs is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any

from memfit.errors import ModelError

__all__ = ["is_installed", "optional_package"]


def is_installed(name: str) -> bool:
    """Whether the package can be imported; it is not imported."""
    return importlib.util.find_spec(name) is not None


def optional_package(name: str) -> Any:
    """The imported package.

    Raises:
        ModelError: it is not installed.
    """
    if not is_installed(name):
        raise ModelError(
            f"{name} is not installed.", hint='Install it: pip install "memfit[models]"'
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations, nothing the user could change
        return importlib.import_module(name)
