"""Frames between the server and a worker process; nothing on the way is ever unpickled.

To the worker go lines of JSON: ``{"number": 3, "job": "plan", ...}``. From it come frames of a
header and bytes that the server passes on as they are.
"""

from __future__ import annotations

import struct
from enum import IntEnum

__all__ = ["HEADER", "LARGEST_FRAME_BYTES", "Kind", "frame"]

#: Length of the payload in bytes, number of the request, kind.
HEADER = struct.Struct(">IIB")

#: A tape of a million events is a tenth of it.
LARGEST_FRAME_BYTES = 1 << 30


class Kind(IntEnum):
    """What a frame from a worker is."""

    HELLO = 0  # warm; what it knows, as JSON
    PROGRESS = 1  # JSON
    RESULT = 2  # bytes
    ERROR = 3  # JSON: message and hint
    CANCELLED = 4
    ABSENT = 5  # not to be answered at once: ask for it as a job


def frame(kind: Kind, number: int, payload: bytes = b"") -> bytes:
    """A whole frame.

    >>> len(frame(Kind.CANCELLED, 3))
    9
    """
    return HEADER.pack(len(payload), number, kind) + payload
