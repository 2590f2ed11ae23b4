"""The beginning of a WAV file: as much of its sound as is asked for, however long it goes on.

RIFF: a head of 12 bytes, then chunks, each with a name and a length (Microsoft and IBM 1991).
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

_ORDERS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<"}
# More chunks before the sound, or a longer description of it, are nobody's file.
_MOST_CHUNKS = 1000
_MOST_FORMAT_BYTES = 4096
# Of other formats, for their reader to name.
_OTHER_BYTES = 4096
_MOST_BYTES = 512_000_000


def read_beginning(path: Path, most_s: float) -> bytes:
    """A WAV file of the first ``most_s`` seconds of the one at ``path``.

    Raises:
        ValueError: its head claims a format that no recording has, or too much of it is asked for.
        OSError: it cannot be read.
    """
    with path.open("rb") as handle:
        head = handle.read(12)
        order = _ORDERS.get(head[:4])
        if len(head) < 12 or order is None or head[8:] != b"WAVE":
            return head + handle.read(_OTHER_BYTES)
        described = b""
        for _ in range(_MOST_CHUNKS):
            chunk = handle.read(8)
            if len(chunk) < 8:
                break
            name, n_bytes = struct.unpack(f"{order}4sI", chunk)
            if name == b"fmt ":
                if n_bytes > _MOST_FORMAT_BYTES:
                    raise ValueError(
                        f"must describe its sound in at most {_MOST_FORMAT_BYTES} bytes, and "
                        f"claims {n_bytes:,}"
                    )
                described = handle.read(n_bytes + n_bytes % 2)
            elif name == b"data":
                sound = handle.read(min(n_bytes, _wanted(order, described, most_s)))
                return _assembled(order, described, sound)
            else:
                handle.seek(n_bytes + n_bytes % 2, 1)
        # Without sound: its reader says what is missing.
        return _assembled(order, described, None)


def _wanted(order: str, described: bytes, most_s: float) -> int:
    """Bytes of ``most_s`` seconds of sound that is so described."""
    if len(described) < 16:
        return 0
    _, _, rate, _, block, _ = struct.unpack(f"{order}HHIIHH", described[:16])
    wanted: int = math.ceil(most_s * rate) * block
    if wanted > _MOST_BYTES:
        raise ValueError(
            f"must need at most {_MOST_BYTES:,} bytes for {most_s:g} s of sound, and claims "
            f"{wanted:,}"
        )
    return wanted


def _assembled(order: str, described: bytes, sound: bytes | None) -> bytes:
    """A whole file of the two chunks that a reader needs."""
    chunks = struct.pack(f"{order}4sI", b"fmt ", len(described)) + described
    if sound is not None:
        chunks += (
            struct.pack(f"{order}4sI", b"data", len(sound)) + sound + b"\0" * (len(sound) % 2)
        )
    riff = b"RIFX" if order == ">" else b"RIFF"
    return struct.pack(f"{order}4sI4s", riff, 4 + len(chunks), b"WAVE") + chunks
