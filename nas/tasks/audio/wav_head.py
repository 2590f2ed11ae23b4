"""The head of a WAV file and the beginning of its sound, however long the file goes on.

RIFF: a head of 12 bytes, then chunks, each with a name and a length (Microsoft and IBM 1991).
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

_ORDERS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<"}
# What programs that do not know the length beforehand write.
_UNKNOWN = (0xFFFFFFFF, 0x7FFFFFFF)
# More chunks before the sound, or a longer description of it, are nobody's file.
_MOST_CHUNKS = 1000
_MOST_FORMAT_BYTES = 4096
# Of other formats, for their reader to name.
_OTHER_BYTES = 4096
_MOST_BYTES = 512_000_000


class Beginning(NamedTuple):
    """A WAV file of the first seconds of another, whose whole length is ``duration_s``.

    ``duration_s`` is ``None`` where the head does not describe any sound.
    """

    raw: bytes
    duration_s: float | None


def read_beginning(path: Path, most_s: float) -> Beginning:
    """Read the first ``most_s`` seconds of the WAV file at ``path``.

    Raises:
        ValueError: the file was cut short, its head claims a format that no recording has, or too
            much of it is asked for.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(12)
        order = _ORDERS.get(head[:4])
        if len(head) < 12 or order is None or head[8:] != b"WAVE":
            return Beginning(head + handle.read(_OTHER_BYTES), None)
        described = b""
        long_n_bytes: int | None = None
        for _ in range(_MOST_CHUNKS):
            chunk = handle.read(8)
            if len(chunk) < 8:
                break
            name, n_bytes = struct.unpack(f"{order}4sI", chunk)
            if name == b"data":
                left = size - handle.tell()
                return _sound(
                    handle, order, described, _whole(n_bytes, long_n_bytes, left), most_s
                )
            if name == b"fmt ":
                described = _description(handle, n_bytes)
            elif name == b"ds64":
                # Of RF64: lengths beyond 32 bits stand here.
                (long_n_bytes,) = struct.unpack("<8xQ", handle.read(16).ljust(16, b"\0"))
                handle.seek(n_bytes + n_bytes % 2 - 16, 1)
            else:
                handle.seek(n_bytes + n_bytes % 2, 1)
        # Without sound: its reader says what is missing.
        return Beginning(_assembled(order, described, None), None)


def _whole(claimed: int, long_n_bytes: int | None, left: int) -> int:
    """Return the bytes of sound that a file has, which must be those that its head claims."""
    if long_n_bytes is None and claimed in _UNKNOWN:
        return left
    n_bytes = claimed if long_n_bytes is None else long_n_bytes
    if left < n_bytes:
        raise ValueError(
            f"must be a whole WAV file: its head says {n_bytes:,} bytes of sound, and "
            f"{left:,} follow"
        )
    return n_bytes


def _description(handle: BinaryIO, n_bytes: int) -> bytes:
    if n_bytes > _MOST_FORMAT_BYTES:
        raise ValueError(
            f"must describe its sound in at most {_MOST_FORMAT_BYTES} bytes, and claims "
            f"{n_bytes:,}"
        )
    return handle.read(n_bytes + n_bytes % 2)


def _sound(
    handle: BinaryIO, order: str, described: bytes, n_bytes: int, most_s: float
) -> Beginning:
    if len(described) < 16:
        return Beginning(_assembled(order, described, b""), None)
    _, _, rate, _, block, _ = struct.unpack(f"{order}HHIIHH", described[:16])
    wanted: int = min(n_bytes, math.ceil(most_s * rate) * block)
    if wanted > _MOST_BYTES:
        raise ValueError(
            f"must need at most {_MOST_BYTES:,} bytes for {most_s:g} s of sound, and claims "
            f"{wanted:,}"
        )
    duration_s = n_bytes / (rate * block) if rate and block else None
    return Beginning(_assembled(order, described, handle.read(wanted)), duration_s)


def _assembled(order: str, described: bytes, sound: bytes | None) -> bytes:
    """A whole file of the two chunks that a reader needs."""
    chunks = struct.pack(f"{order}4sI", b"fmt ", len(described)) + described
    if sound is not None:
        chunks += (
            struct.pack(f"{order}4sI", b"data", len(sound)) + sound + b"\0" * (len(sound) % 2)
        )
    riff = b"RIFX" if order == ">" else b"RIFF"
    return struct.pack(f"{order}4sI4s", riff, 4 + len(chunks), b"WAVE") + chunks
