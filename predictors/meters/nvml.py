"""Joules of NVIDIA GPUs by NVML. The one door to ``pynvml``.

Sources in order of trust, probed by calling them:

1. ``nvmlDeviceGetTotalEnergyConsumption``: millijoules since the driver was loaded (Volta and
   later). The counter steps each 20 to 100 ms, so windows begin and end at a step while work
   goes on: a 1 s window that ignores the steps errs by up to 12%.
2. field 186, instant power, integrated by the trapezoid rule.
3. ``nvmlDeviceGetPowerUsage``, a one-second average on most boards, integrated likewise.

On A100 and H100 instant power is sampled a quarter of the time only (Yang et al. 2023,
arXiv 2312.02741), which is why the counter comes first.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from types import ModuleType
from typing import Any

from predictors.meters.base import MeterError, Window, Work

_FIELD_POWER_INSTANT = 186
# Longer than any step seen, so a counter that has not moved by then is dead.
_TICK_TIMEOUT_S = 2.0
# Steps whose median is the period, measured once a meter, under the first window's load.
_PERIOD_TICKS = 5
_SAMPLE_S = 0.02
# Thermal slowdown by software and hardware, power brake: the clock was not the one asked for.
_REJECTED_REASONS = {0x20: "thermal_throttle", 0x40: "thermal_throttle", 0x80: "power_brake"}


def load_pynvml() -> ModuleType:
    """The ``pynvml`` module, initialised.

    Raises:
        MeterError: there is no NVIDIA driver here; says what to do.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise MeterError(
            f"NVML cannot start ({error}): an NVIDIA GPU and its driver are needed"
        ) from None
    loaded: ModuleType = pynvml
    return loaded


class NvmlMeter:
    """``Meter`` over one GPU or the sum of several, each named by index or UUID."""

    name = "nvml"
    is_estimate = False

    def __init__(
        self,
        devices: Sequence[int | str] = (0,),
        *,
        nvml: Any = None,
        clock: Callable[[], float] = time.perf_counter,
        own_pids: Callable[[], set[int]] = lambda: {os.getpid()},
        background: bool = True,
    ) -> None:
        """Open the devices; ``nvml``, the clock and the sampling thread may be replaced in tests.

        Raises:
            MeterError: a device is absent, in MIG mode, or reports no energy or power.
        """
        self._nvml = load_pynvml() if nvml is None else nvml
        self._clock, self._own_pids, self._background = clock, own_pids, background
        self._opened_s: float | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._samples: list[tuple[float, float]] = []
        self._failure: MeterError | None = None
        if not devices:
            raise MeterError("devices must name one GPU or more, got none")
        self._handles = {}
        for device in devices:
            handle = self._open(device)
            self._handles[self._text(self._nvml.nvmlDeviceGetUUID(handle))] = handle
        names = [self._text(self._nvml.nvmlDeviceGetName(h)) for h in self._handles.values()]
        self.device = " + ".join(names)
        self.driver_version = self._maybe(self._nvml.nvmlSystemGetDriverVersion)
        if self.driver_version is not None:
            self.driver_version = self._text(self.driver_version)
        self._read_power: Callable[[Any], float] = self._instant_power_w
        self.source = self._probe()
        # The counter's own period under load, in seconds; None before the first window.
        self.tick_s: float | None = None
        # Relative difference of the counter from integrated power in the last window.
        self.cross_check: float | None = None

    def begin(self, work: Work) -> None:
        """See ``Meter.begin``."""
        if self._opened_s is not None:
            raise MeterError("a window is already open")
        self._failure = None
        self._samples = []
        self._seen_reasons: int | None = None
        self._start_ticks = {}
        if self._has_counter:
            if self.tick_s is None:
                self.tick_s = self._measure_period_s(work)
            self._start_ticks = self._wait_for_ticks(work)
        self._opened_s = self._clock()
        self.sample()
        if self._background:
            self._stop.clear()
            self._thread = threading.Thread(target=self._sample_on, daemon=True)
            self._thread.start()

    def end(self, work: Work) -> Window:
        """See ``Meter.end``."""
        if self._opened_s is None:
            raise MeterError("no window is open")
        try:
            end_ticks = self._wait_for_ticks(work) if self._has_counter else {}
        finally:
            opened_s, self._opened_s = self._opened_s, None
            self._join()
        duration_s = self._clock() - opened_s
        self.sample()
        if self._failure is not None:
            raise self._failure
        integrated_j = self._integrate()
        if self._has_counter:
            energy_j = self._mean_power_w(end_ticks) * duration_s
        else:
            energy_j = integrated_j
        flags = self._flags()
        if self._has_counter and integrated_j > 0:
            self.cross_check = energy_j / integrated_j - 1
            if abs(self.cross_check) > 0.05:
                flags.append("counter_differs_from_power")
        first = next(iter(self._handles.values()))
        return Window(
            energy_j=energy_j,
            duration_s=duration_s,
            temperature_c=self._maybe(self._nvml.nvmlDeviceGetTemperature, first, 0),
            sm_clock_mhz=self._maybe(self._nvml.nvmlDeviceGetClockInfo, first, 1),
            power_limit_w=self._maybe(
                lambda h: self._nvml.nvmlDeviceGetEnforcedPowerLimit(h) / 1e3, first
            ),
            throttle_reasons=self._seen_reasons,
            flags=tuple(flags),
        )

    def sample(self) -> None:
        """Take one reading of summed power and throttle reasons, as often as it is called.

        Raises:
            MeterError: the sensor is lost.
        """
        watts = 0.0
        for handle in self._handles.values():
            watts += self._read_power(handle)
        reasons = self._reasons()
        if reasons is not None:
            # Kept over the window: throttling that ends before the window does still spoilt it.
            self._seen_reasons = (self._seen_reasons or 0) | reasons
        self._samples.append((self._clock(), watts))

    def close(self) -> None:
        """See ``Meter.close``."""
        self._opened_s = None
        self._join()

    def _open(self, device: int | str) -> Any:
        nvml = self._nvml
        try:
            handle = (
                nvml.nvmlDeviceGetHandleByIndex(device)
                if isinstance(device, int)
                else nvml.nvmlDeviceGetHandleByUUID(device)
            )
        except nvml.NVMLError as error:
            raise MeterError(f"GPU {device} cannot be opened: {error}") from None
        try:
            mode, _ = nvml.nvmlDeviceGetMigMode(handle)
        except nvml.NVMLError:
            mode = 0  # boards without MIG say that it is not supported
        if mode:
            raise MeterError(
                f"GPU {device} is in MIG mode: its counters cover the whole board, so the joules "
                f"of one slice cannot be told; measure on a board without MIG"
            )
        return handle

    def _probe(self) -> str:
        handle = next(iter(self._handles.values()))
        power = None
        for name, read in (
            ("nvml-instant-power", self._instant_power_w),
            ("nvml-power-usage", self._power_usage_w),
        ):
            try:
                read(handle)
            except MeterError:
                continue
            self._read_power, power = read, name
            break
        try:
            self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except self._nvml.NVMLError as error:
            self._has_counter = False
            if power is None:
                raise MeterError(f"GPU reports neither energy nor power: {error}") from None
            return power
        self._has_counter = True
        return "nvml-total-energy"

    def _counts(self) -> dict[str, int]:
        try:
            return {
                uuid: self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                for uuid, handle in self._handles.items()
            }
        except self._nvml.NVMLError as error:
            raise MeterError(f"the energy counter was lost: {error}") from None

    def _mean_power_w(self, end_ticks: dict[str, tuple[float, int]]) -> float:
        """Watts of all devices: each counter's gain over the time between its own two steps."""
        watts = 0.0
        for uuid, (start_s, start_mj) in self._start_ticks.items():
            end_s, end_mj = end_ticks[uuid]
            # Unsigned 64 bits never wrap in practice, so only a reset counts backwards.
            if end_mj < start_mj:
                raise MeterError("the energy counter went backwards: was the driver reloaded?")
            watts += (end_mj - start_mj) / 1e3 / (end_s - start_s)
        return watts

    def _measure_period_s(self, work: Work) -> float:
        """Median time between steps of the first device's counter, with work going on."""
        first = next(iter(self._handles))
        seen_s = [self._wait_for_ticks(work)[first][0] for _ in range(_PERIOD_TICKS + 1)]
        return median(later - earlier for earlier, later in pairwise(seen_s))

    def _wait_for_ticks(self, work: Work) -> dict[str, tuple[float, int]]:
        """When each device's counter next stepped and to which value, with work going on.

        Devices step at different times, so each keeps its own; see ``_mean_power_w``.
        """
        started = self._clock()
        before = self._counts()
        asked_s = started
        ticks: dict[str, tuple[float, int]] = {}
        while len(ticks) < len(before):
            work()
            now = self._counts()
            now_s = self._clock()
            for uuid, count in now.items():
                if uuid not in ticks and count != before[uuid]:
                    # It stepped at some time since it was last asked: on average half-way.
                    ticks[uuid] = ((asked_s + now_s) / 2, count)
            asked_s = now_s
            if len(ticks) < len(before) and now_s - started > _TICK_TIMEOUT_S:
                raise MeterError(f"the energy counter did not move for {now_s - started:.1f} s")
        return ticks

    def _instant_power_w(self, handle: Any) -> float:
        try:
            values = self._nvml.nvmlDeviceGetFieldValues(handle, [_FIELD_POWER_INSTANT])
        except self._nvml.NVMLError as error:
            raise MeterError(f"instant power was lost: {error}") from None
        value = values[0]
        if value.nvmlReturn != 0:
            raise MeterError(f"instant power is not supported (code {value.nvmlReturn})")
        return float(value.value.uiVal) / 1e3

    def _power_usage_w(self, handle: Any) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3
        except self._nvml.NVMLError as error:
            raise MeterError(f"power was lost: {error}") from None

    def _integrate(self) -> float:
        return sum((t1 - t0) * (p0 + p1) / 2 for (t0, p0), (t1, p1) in pairwise(self._samples))

    def _flags(self) -> list[str]:
        reasons = self._seen_reasons or 0
        flags = {name for bit, name in _REJECTED_REASONS.items() if reasons & bit}
        ours = self._own_pids()
        for handle in self._handles.values():
            try:
                running = self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            except self._nvml.NVMLError:
                continue
            pids = {process.pid for process in running}
            # In a container the driver names processes by the host's numbers, so ours is not
            # found among them: then one process is taken for ours, and a second is foreign.
            n_ours = len(pids & ours) or 1
            if len(pids) > n_ours:
                flags.add("foreign_process")
        return sorted(flags)

    def _reasons(self) -> int | None:
        found = [
            self._maybe(self._nvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
            for handle in self._handles.values()
        ]
        known = [int(reasons) for reasons in found if reasons is not None]
        combined = 0
        for reasons in known:
            combined |= reasons
        return combined if known else None

    def _maybe(self, read: Callable[..., Any], *arguments: Any) -> Any:
        """What ``read`` gives, or ``None`` where the sensor is absent."""
        try:
            return read(*arguments)
        except self._nvml.NVMLError:
            return None

    def _sample_on(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            try:
                self.sample()
            except MeterError as error:
                self._failure = error
                return

    def _join(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @staticmethod
    def _text(value: str | bytes) -> str:
        return value.decode() if isinstance(value, bytes) else value
