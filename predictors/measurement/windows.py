"""The measuring loop of a batch: rest, idle, warm-up, windows, repeats."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import linear_regression

from nas.core.estimate import Estimate
from predictors.measurement.protocol import Protocol
from predictors.meters.base import Meter, MeterError, Window
from predictors.meters.flags import FOREIGN_COMPUTE, LIMITS_CHANGED, REJECTED

_WARMUP_STEP_S = 1.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """Accepted windows in order, with the batches that ran in each."""

    windows: tuple[Window, ...]
    batches: tuple[int, ...]
    converged: bool
    n_rejected: int
    idle_power_w: float | None
    flags: tuple[str, ...]

    @property
    def energies_j(self) -> list[float]:
        """Joules per batch of each window."""
        return [w.energy_j / n for w, n in zip(self.windows, self.batches, strict=True)]


def is_rejected(window: Window) -> bool:
    """Return whether a window is invalid: it throttled, or another process computed."""
    return bool(REJECTED & set(window.flags))


def refusal(n: int, window: Window) -> MeterError:
    """Return the error of a measurement with ``n`` rejected windows, the last being ``window``."""
    if FOREIGN_COMPUTE in window.flags:
        return MeterError(
            f"{n} windows were spoilt, the last by another process that computes on the device: "
            f"end it or wait for it, then measure again"
        )
    return MeterError(
        f"{n} windows throttled ({', '.join(window.flags)}): cool the device or lower its "
        f"clocks, then measure again"
    )


class WindowLoop:
    """Loop that runs batches under a meter by a protocol, one window at a time."""

    def __init__(
        self,
        call: Callable[[], object],
        meter: Meter,
        protocol: Protocol,
        *,
        sync: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``call`` runs one batch, ``sync`` waits for the device; clocks may be replaced."""
        self._call, self._meter, self._protocol = call, meter, protocol
        self._sync, self._clock, self._sleep = sync, clock, sleep
        self._chunk = 1
        self._n_batches = 0

    def prepare(self) -> tuple[float | None, tuple[str, ...]]:
        """Rest, measure idle power, warm up.

        Returns:
            Idle power in watts (``None`` if it is not measured), and flags.

        Raises:
            MeterError: the sensor was lost.
        """
        # Idle before warm-up: windows must follow warm-up without a rest, which lowers clocks.
        if self._protocol.cooldown_s:
            self._sleep(self._protocol.cooldown_s)
        idle_power_w = self._idle_power_w()
        return idle_power_w, self._warm_up()

    def window(self, window_s: float | None = None) -> tuple[Window, int]:
        """Measure one window of ``window_s``, by default the protocol's, and count its batches.

        Raises:
            MeterError: the sensor was lost.
        """
        length_s = self._protocol.window_s if window_s is None else window_s
        self._meter.begin(self._work)
        # Exclude batches that ran while the meter waited for a step.
        self._n_batches = 0
        started = self._clock()
        while self._clock() - started < length_s:
            self._work()
        window = self._meter.end(self._work)
        return window, self._n_batches

    def _warm_up(self) -> tuple[str, ...]:
        protocol = self._protocol
        started = self._clock()
        # With a thermometer, ``_settle`` decides on the rest of the warm-up.
        least_s = protocol.warmup_s
        if not self._meter.is_estimate:
            least_s = min(least_s, _WARMUP_STEP_S)
        while True:
            self._work()
            elapsed_s = self._clock() - started
            if self._n_batches >= protocol.warmup_iterations and elapsed_s >= least_s:
                break
        # Long chunks make the cost of reading clocks and sensors between them negligible.
        per_batch_s = elapsed_s / self._n_batches
        if protocol.regime == "throughput":
            self._chunk = max(1, math.ceil(protocol.chunk_s / max(per_batch_s, 1e-9)))
        if self._meter.is_estimate:
            return ()
        # The counter's period is measured under load, and the window of idle power has none.
        self._meter.measure_tick(self._work)
        return self._settle(started)

    def _settle(self, started_s: float) -> tuple[str, ...]:
        """Work until the temperature is stable; return a flag after ``warmup_max_s``."""
        protocol = self._protocol
        temperatures: list[tuple[float, float]] = []
        while self._clock() - started_s < protocol.warmup_max_s:
            now_c = self.window(_WARMUP_STEP_S)[0].temperature_c
            elapsed_s = self._clock() - started_s
            if now_c is None:
                if elapsed_s >= protocol.warmup_s:
                    return ()
                continue
            temperatures.append((self._clock(), now_c))
            if elapsed_s >= protocol.warmup_s and self._is_stable(temperatures):
                return ()
        return ("still_warming",)

    def _is_stable(self, temperatures: list[tuple[float, float]]) -> bool:
        """Return whether a line through the last ``warmup_span_s`` is nearly flat.

        A single second is too short, since thermometers return whole degrees.
        """
        protocol = self._protocol
        last_s = temperatures[-1][0]
        # A step is a second plus the wait for the counter, hence the half step of tolerance.
        recent = [(t, c) for t, c in temperatures if last_s - t <= protocol.warmup_span_s]
        if last_s - temperatures[0][0] < protocol.warmup_span_s - _WARMUP_STEP_S / 2:
            return False
        if len(recent) < 2:
            return True
        slope_c = linear_regression(*zip(*recent, strict=True)).slope * protocol.warmup_span_s
        return slope_c <= protocol.warmup_slope_c

    def _idle_power_w(self) -> float | None:
        if self._protocol.idle_s == 0 or self._meter.is_estimate:
            # An idle process uses no CPU time, so an estimate would be 0 W, which is wrong.
            return None

        def wait() -> None:
            self._sleep(0.01)

        self._meter.begin(wait)
        self._sleep(self._protocol.idle_s)
        window = self._meter.end(wait)
        return window.energy_j / window.duration_s

    def _work(self) -> None:
        for _ in range(self._chunk):
            self._call()
        self._sync()
        self._n_batches += self._chunk


def run_windows(
    loop: WindowLoop, protocol: Protocol, on_window: Callable[[int, float], None] | None = None
) -> Measurement:
    """Repeat windows until the interval is narrow enough.

    Windows that throttled, or during which another process computed, are repeated. After each
    accepted window ``on_window`` is called with their number and the relative half-width so far,
    which is infinite while they are too few.

    Raises:
        MeterError: the sensor was lost, or more windows were spoilt than allowed.
    """
    idle_power_w, flags = loop.prepare()
    windows: list[Window] = []
    batches: list[int] = []
    n_rejected = 0
    converged = False
    all_flags = set(flags)
    while len(windows) < protocol.max_repeats and not converged:
        window, n_batches = loop.window()
        # Include flags of rejected windows, since throttling may affect the others.
        all_flags |= set(window.flags)
        if is_rejected(window):
            n_rejected += 1
            if n_rejected > protocol.max_rejected:
                raise refusal(n_rejected, window)
            continue
        windows.append(window)
        batches.append(n_batches)
        width = math.inf
        if len(windows) >= protocol.min_repeats:
            energies = [w.energy_j / n for w, n in zip(windows, batches, strict=True)]
            width = Estimate.of_median(energies).half_width
            converged = width <= protocol.target_half_width
        if on_window is not None:
            on_window(len(windows), width)
    if len({window.power_limit_w for window in windows}) > 1:
        all_flags.add(LIMITS_CHANGED)
    return Measurement(
        tuple(windows),
        tuple(batches),
        converged,
        n_rejected,
        idle_power_w,
        tuple(sorted(all_flags)),
    )
