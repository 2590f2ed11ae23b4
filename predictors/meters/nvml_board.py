"""Read a board's settings from NVML; nothing here changes a setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from predictors.meters.board import Board

SM_CLOCK, MEMORY_CLOCK = 1, 2


def maybe(nvml: Any, name: str, *arguments: Any) -> Any:
    """Return the result of NVML's function ``name``, or ``None`` if it is not supported."""
    read: Callable[..., Any] | None = getattr(nvml, name, None)
    if read is None:
        return None
    try:
        return read(*arguments)
    except nvml.NVMLError:
        return None


def text(value: str | bytes) -> str:
    """Return a text of NVML, which older versions of ``pynvml`` return as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def watts(nvml: Any, name: str, handle: Any) -> float | None:
    """Return the result of NVML's function ``name`` in watts; NVML returns milliwatts."""
    milliwatts = maybe(nvml, name, handle)
    return None if milliwatts is None else milliwatts / 1e3


def read_board(nvml: Any, handle: Any, uuid: str) -> Board:
    """Read the settings of the board of ``handle``."""
    ecc = maybe(nvml, "nvmlDeviceGetEccMode", handle)
    persistence = maybe(nvml, "nvmlDeviceGetPersistenceMode", handle)
    mig = maybe(nvml, "nvmlDeviceGetMigMode", handle)
    return Board(
        uuid=uuid,
        power_limit_w=watts(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle),
        default_power_limit_w=watts(nvml, "nvmlDeviceGetPowerManagementDefaultLimit", handle),
        sm_clock_limit_mhz=maybe(nvml, "nvmlDeviceGetApplicationsClock", handle, SM_CLOCK),
        memory_clock_limit_mhz=maybe(nvml, "nvmlDeviceGetApplicationsClock", handle, MEMORY_CLOCK),
        memory_clock_mhz=maybe(nvml, "nvmlDeviceGetClockInfo", handle, MEMORY_CLOCK),
        # ECC and MIG modes are pairs: the current mode, and the mode after the next reset.
        ecc=None if ecc is None else bool(ecc[0]),
        persistence=None if persistence is None else bool(persistence),
        mig=None if mig is None else bool(mig[0]),
    )


def find_uuid(nvml: Any, board: int | str) -> str | None:
    """Return the full UUID of a board given by its index, its UUID or the beginning of one.

    ``None`` if there is no such board, or if several match.
    """
    if isinstance(board, int):
        handle = maybe(nvml, "nvmlDeviceGetHandleByIndex", board)
        uuid = None if handle is None else maybe(nvml, "nvmlDeviceGetUUID", handle)
        return None if uuid is None else text(uuid)
    handles = [
        maybe(nvml, "nvmlDeviceGetHandleByIndex", index)
        for index in range(maybe(nvml, "nvmlDeviceGetCount") or 0)
    ]
    uuids = [
        text(maybe(nvml, "nvmlDeviceGetUUID", handle)) for handle in handles if handle is not None
    ]
    matching = [uuid for uuid in uuids if uuid.startswith(board)]
    return matching[0] if len(matching) == 1 else None
