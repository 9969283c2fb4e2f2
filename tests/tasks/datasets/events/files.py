"""Small recordings in each format, written by hand."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np

Event = tuple[int, int, int, bool]  # microseconds, column, row, ON


def some_events(count: int = 50, side: int = 128) -> list[Event]:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, side, (2, count)).tolist()
    t = np.sort(rng.integers(0, 1 << 20, count)).tolist()
    return list(zip(t, x, y, (rng.random(count) < 0.5).tolist(), strict=True))


def atis(events: Sequence[Event]) -> bytes:
    return b"".join(
        bytes([x, y, on << 7 | t >> 16, t >> 8 & 255, t & 255]) for t, x, y, on in events
    )


def aedat2(events: Sequence[Event]) -> bytes:
    head = b"#!AER-DAT2.0\r\n# a comment\r\n"
    return head + b"".join(
        struct.pack(">II", (127 - y) << 8 | (127 - x) << 1 | (not on), t) for t, x, y, on in events
    )


def aedat31(events: Sequence[Event], capacity: int = 16, overflow: int = 0) -> bytes:
    """Packets with room for more events than they hold, an invalid one in each, frames between."""
    parts = [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"]
    for start in range(0, len(events), capacity - 2):
        packed = [
            struct.pack("<Ii", x << 17 | y << 2 | on << 1 | 1, t)
            for t, x, y, on in events[start : start + capacity - 2]
        ]
        packed.insert(1, struct.pack("<Ii", 5 << 17, 9))
        number = len(packed)
        parts.append(struct.pack("<hhiiiiii", 1, 0, 8, 4, overflow, capacity, number, number - 1))
        parts.append(b"".join(packed).ljust(8 * capacity, b"\0"))
        parts.append(struct.pack("<hhiiiiii", 2, 0, 36, 4, 0, 1, 1, 1) + bytes(36))
    return b"".join(parts)


def npz(events: Sequence[Event]) -> bytes:
    fields = zip(*events, strict=True) if events else ([], [], [], [])
    arrays = {name: np.array(field, np.int64) for name, field in zip("txyp", fields, strict=True)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
