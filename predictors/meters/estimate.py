"""Estimated joules: measured CPU seconds times an assumed power per core."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping

from predictors.meters.base import Meter, MeterError, Window, Work

# Thermal design power of an AMD EPYC 9554 per core (400 W, 64 cores), rounded down. Recent server
# CPUs have 3 to 8 W per core.
DEFAULT_WATTS_PER_CORE = 6.0
WATTS_VARIABLE = "JOULENAS_CPU_WATTS_PER_CORE"


def watts_per_core(environment: Mapping[str, str] | None = None) -> float:
    """Return the assumed power per core: ``JOULENAS_CPU_WATTS_PER_CORE``, by default 6 W.

    Raises:
        ValueError: the variable is not a number in (0, 10000).
    """
    text = (os.environ if environment is None else environment).get(WATTS_VARIABLE)
    if text is None:
        return DEFAULT_WATTS_PER_CORE
    try:
        watts = float(text)
    except ValueError:
        watts = -1.0
    if not 0 < watts < 1e4:
        raise ValueError(f"{WATTS_VARIABLE} must be watts in (0, 10000), got {text!r}")
    return watts


class EstimateMeter(Meter):
    """``Meter`` that estimates joules from the CPU time of all threads of this process."""

    name = "estimate"
    is_estimate = True

    def __init__(
        self,
        watts: float | None = None,
        *,
        cpu_clock: Callable[[], float] = time.process_time,
        wall_clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``watts`` is the power of a busy core; tests replace the clocks."""
        self.watts = watts_per_core() if watts is None else watts
        self.source = f"cpu-seconds x {self.watts:g} W"
        self.device = cpu_name()
        self._cpu_clock, self._wall_clock = cpu_clock, wall_clock
        self._opened: tuple[float, float] | None = None

    def begin(self, work: Work) -> None:
        """See ``Meter.begin``; CPU clocks have no steps to wait for."""
        if self._opened is not None:
            raise MeterError("a window is already open")
        self._opened = (self._cpu_clock(), self._wall_clock())

    def end(self, work: Work) -> Window:
        """See ``Meter.end``."""
        if self._opened is None:
            raise MeterError("no window is open")
        cpu_s = self._cpu_clock() - self._opened[0]
        wall_s = self._wall_clock() - self._opened[1]
        self._opened = None
        return Window(energy_j=cpu_s * self.watts, duration_s=wall_s)

    def close(self) -> None:
        """See ``Meter.close``."""
        self._opened = None


def cpu_name() -> str:
    """Return the CPU's model name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
