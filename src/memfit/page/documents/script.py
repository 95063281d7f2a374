"""The plan of a script as plain data: a plan's document, and beside it what ran."""

from __future__ import annotations

from typing import Any

from memfit.page.documents.plan import plan_document
from memfit.scripts.plan import ScriptPlan

__all__ = ["script_document"]


def script_document(made: ScriptPlan) -> dict[str, Any]:
    """Everything that the page shows of a script.

    Args:
        made: what was found.

    Returns:
        The document of a plan, without a recipe; ``command`` runs the script again, ``script``,
        ``engine`` and ``made_up`` are those of ``memfit run --json``.
    """
    found = made.to_dict()
    document = plan_document(made.plan, options=made.found.options)
    own = {name: found[name] for name in ("fits", "recipe", "script", "engine", "made_up")}
    return document | own | {"command": made.script.command}
