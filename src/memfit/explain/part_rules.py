"""Which part an allocation belongs to, by who made it and how long it lived.

The rules are read from the top and the first that holds decides. Lifetimes follow from how
autograd and the optimizers work (``torch/csrc/autograd/engine.cpp``, ``torch/optim/optimizer.py``,
torch 2.15): what forward saves is freed when backward has used it, gradients stay until
``zero_grad``, state is made once in ``step``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, auto

from memfit.explain.places import Place
from memfit.memory.tape.tape import Part, Phase

__all__ = ["PART_RULES", "Life", "PartRule", "Sure"]


class Sure(IntEnum):
    """How sure it is that an allocation belongs to its part."""

    CERTAIN = 0  # our own export, or a stack with one meaning
    LIKELY = 1  # from lifetimes and sizes
    UNKNOWN = 2


class Life(Enum):
    """How long an allocation lived, in stretches of one phase each."""

    WITHIN = auto()  # freed in the stretch that made it
    BACKWARD = auto()  # freed in the backward that follows
    LATER = auto()  # freed after that
    OPEN = auto()  # there at the end, and so is the stretch that made it
    STAYS = auto()  # there at the end; the stretch that made it is long over
    KEPT = auto()  # outlives two optimizer steps


_LONG = frozenset({Life.BACKWARD, Life.LATER, Life.STAYS, Life.KEPT})
_ANY = frozenset(Life)


@dataclass(frozen=True, slots=True)
class PartRule:
    """One rule.

    Args:
        part: what the allocation is; None for unknown.
        sure: how sure that is.
        lives: lifetimes that it holds for.
        phase: of the stack or the stretch; None for any.
        place: that the stack goes through; None for any.
        freed_in: place that the stack of the free goes through; None for any.
    """

    part: Part | None
    sure: Sure
    lives: frozenset[Life] = _ANY
    phase: Phase | None = None
    place: Place | None = None
    freed_in: Place | None = None


_CERTAIN, _LIKELY, _UNKNOWN = Sure.CERTAIN, Sure.LIKELY, Sure.UNKNOWN
_WITHIN = frozenset({Life.WITHIN})
_OPEN = frozenset({Life.OPEN})
_D, _F, _B, _O = Phase.DATA, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER

PART_RULES: tuple[PartRule, ...] = (
    PartRule(Part.WORKSPACES, _CERTAIN, place=Place.WORKSPACE),
    PartRule(Part.GRADIENTS, _CERTAIN, phase=_B, freed_in=Place.ZERO_GRAD),
    PartRule(Part.GRADIENTS, _CERTAIN, place=Place.BUCKET),
    PartRule(Part.PARAMETERS, _CERTAIN, place=Place.GATHER),
    # the optimizer
    PartRule(Part.OPTIMIZER, _CERTAIN, phase=_O, place=Place.OPTIMIZER_STATE),
    PartRule(Part.TEMPORARIES, _CERTAIN, _WITHIN, _O),
    PartRule(Part.TEMPORARIES, _LIKELY, _ANY, _O, Place.CLIP),
    PartRule(Part.TEMPORARIES, _LIKELY, _OPEN, _O),
    PartRule(Part.OPTIMIZER, _CERTAIN, _LONG, _O, Place.OPTIMIZER),
    PartRule(Part.OPTIMIZER, _LIKELY, _LONG, _O),
    # backward
    PartRule(Part.ACTIVATIONS, _CERTAIN, phase=_B, place=Place.RECOMPUTE),
    PartRule(Part.GRADIENTS, _CERTAIN, _LONG | _OPEN, _B, Place.ACCUMULATE_GRAD),
    PartRule(Part.TEMPORARIES, _CERTAIN, _WITHIN, _B, Place.BACKWARD),
    PartRule(Part.TEMPORARIES, _LIKELY, _WITHIN, _B),
    PartRule(Part.GRADIENTS, _LIKELY, _LONG, _B),
    PartRule(Part.TEMPORARIES, _LIKELY, _OPEN, _B),
    # making and moving the model; before forward, because modules call both
    PartRule(Part.TEMPORARIES, _LIKELY, _WITHIN, _D, Place.BUILD),
    PartRule(Part.PARAMETERS, _CERTAIN, _ANY, _D, Place.BUILD),
    # forward
    PartRule(Part.TEMPORARIES, _CERTAIN, _WITHIN, _F, Place.FORWARD),
    PartRule(Part.TEMPORARIES, _LIKELY, _WITHIN, _F),
    PartRule(Part.ACTIVATIONS, _CERTAIN, frozenset({Life.BACKWARD}), _F, Place.FORWARD),
    PartRule(None, _UNKNOWN, frozenset({Life.KEPT}), _F),
    PartRule(Part.ACTIVATIONS, _LIKELY, _ANY, _F),
    # the data
    PartRule(Part.TEMPORARIES, _LIKELY, _WITHIN, _D),
    PartRule(None, _UNKNOWN, frozenset({Life.KEPT}), _D),
    PartRule(Part.BATCH, _CERTAIN, _ANY, _D, Place.LOADER),
    PartRule(Part.BATCH, _LIKELY, _ANY, _D),
    PartRule(None, _UNKNOWN),
)
