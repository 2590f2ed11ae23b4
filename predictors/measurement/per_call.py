"""Joules of one call by a device's own meter, for quick comparisons within one process."""

from __future__ import annotations

from collections.abc import Callable

from predictors.measurement.protocol import Protocol
from predictors.measurement.windows import WindowLoop
from predictors.meters.base import Meter, MeterError
from predictors.meters.select import choose_meter

# One short window suffices for a ratio of kernels, not for a label of the search.
_PROTOCOL = Protocol("per-call", warmup_s=0.5, warmup_iterations=5, window_s=1.0, warmup_max_s=0.5)


def real_meter(device: str) -> Meter | None:
    """Return the meter of ``device``, ``None`` if there is no sensor."""
    try:
        meter = choose_meter(None, device)
    except MeterError:
        return None
    if meter.is_estimate:
        meter.close()
        return None
    return meter


def joules_per_call(meter: Meter, device: str, call: Callable[[], object]) -> float:
    """Return the gross joules of one call, from a window of one second.

    Raises:
        MeterError: the sensor was lost.
    """
    import torch

    sync = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    loop = WindowLoop(call, meter, _PROTOCOL, sync=sync)
    loop.prepare()
    window, n_calls = loop.window()
    return window.energy_j / n_calls
