"""Map CUDA's device numbers to boards (``CUDA_VISIBLE_DEVICES``)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from predictors.meters.base import MeterError


def visible_gpu(index: int, environment: Mapping[str, str] | None = None) -> int | str:
    """Return NVML's index or UUID of the board that CUDA calls ``cuda:index``.

    NVML lists every board; ``CUDA_VISIBLE_DEVICES`` hides and renumbers them for CUDA.

    Raises:
        MeterError: the variable lists no such board, or a MIG slice.
    """
    listed = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return index
    names = [name.strip() for name in listed.split(",")]
    # CUDA ignores the list from the first entry that is empty or -1.
    stops = [i for i, name in enumerate(names) if name in ("", "-1")]
    names = names[: stops[0]] if stops else names
    if index >= len(names):
        raise MeterError(
            f"cuda:{index} must be one of the {len(names)} GPUs in CUDA_VISIBLE_DEVICES, "
            f"got {listed!r}"
        )
    name = names[index]
    if name.startswith("MIG"):
        raise MeterError(mig_sentence(name))
    return int(name) if name.isdigit() else name


def mig_sentence(device: int | str) -> str:
    """Return the error message for a board in MIG mode."""
    return (
        f"GPU {device} is in MIG mode: its counters cover the whole board, so the joules of one "
        f"slice cannot be measured; use a board without MIG"
    )
