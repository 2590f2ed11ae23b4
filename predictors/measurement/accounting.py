"""The energy account of training: joules of the device while a trial trains."""

from __future__ import annotations

import time
from types import TracebackType

from predictors.meters.base import Meter, MeterError
from predictors.meters.select import choose_meter


def whole_device() -> float:
    """Return the share of a process that trains alone on its device."""
    return 1.0


class EnergySpan:
    """``with EnergySpan(device) as span: ...`` then ``span.energy_j``.

    The device's best meter reads it, as for labels. A counter covers the whole device, so its
    joules are divided evenly among trials that train at once; an estimate covers this process
    alone. A GPU's joules exclude its host. ``energy_j`` is ``None`` without a sensor or after it
    was lost: training continues, and its joules are unknown, not 0.
    """

    def __init__(self, device: str, share: float = 1.0) -> None:
        """``share`` is this process's share of the device."""
        self._share = share
        self._meter: Meter | None = None
        self.energy_j: float | None = None
        self._before_j = 0.0
        try:
            self._meter = choose_meter(None, device)
            # Other sensors are not needed here, and each reading costs time.
            self._meter.count_joules_only()
        except MeterError:
            self._meter = None

    def __enter__(self) -> EnergySpan:
        """Start counting."""
        if self._meter is not None:
            try:
                self._meter.begin(_pause)
            except MeterError:
                self._lose(self._meter)
        return self

    def lap(self) -> float | None:
        """Return the joules from the start until now, and continue counting."""
        if self._meter is None:
            return None
        try:
            self._before_j += self._ended(self._meter)
            self._meter.begin(_pause)
        except MeterError:
            self._lose(self._meter)
            return None
        return self._before_j

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop counting."""
        if self._meter is None:
            return
        try:
            self.energy_j = self._before_j + self._ended(self._meter)
        except MeterError:
            self.energy_j = None
        self._lose(self._meter)

    def _ended(self, meter: Meter) -> float:
        return meter.end(_pause).energy_j * (1.0 if meter.is_estimate else self._share)

    def _lose(self, meter: Meter) -> None:
        meter.close()
        self._meter = None


def _pause() -> None:
    """Wait for a step of the counter; the work of a span runs on its own."""
    time.sleep(0.005)
