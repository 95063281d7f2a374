"""What was found in a snapshot, as the document that the page reads."""

from __future__ import annotations

from typing import Any

from memfit.explain.attribution import FOUND_PARTS
from memfit.explain.explained import Explained
from memfit.explain.part_rules import Sure
from memfit.page.documents.plan import PHASES, interned

__all__ = ["EXPLAIN_SCHEMA_VERSION", "explain_document"]

EXPLAIN_SCHEMA_VERSION = 1


def explain_document(explained: Explained) -> dict[str, Any]:
    """A snapshot's device with the tape's columns, as plain values for JSON.

    The columns are those of a plan's tape; ``module`` is the user's own code that made the
    allocation. What was there before the trace is allocated by the first events. Sizes are
    ``constant`` and every ``slope`` is 0. Beyond a plan's columns there are ``times_us``,
    ``allocated`` and ``reserved`` by event, and ``sure`` by allocation (an index into
    ``sure_names``). The last of ``parts`` is ``"unknown"``.

    Args:
        explained: one device of a snapshot.
    """
    return {
        "schema_version": EXPLAIN_SCHEMA_VERSION,
        "kind": "explain",
        "name": explained.name,
        "device": explained.device,
        "devices": explained.devices,
        "sure_names": [level.name.lower() for level in Sure],
        "tape": _tape(explained),
        "summary": explained.to_dict(),
        "facts": explained.facts,
    }


def _tape(explained: Explained) -> dict[str, Any]:
    history, found = explained.history, explained.attribution
    count = len(history.sizes_bytes)
    made_by = [
        (found.labels.get(note), found.facts[stack])
        for note, stack in zip(history.notes, history.stacks, strict=True)
    ]
    strings, (operators, modules, dtypes) = interned(
        [
            [a.operator.removesuffix(".default") if a else b.operator for a, b in made_by],
            [a.module if a else b.where for a, b in made_by],
            [a.dtype if a else "" for a, _ in made_by],
        ]
    )
    shapes, (shape_column,) = interned([[a.shape if a else () for a, _ in made_by]])
    return {
        "parts": list(FOUND_PARTS),
        "phases": [str(phase) for phase in PHASES],
        "strings": strings,
        "shapes": [[[size, 0] for size in shape] for shape in shapes],
        "part": list(found.parts),
        "phase": list(found.phases),
        "step": list(found.steps),
        "operator": operators,
        "module": modules,
        "dtype": dtypes,
        "shape": shape_column,
        "constant": list(history.sizes_bytes),
        "slope": [0] * count,
        "sure": list(found.sure),
        "events": list(history.events),
        "marks": [[m.position, m.step, PHASES.index(m.phase)] for m in found.marks],
        "ruled": {"batches": [], "entries": []},
        "times_us": list(history.times_us),
        "allocated": list(history.allocated_bytes),
        "reserved": list(history.reserved_bytes),
    }
