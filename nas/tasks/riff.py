"""Whether a WAV file holds all the sound that its head announces.

RIFF: a head of 12 bytes, then chunks, each with a name and a length (Microsoft and IBM 1991).
"""

from __future__ import annotations

import struct
from pathlib import Path

# What programs that do not know the length beforehand write.
_UNKNOWN = (0xFFFFFFFF, 0x7FFFFFFF)
_ORDERS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<"}
# More chunks before the sound are nobody's file.
_MOST_CHUNKS = 1000


def check_whole(path: Path) -> None:
    """Raise ``ValueError`` if the file at ``path`` was cut short; other formats pass."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(12)
        order = _ORDERS.get(head[:4])
        if len(head) < 12 or order is None or head[8:] != b"WAVE":
            return
        long_n_bytes: int | None = None
        for _ in range(_MOST_CHUNKS):
            chunk = handle.read(8)
            if len(chunk) < 8:
                return
            name, n_bytes = struct.unpack(f"{order}4sI", chunk)
            if name == b"ds64":
                # Of RF64: lengths beyond 32 bits stand here.
                (long_n_bytes,) = struct.unpack("<8xQ", handle.read(16).ljust(16, b"\0"))
                n_bytes -= 16
            if name == b"data":
                left = size - handle.tell()
                claimed = long_n_bytes if long_n_bytes is not None else n_bytes
                if left < claimed and (long_n_bytes is not None or n_bytes not in _UNKNOWN):
                    raise ValueError(
                        f"must be a whole WAV file: its head says {claimed:,} bytes of sound, and "
                        f"{left:,} follow"
                    )
                return
            handle.seek(n_bytes + n_bytes % 2, 1)
