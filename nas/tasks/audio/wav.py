"""Read the beginning of an untrusted WAV file of any length.

RIFF: a header of 12 bytes, then chunks, each with a name and a length (Microsoft and IBM 1991).
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

_ORDERS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<"}
# Lengths that programs write which stream: ffmpeg, browsers, sox, arecord.
_UNKNOWN = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000)
# No real file has more chunks before the sound, or a longer format.
_MOST_CHUNKS = 1000
_MOST_FORMAT_BYTES = 4096
_MOST_BYTES = 512_000_000
_MOST_S = 101.0
MAX_RATE = 768_000
# By format (1 integers, 3 floats) and bytes of a value: the type and its full scale.
_EXTENSIBLE = 0xFFFE
_TYPES = {
    (1, 1): ("u1", 2.0**7),
    (1, 2): ("i2", 2.0**15),
    (1, 3): ("i4", 2.0**31),
    (1, 4): ("i4", 2.0**31),
    (3, 4): ("f4", 1.0),
    (3, 8): ("f8", 1.0),
}


class Sound(NamedTuple):
    """The beginning of a recording: ``signal`` is the mean of its channels, full scale at 1.

    ``rate`` is in samples a second; ``duration_s`` is of the whole recording.
    """

    signal: NDArray[np.float64]
    rate: int
    duration_s: float


def read_sound(path: Path, most_s: float = _MOST_S) -> Sound:
    """Read the first ``most_s`` seconds of a WAV file, and no more.

    Raises:
        ValueError: it cannot be read, was cut short, is no WAV file of 8, 16, 24, 32 bits or
            floats, or its beginning is too large.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            raise ValueError("must have more than 0 bytes, got 0")
        with path.open("rb") as handle:
            return _read(handle, size, most_s)
    except OSError as error:
        raise ValueError(f"must be readable: {error.strerror}") from None


def _read(handle: BinaryIO, size: int, most_s: float) -> Sound:
    head = handle.read(12)
    order = _ORDERS.get(head[:4])
    if len(head) < 12 or order is None or head[8:] != b"WAVE":
        raise ValueError("must be a whole WAV file: it does not begin with RIFF and WAVE")
    description = b""
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
            return _sound(handle, order, description, n_bytes, is_open, most_s)
        if name == b"fmt ":
            if n_bytes > _MOST_FORMAT_BYTES:
                raise ValueError(
                    f"must describe its sound in at most {_MOST_FORMAT_BYTES} bytes, and claims "
                    f"{n_bytes:,}"
                )
            description = handle.read(n_bytes + n_bytes % 2)
        elif name == b"ds64":
            # RF64 has lengths beyond 32 bits here.
            (long_n_bytes,) = struct.unpack("<8xQ", handle.read(16).ljust(16, b"\0"))
            handle.seek(n_bytes + n_bytes % 2 - 16, 1)
        else:
            handle.seek(n_bytes + n_bytes % 2, 1)
    raise ValueError("must be a whole WAV file: it has no sound, or ends before it")


def _sound(
    handle: BinaryIO, order: str, description: bytes, n_bytes: int, is_open: bool, most_s: float
) -> Sound:
    """Read the beginning of ``n_bytes`` of sound; the length of an open header is unknown."""
    if len(description) < 16:
        raise ValueError("must be a whole WAV file: it does not describe its sound")
    form, n_channels, rate, _, block, _ = struct.unpack(f"{order}HHIIHH", description[:16])
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
    if rate > MAX_RATE:
        raise ValueError(f"must have at most {MAX_RATE} samples a second, got {rate}")
    if n_bytes == 0:
        raise ValueError("must hold sound, and holds no sample")
    n_wanted: int = min(n_bytes, math.ceil(most_s * rate) * block)
    if n_wanted > _MOST_BYTES:
        raise ValueError(
            f"must need at most {_MOST_BYTES:,} bytes for {most_s:g} s of sound, and claims "
            f"{n_wanted:,}"
        )
    if form == _EXTENSIBLE and len(description) >= 26:
        (form,) = struct.unpack(f"{order}H", description[24:26])
    width = block // n_channels
    if (form, width) not in _TYPES or block % n_channels:
        raise ValueError(
            f"must have 8, 16, 24 or 32 bits or floats, got format {form} of {block} bytes for "
            f"{n_channels} channels"
        )
    dtype, full_scale = _TYPES[form, width]
    raw = np.frombuffer(handle.read(n_wanted), np.uint8)
    if width == 3:
        # The upper bytes of 32 bits.
        padded = np.zeros((len(raw) // 3, 4), np.uint8)
        first = 1 if order == "<" else 0
        padded[:, first : first + 3] = raw.reshape(-1, 3)
        raw = padded.reshape(-1)
    signal = raw.view(f"{order}{dtype}").astype(np.float64)
    if dtype == "u1":
        signal -= 128
    signal_S = signal.reshape(-1, n_channels).mean(axis=1) / full_scale
    return Sound(signal_S, rate, n_bytes / (rate * block))
