"""Bytes as people read them: binary units, spelled so (1 GiB = 1024³ bytes)."""

from __future__ import annotations

import re

from memfit.errors import UsageError

__all__ = ["GIB", "KIB", "MIB", "TIB", "format_bytes", "parse_bytes"]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_FACTORS = {
    "": 1,
    "b": 1,
    "k": KIB, "kib": KIB, "kb": 1000,
    "m": MIB, "mib": MIB, "mb": 1000**2,
    "g": GIB, "gib": GIB, "gb": 1000**3,
    "t": TIB, "tib": TIB, "tb": 1000**4,
}  # fmt: skip
#: The box of a card says GB and counts in binary: an RTX 3090 with 24 GB has 24,576 MiB.
_FACTORS_OF_A_CARD = _FACTORS | {"kb": KIB, "mb": MIB, "gb": GIB, "tb": TIB}


def format_bytes(size_bytes: int) -> str:
    """A size with the unit that leaves 1 to 4 digits before the point.

    >>> format_bytes(407_080), format_bytes(200_704), format_bytes(512)
    ('397.5 KiB', '196.0 KiB', '512 B')
    """
    magnitude = abs(size_bytes)
    for factor, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if magnitude >= factor:
            digits = 2 if unit == "GiB" else 1
            return f"{size_bytes / factor:,.{digits}f} {unit}"
    return f"{size_bytes} B"


def parse_bytes(text: str, *, of_card: bool = False) -> int:
    """``"11GiB"``, ``"512 MiB"``, ``"24GB"`` (decimal), ``"11g"`` (binary) or plain bytes.

    Args:
        text: as typed, in any case.
        of_card: the memory of a card, of which people say GB and mean GiB.

    Raises:
        UsageError: the text is no size, or not positive.

    >>> parse_bytes("11GiB"), parse_bytes("24GB"), parse_bytes("24GB", of_card=True) == 24 * GIB
    (11811160064, 24000000000, True)
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", text)
    factors = _FACTORS_OF_A_CARD if of_card else _FACTORS
    factor = factors.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise UsageError(f"{text!r} is not a size.", hint="Write it like 11GiB, 512MiB or 24GB.")
    size_bytes = int(float(match[1]) * factor)
    if size_bytes <= 0:
        raise UsageError(f"{text!r} is not a positive size.")
    return size_bytes
