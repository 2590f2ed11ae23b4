"""Estimated joules: measured CPU seconds times a stated power per core."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping

from predictors.meters.base import Meter, MeterError, Window, Work

# The 400 W thermal design power of a 64-core AMD EPYC 9554 spread over its cores, rounded down:
# recent server CPUs have between 3 and 8 W per core.
DEFAULT_WATTS_PER_CORE = 6.0
WATTS_VARIABLE = "JOULENAS_CPU_WATTS_PER_CORE"


def watts_per_core(environment: Mapping[str, str] | None = None) -> float:
    """Return the stated power per core: ``JOULENAS_CPU_WATTS_PER_CORE``, or 6 W.

    Raises:
        ValueError: the variable is not a number above zero.
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
    """``Meter`` that estimates joules from the CPU time of this process, all threads."""

    name = "estimate"
    is_estimate = True

    def __init__(
        self,
        watts: float | None = None,
        *,
        cpu_clock: Callable[[], float] = time.process_time,
        wall_clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``watts`` is the power per busy core; tests may replace the clocks."""
        self.watts = watts_per_core() if watts is None else watts
        self.source = f"cpu-seconds x {self.watts:g} W"
        self.device = cpu_name()
        self._cpu_clock, self._wall_clock = cpu_clock, wall_clock
        self._opened: tuple[float, float] | None = None

    def begin(self, work: Work) -> None:
        """See ``Meter.begin``. CPU clocks do not step, so ``work`` is not needed."""
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
