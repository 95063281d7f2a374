"""``memfit gpus``: the catalogue of cards."""

from __future__ import annotations

from memfit.commands.shared.flags import JsonFlag
from memfit.commands.shared.output import show, show_json
from memfit.errors import ExitCode

__all__ = ["gpus"]


def gpus(*, as_json: JsonFlag = False) -> int:
    """The catalogue of cards.

    Parameters
    ----------
    as_json:
        Print the catalogue as JSON and nothing else.
    """
    from dataclasses import asdict

    from memfit.cards.catalogue import gpus as catalogue
    from memfit.cards.services import services

    cards, offers = catalogue().values(), services().values()
    if as_json:
        rows = {"gpus": [c.to_dict() for c in cards], "services": [asdict(s) for s in offers]}
        show_json({"schema_version": 1} | rows)
    else:
        from memfit.report.plan.cards import render_gpus

        show(lambda console: render_gpus(cards, offers, console))
    return ExitCode.OK
