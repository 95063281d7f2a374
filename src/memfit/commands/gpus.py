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
    from memfit.cards.catalogue import gpus as catalogue

    if as_json:
        show_json({"schema_version": 1, "gpus": [card.to_dict() for card in catalogue().values()]})
    else:
        from memfit.report.plan.cards import render_gpus

        show(lambda console: render_gpus(catalogue().values(), console))
    return ExitCode.OK
