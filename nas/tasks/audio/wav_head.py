"""The head of a WAV file and the beginning of its sound, however long the file goes on.

RIFF: a head of 12 bytes, then chunks, each with a name and a length (Microsoft and IBM 1991).
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

_ORDERS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<"}
# What programs that do not know the length beforehand write: ffmpeg, browsers, sox, arecord.
_UNKNOWN = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000)
# More chunks before the sound, or a longer description of it, are nobody's file.
_MOST_CHUNKS = 1000
_MOST_FORMAT_BYTES = 4096
# Of other formats, for their reader to name.
_OTHER_BYTES = 4096
_MOST_BYTES = 512_000_000


class Beginning(NamedTuple):
    """A WAV file of the first seconds of another, whose whole length is ``duration_s``.

    ``duration_s`` is ``None`` for files of other formats, which their reader names.
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
                claimed = n_bytes if long_n_bytes is None else long_n_bytes
                is_open = long_n_bytes is None and claimed in _UNKNOWN
                if not is_open and left < claimed:
                    raise ValueError(
                        f"must be a whole WAV file: its head says {claimed:,} bytes of sound, "
                        f"and {left:,} follow"
                    )
                n_bytes = left if is_open else claimed
                return _sound(handle, order, described, n_bytes, is_open, most_s)
            if name == b"fmt ":
                described = _description(handle, n_bytes)
            elif name == b"ds64":
                # Of RF64: lengths beyond 32 bits stand here.
                (long_n_bytes,) = struct.unpack("<8xQ", handle.read(16).ljust(16, b"\0"))
                handle.seek(n_bytes + n_bytes % 2 - 16, 1)
            else:
                handle.seek(n_bytes + n_bytes % 2, 1)
        raise ValueError("must be a whole WAV file: it has no sound, or ends before it")


def _description(handle: BinaryIO, n_bytes: int) -> bytes:
    if n_bytes > _MOST_FORMAT_BYTES:
        raise ValueError(
            f"must describe its sound in at most {_MOST_FORMAT_BYTES} bytes, and claims "
            f"{n_bytes:,}"
        )
    return handle.read(n_bytes + n_bytes % 2)


def _sound(
    handle: BinaryIO, order: str, described: bytes, n_bytes: int, is_open: bool, most_s: float
) -> Beginning:
    """Read the beginning of ``n_bytes`` of sound, which may go on where a head is open."""
    if len(described) < 16:
        raise ValueError("must be a whole WAV file: it does not describe its sound")
    _, n_channels, rate, _, block, _ = struct.unpack(f"{order}HHIIHH", described[:16])
    if not (rate and 0 < n_channels <= block):
        raise ValueError(
            f"must have a channel, sample and byte or more, got {n_channels} channels, {rate} "
            f"samples a second and {block} bytes a sample"
        )
    if is_open:
        n_bytes -= n_bytes % block
    elif n_bytes % block:
        raise ValueError(
            f"must be a whole WAV file: its {n_bytes:,} bytes of sound end within a sample of "
            f"{block} bytes"
        )
    wanted: int = min(n_bytes, math.ceil(most_s * rate) * block)
    if wanted > _MOST_BYTES:
        raise ValueError(
            f"must need at most {_MOST_BYTES:,} bytes for {most_s:g} s of sound, and claims "
            f"{wanted:,}"
        )
    sound = _assembled(order, described, handle.read(wanted))
    return Beginning(sound, n_bytes / (rate * block))


def _assembled(order: str, described: bytes, sound: bytes) -> bytes:
    """A whole file of the two chunks that a reader needs."""
    chunks = struct.pack(f"{order}4sI", b"fmt ", len(described)) + described
    chunks += struct.pack(f"{order}4sI", b"data", len(sound)) + sound + b"\0" * (len(sound) % 2)
    riff = b"RIFX" if order == ">" else b"RIFF"
    return struct.pack(f"{order}4sI4s", riff, 4 + len(chunks), b"WAVE") + chunks
