"""Find out whether a model that ran out of GPU memory would fit without other processes."""

from __future__ import annotations

import re

_REQUESTED = re.compile(r"Tried to allocate ([0-9.]+) (bytes|KiB|MiB|GiB|TiB)")
_UNITS = {"bytes": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}
_GIB = 2**30
# Most memory that a process's context takes besides its tensors.
_CONTEXT_BYTES = _GIB


def asked_bytes(message: str) -> int:
    """Return the bytes that torch could not allocate by its message, 0 if it has no number."""
    match = _REQUESTED.search(message)
    return 0 if match is None else int(float(match[1]) * 1024 ** _UNITS[match[2]])


def crowded_out(asked: int, own: int, free: int, total: int) -> str | None:
    """Return the cause if other processes hold the memory, ``None`` if the model does not fit.

    This process holds ``own`` bytes and requested ``asked`` more; ``free`` of ``total`` are left.
    """
    others = max(0, total - free - own - _CONTEXT_BYTES)
    if not others or own + asked + _CONTEXT_BYTES > total:
        return None
    return (
        f"out of memory on the device, of which other processes hold {others / _GIB:.1f} GiB of "
        f"{total / _GIB:.1f}: the model would fit alone"
    )


def describe_shortage(error: BaseException) -> str | None:
    """Return the cause of an out-of-memory error due to other processes, otherwise ``None``."""
    import torch

    if not isinstance(error, torch.OutOfMemoryError) or not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return crowded_out(asked_bytes(str(error)), torch.cuda.memory_reserved(), free, total)
