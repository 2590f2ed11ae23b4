"""The measuring loop: warm-up, idle, windows, repeats. Knows no model, only how to run a batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from predictors.campaign.protocol import Protocol
from predictors.campaign.quality import half_width
from predictors.meters.base import Meter, MeterError, Window

_REJECTED = ("thermal_throttle", "power_brake")


@dataclass(frozen=True, slots=True)
class Measurement:
    """Accepted windows in order, with the batches that ran in each."""

    windows: tuple[Window, ...]
    batches: tuple[int, ...]
    converged: bool
    n_rejected: int
    idle_power_w: float | None

    @property
    def energies_j(self) -> list[float]:
        """Joules per batch of each window."""
        return [w.energy_j / n for w, n in zip(self.windows, self.batches, strict=True)]


def run_windows(
    call: Callable[[], object],
    meter: Meter,
    protocol: Protocol,
    *,
    sync: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Measurement:
    """Measure the joules of ``call``, which runs one batch.

    Raises:
        MeterError: the sensor was lost, or throttling spoilt more windows than allowed.
    """
    loop = _Loop(call, sync, clock)
    loop.warm_up(protocol)
    idle_power_w = _idle_power_w(meter, protocol, sleep)
    windows: list[Window] = []
    batches: list[int] = []
    n_rejected = 0
    converged = False
    while len(windows) < protocol.max_repeats:
        window, n_batches = loop.window(meter, protocol.window_s)
        if set(window.flags) & set(_REJECTED):
            n_rejected += 1
            if n_rejected > protocol.max_rejected:
                raise MeterError(
                    f"{n_rejected} windows throttled ({', '.join(window.flags)}): cool the "
                    f"device or lower its clocks, then measure again"
                )
            continue
        windows.append(window)
        batches.append(n_batches)
        if len(windows) >= protocol.min_repeats:
            energies = [w.energy_j / n for w, n in zip(windows, batches, strict=True)]
            if half_width(energies) <= protocol.target_half_width:
                converged = True
                break
    return Measurement(tuple(windows), tuple(batches), converged, n_rejected, idle_power_w)


class _Loop:
    """Runs chunks of batches and counts them."""

    def __init__(
        self, call: Callable[[], object], sync: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self._call, self._sync, self._clock = call, sync, clock
        self._chunk = 1
        self._n_batches = 0

    def warm_up(self, protocol: Protocol) -> None:
        started = self._clock()
        while True:
            self._work()
            elapsed_s = self._clock() - started
            done = self._n_batches >= protocol.warmup_iterations
            if done and elapsed_s >= protocol.warmup_s:
                break
        # Chunks long enough that reading clocks and sensors between them costs nothing.
        per_batch_s = elapsed_s / self._n_batches
        self._chunk = max(1, math.ceil(protocol.chunk_s / max(per_batch_s, 1e-9)))

    def window(self, meter: Meter, window_s: float) -> tuple[Window, int]:
        meter.begin(self._work)
        # What ran while the meter waited for its tick is before the window.
        self._n_batches = 0
        started = self._clock()
        while self._clock() - started < window_s:
            self._work()
        window = meter.end(self._work)
        return window, self._n_batches

    def _work(self) -> None:
        for _ in range(self._chunk):
            self._call()
        self._sync()
        self._n_batches += self._chunk


def _idle_power_w(
    meter: Meter, protocol: Protocol, sleep: Callable[[float], None]
) -> float | None:
    if protocol.idle_s == 0 or meter.is_estimate:
        # An idle process uses no CPU time, so an estimate of it would say 0 W, which is false.
        return None

    def wait() -> None:
        sleep(0.01)

    meter.begin(wait)
    sleep(protocol.idle_s)
    window = meter.end(wait)
    return window.energy_j / window.duration_s
