"""Whether a model that found no memory on a GPU would have had enough of it alone."""

from __future__ import annotations

import re

_ASKED = re.compile(r"Tried to allocate ([0-9.]+) (bytes|KiB|MiB|GiB|TiB)")
_UNITS = {"bytes": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}
_GIB = 2**30
# What a process's context takes besides its tensors, at most.
_CONTEXT_BYTES = _GIB


def asked_bytes(message: str) -> int:
    """What torch says that it could not allocate; 0 where it does not say."""
    found = _ASKED.search(message)
    return 0 if found is None else int(float(found[1]) * 1024 ** _UNITS[found[2]])


def crowded_out(asked: int, own: int, free: int, total: int) -> str | None:
    """Why there was no memory, ``None`` where the model itself does not fit.

    ``own`` bytes are held by this process and ``asked`` were wanted besides, ``free`` are left of
    the board's ``total``.
    """
    others = max(0, total - free - own - _CONTEXT_BYTES)
    if not others or own + asked + _CONTEXT_BYTES > total:
        return None
    return (
        f"out of memory on the device, of which other processes hold {others / _GIB:.1f} GiB of "
        f"{total / _GIB:.1f}: the model would fit alone"
    )


def describe_shortage(error: BaseException) -> str | None:
    """Why ``error`` is no fault of the model's, ``None`` where it is or is something else."""
    import torch

    if not isinstance(error, torch.OutOfMemoryError) or not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return crowded_out(asked_bytes(str(error)), torch.cuda.memory_reserved(), free, total)
