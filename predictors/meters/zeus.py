"""Joules of AMD GPUs and of Apple and Jetson chips by Zeus. Only this module imports ``zeus``.

Optional: ``pip install 'joulenas[zeus]'``. Zeus (You et al. 2023, NSDI) also reads NVIDIA boards,
but does not align windows with the counters' steps: there ``nvml`` is more accurate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from predictors.meters.base import Meter, MeterError, Window, Work

_KEY = "joulenas"
# An Apple chip reports these parts, a Jetson its total.
_APPLE_PARTS = ("cpu_total_mj", "dram_mj", "gpu_mj", "gpu_sram_mj", "ane_mj")


class ZeusMeter(Meter):
    """``Meter`` of one GPU, or of the chip with the CPU, by ``zeus.monitor.ZeusMonitor``."""

    name = "zeus"
    is_estimate = False

    def __init__(
        self,
        device: str,
        *,
        monitor: Any = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Open ``device`` (``cpu`` or ``cuda:N``); tests replace the monitor.

        Raises:
            MeterError: Zeus is not installed or does not support the device.
        """
        self._clock = clock
        self._opened_s: float | None = None
        on_gpu = device.startswith("cuda")
        index = int(device.partition(":")[2] or 0)
        self._monitor = _make_monitor(index if on_gpu else None) if monitor is None else monitor
        if on_gpu:
            self._part = "gpu"
            self.device = _gpu_name(self._monitor, index)
        elif self._monitor.soc_is_present:
            self._part, self.device = "soc", type(self._monitor.soc).__name__
        elif self._monitor.cpu_indices:
            self._part, self.device = "cpu", "CPU packages"
        else:
            raise MeterError("zeus supports no CPU or chip of this machine")
        self.source = f"zeus-{self._part}"

    def begin(self, work: Work) -> None:
        """See ``Meter.begin``; Zeus does not report when its counters step."""
        if self._opened_s is not None:
            raise MeterError("a window is already open")
        try:
            # ``work`` returns when the device has finished, so Zeus need not synchronise.
            self._monitor.begin_window(_KEY, sync_execution=False, restart=True)
        except Exception as error:
            raise MeterError(f"zeus could not begin a window: {error}") from None
        self._opened_s = self._clock()

    def end(self, work: Work) -> Window:
        """See ``Meter.end``."""
        if self._opened_s is None:
            raise MeterError("no window is open")
        opened_s, self._opened_s = self._opened_s, None
        duration_s = self._clock() - opened_s
        try:
            measurement = self._monitor.end_window(_KEY, sync_execution=False)
        except Exception as error:
            raise MeterError(f"zeus could not end a window: {error}") from None
        energy_j = self._energy_j(measurement)
        if not energy_j > 0:
            raise MeterError(
                f"zeus returned {energy_j} J for {duration_s:.2f} s: the window must be longer "
                f"than a step of its counter"
            )
        return Window(energy_j=energy_j, duration_s=duration_s)

    def close(self) -> None:
        """See ``Meter.close``."""
        self._opened_s = None

    def _energy_j(self, measurement: Any) -> float:
        if self._part == "gpu":
            return float(sum(measurement.gpu_energy.values()))
        if self._part == "cpu":
            return float(sum((measurement.cpu_energy or {}).values()))
        total_mj = getattr(measurement.soc_energy, "total_energy_mj", None)
        if total_mj is None:
            parts = [getattr(measurement.soc_energy, part, None) for part in _APPLE_PARTS]
            total_mj = sum(part for part in parts if part is not None)
        return float(total_mj) / 1e3


def _make_monitor(gpu: int | None) -> Any:
    try:
        from zeus.monitor import ZeusMonitor
    except ImportError as error:
        raise MeterError(
            f"zeus is not installed ({error}): pip install 'joulenas[zeus]'"
        ) from None
    try:
        return ZeusMonitor(
            gpu_indices=[] if gpu is None else [gpu], cpu_indices=None if gpu is None else []
        )
    except Exception as error:
        raise MeterError(f"zeus cannot start: {str(error).splitlines()[0]}") from None


def _gpu_name(monitor: Any, index: int) -> str:
    try:
        return str(monitor.gpus.get_name(index))
    except Exception as error:
        raise MeterError(f"zeus cannot open GPU {index}: {error}") from None
