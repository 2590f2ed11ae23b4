"""What a search itself spends: joules of this process while it trains."""

from __future__ import annotations

import time
from types import TracebackType

from predictors.meters.base import Meter, MeterError
from predictors.meters.estimate import watts_per_core
from predictors.meters.nvml import NvmlMeter, visible_gpu


class EnergySpan:
    """``with EnergySpan(device) as span: ...`` then ``span.energy_j``.

    On a GPU it is the device's own counter, shared evenly where several trials train on it; on
    CPUs, and where the counter cannot be read, it is an estimate from this process's CPU time.
    """

    def __init__(self, device: str, share: float = 1.0) -> None:
        """``share`` is the part of the device that is this process's."""
        self._share = share
        self._meter: Meter | None = None
        self.energy_j: float | None = None
        if device.startswith("cuda"):
            try:
                self._meter = NvmlMeter((visible_gpu(int(device.partition(":")[2] or 0)),))
            except MeterError:
                self._meter = None

    def __enter__(self) -> EnergySpan:
        """Start counting."""
        self._cpu_s = time.process_time()
        if self._meter is not None:
            self._meter.begin(_pause)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop counting."""
        self.energy_j = (time.process_time() - self._cpu_s) * watts_per_core()
        if self._meter is not None:
            self.energy_j += self._meter.end(_pause).energy_j * self._share
            self._meter.close()


def _pause() -> None:
    """The work of a span goes on by itself; waiting for a tick needs none from here."""
    time.sleep(0.005)
