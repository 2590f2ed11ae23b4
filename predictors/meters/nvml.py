"""Joules of NVIDIA GPUs by NVML. Only this module imports ``pynvml``.

Sources in order of preference; a source is available if calling it succeeds:

1. ``nvmlDeviceGetTotalEnergyConsumption``: millijoules since the driver was loaded (Volta and
   later). The counter steps every 20 to 100 ms, so a window begins and ends at a step, under
   load. A window of 1 s that ignores the steps has an error of up to 12%.
2. Field 186, instant power, integrated by the trapezoid rule.
3. ``nvmlDeviceGetPowerUsage``, on most boards a one-second average, integrated in the same way.

The counter comes first because A100 and H100 sample instant power during a quarter of the time
only (Yang et al. 2023, arXiv 2312.02741).
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

from predictors.meters.base import Meter, MeterError, Window, Work
from predictors.meters.board import Board
from predictors.meters.nvml_board import (
    MEMORY_CLOCK,
    SM_CLOCK,
    find_uuid,
    maybe,
    read_board,
    text,
    watts,
)
from predictors.meters.nvml_processes import Processes
from predictors.meters.steps import Step, StepWatcher
from predictors.meters.visible import mig_sentence, visible_gpu

_FIELD_POWER_INSTANT = 186
# The counter's period is the median of so many.
_PERIOD_TICKS = 5
# Seconds between samples of power, and between those of ``count_joules_only``.
_SAMPLE_S = 0.02
_SLOW_SAMPLE_S = 0.5
# Relative difference between the counter and integrated power above which a window is flagged.
_CROSS_CHECK = 0.05
# NVML's bits of throttle reasons -> flags: the clock was lower than the requested one.
_THROTTLE_FLAGS = {
    0x8: "hw_slowdown",
    0x20: "thermal_throttle",
    0x40: "thermal_throttle",
    0x80: "power_brake",
}


def load_pynvml() -> ModuleType:
    """Return the ``pynvml`` module, initialised.

    Raises:
        MeterError: NVML cannot start; the message has the cause and a remedy.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise MeterError(
            f"NVML cannot start ({error}): an NVIDIA GPU and its driver are required"
        ) from None
    loaded: ModuleType = pynvml
    return loaded


def board_uuid(device: str, nvml: Any = None) -> str | None:
    """Return the UUID of the board that this process calls ``device`` (``cuda:N``).

    Unlike device numbers, UUIDs do not depend on ``CUDA_VISIBLE_DEVICES``. ``None`` if there is no
    driver or no such board.
    """
    try:
        board = visible_gpu(int(device.partition(":")[2] or 0))
        return find_uuid(load_pynvml() if nvml is None else nvml, board)
    except MeterError:
        return None


class NvmlMeter(Meter):
    """``Meter`` of one GPU, or of the sum of several, each given by its index or UUID."""

    name = "nvml"
    is_estimate = False

    def __init__(
        self,
        devices: Sequence[int | str] = (0,),
        *,
        nvml: Any = None,
        clock: Callable[[], float] = time.perf_counter,
        own_pids: Callable[[], set[int]] | None = None,
        background: bool = True,
    ) -> None:
        """Open the devices; tests replace ``nvml`` and ``clock``.

        ``own_pids`` returns the ids of our processes on the devices, by default only of this one.
        With ``background`` a thread samples and polls; else callers call ``sample`` and ``poll``.

        Raises:
            MeterError: a device is absent, is in MIG mode, or reports neither energy nor power.
        """
        self._nvml = load_pynvml() if nvml is None else nvml
        self._clock, self._background = clock, background
        self._joules_only = False
        self._opened_s: float | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._samples: list[tuple[float, float]] = []
        self._failure: MeterError | None = None
        if not devices:
            raise MeterError("devices must name at least one GPU, got none")
        self._handles = {}
        for device in devices:
            handle = self._open(device)
            self._handles[text(self._nvml.nvmlDeviceGetUUID(handle))] = handle
        self._processes = Processes(self._nvml, self._handles, own_pids)
        names = [text(self._nvml.nvmlDeviceGetName(h)) for h in self._handles.values()]
        self.device = " + ".join(names)
        version = maybe(self._nvml, "nvmlSystemGetDriverVersion")
        self.driver_version = None if version is None else text(version)
        self._read_power: Callable[[Any], float] | None = None
        self.source = self._probe()
        self._steps = StepWatcher(self._read_counters_mj, clock, background=background)
        self.tick_s: float | None = None

    def count_joules_only(self) -> None:
        """See ``Meter.count_joules_only``; without a counter, power is sampled twice a second."""
        self._joules_only = True

    def set_own_processes(self, own_pids: Callable[[], set[int]]) -> None:
        """See ``Meter.set_own_processes``."""
        self._processes.own_pids = own_pids

    def read_board(self) -> Board:
        """See ``Meter.read_board``."""
        return read_board(
            self._nvml, next(iter(self._handles.values())), " + ".join(self._handles)
        )

    def measure_tick(self, work: Work) -> None:
        """See ``Meter.measure_tick``; all boards have the period of the first one."""
        if not self._has_counter:
            return
        first = next(iter(self._handles))
        steps = self._steps.follow(work, _PERIOD_TICKS + 1)[first]
        self.tick_s = median(later - earlier for (earlier, _), (later, _) in pairwise(steps))

    def begin(self, work: Work) -> None:
        """See ``Meter.begin``."""
        if self._opened_s is not None:
            raise MeterError("a window is already open")
        self._failure = None
        self._samples = []
        self._window_reasons: int | None = None
        self._window_flags: set[str] = set()
        if not self._joules_only:
            # Processes are listed at both ends: one that exits before the end also disturbs the
            # window. This listing precedes the step, because the device idles during it.
            self._window_flags = self._processes.flags()
            self._processes.reset_use()
        self._start_steps = self._steps.wait(work) if self._has_counter else {}
        self._opened_s = self._clock()
        if self._joules_only and self._has_counter:
            return
        if self._background:
            self._stop.clear()
            self._thread = threading.Thread(target=self._sample_until_stopped, daemon=True)
            self._thread.start()
        else:
            self.sample()

    def end(self, work: Work) -> Window:
        """See ``Meter.end``."""
        if self._opened_s is None:
            raise MeterError("no window is open")
        try:
            end_steps = self._steps.wait(work) if self._has_counter else {}
        finally:
            opened_s, self._opened_s = self._opened_s, None
            # The window ends before the thread stops, which may wait for a sensor.
            duration_s = self._clock() - opened_s
            self._stop_sampling()
        if self._joules_only and self._has_counter:
            return Window(self._mean_power_w(end_steps) * duration_s, duration_s)
        self.sample()
        if self._failure is not None:
            raise self._failure
        sampled_w = self._sampled_power_w()
        power_w = self._mean_power_w(end_steps) if self._has_counter else sampled_w
        flags = self._window_flags | self._throttle_flags()
        if not self._joules_only:
            flags |= self._processes.flags() | self._processes.computing()
        cross_check = None
        if self._has_counter and sampled_w > 0:
            cross_check = power_w / sampled_w - 1
            if abs(cross_check) > _CROSS_CHECK:
                flags.add("counter_differs_from_power")
        elif self._has_counter:
            flags.add("no_cross_check")
        nvml, first = self._nvml, next(iter(self._handles.values()))
        temperatures_c = [
            maybe(nvml, "nvmlDeviceGetTemperature", handle, 0) for handle in self._handles.values()
        ]
        return Window(
            energy_j=power_w * duration_s,
            duration_s=duration_s,
            temperature_c=max((t for t in temperatures_c if t is not None), default=None),
            sm_clock_mhz=maybe(nvml, "nvmlDeviceGetClockInfo", first, SM_CLOCK),
            memory_clock_mhz=maybe(nvml, "nvmlDeviceGetClockInfo", first, MEMORY_CLOCK),
            power_limit_w=watts(nvml, "nvmlDeviceGetEnforcedPowerLimit", first),
            throttle_reasons=self._window_reasons,
            cross_check=cross_check,
            flags=tuple(sorted(flags)),
        )

    def sample(self) -> None:
        """Read the boards' total power and their throttle reasons once.

        Raises:
            MeterError: the sensor cannot be read.
        """
        reasons = self._read_throttle_reasons()
        if reasons is not None:
            # Throttling that ends before the window does also disturbs it.
            self._window_reasons = (self._window_reasons or 0) | reasons
        if self._read_power is not None:
            power_w = sum(self._read_power(handle) for handle in self._handles.values())
            self._samples.append((self._clock(), power_w))

    def poll(self) -> None:
        """Poll the counters once; with ``background`` a thread does so."""
        self._steps.poll()

    def close(self) -> None:
        """See ``Meter.close``."""
        self._opened_s = None
        self._stop_sampling()

    def _open(self, device: int | str) -> Any:
        nvml = self._nvml
        if isinstance(device, int):
            self._check_order(device)
        try:
            # CUDA accepts the beginning of a UUID, NVML does not.
            handle = (
                nvml.nvmlDeviceGetHandleByIndex(device)
                if isinstance(device, int)
                else nvml.nvmlDeviceGetHandleByUUID(find_uuid(nvml, device) or device)
            )
        except nvml.NVMLError as error:
            raise MeterError(f"GPU {device} cannot be opened: {error}") from None
        try:
            mode, _ = nvml.nvmlDeviceGetMigMode(handle)
        except nvml.NVMLError:
            # Boards without MIG refuse the call.
            mode = 0
        if mode:
            raise MeterError(mig_sentence(device))
        return handle

    def _check_order(self, device: int) -> None:
        """Reject an ambiguous index: by default CUDA numbers boards by speed, NVML by PCI bus."""
        nvml = self._nvml
        names = {
            text(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(i)))
            for i in range(nvml.nvmlDeviceGetCount())
        }
        if len(names) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            raise MeterError(
                f"GPU {device} is ambiguous: CUDA and NVML may number these boards in different "
                f"orders, {', '.join(sorted(names))}: set CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )

    def _probe(self) -> str:
        """Return the best source that every board supports; find the counter and power sensor."""
        errors = []
        power = None
        for name, read in (
            ("nvml-instant-power", self._instant_power_w),
            ("nvml-power-usage", self._power_usage_w),
        ):
            try:
                for handle in self._handles.values():
                    read(handle)
            except MeterError as error:
                errors.append(str(error))
                continue
            self._read_power, power = read, name
            break
        try:
            self._read_counters_mj()
        except MeterError as error:
            self._has_counter = False
            if power is None:
                raise MeterError(
                    f"GPU reports neither energy nor power: {'; '.join([str(error), *errors])}"
                ) from None
            return power
        self._has_counter = True
        return "nvml-total-energy"

    def _read_counters_mj(self) -> dict[str, int]:
        try:
            return {
                uuid: self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                for uuid, handle in self._handles.items()
            }
        except self._nvml.NVMLError as error:
            raise self._error("the energy counter cannot be read", error) from None

    def _mean_power_w(self, end_steps: dict[str, Step]) -> float:
        """Return the sum over boards of the mean power between two steps of the counter."""
        power_w = 0.0
        for uuid, (start_s, start_mj) in self._start_steps.items():
            end_s, end_mj = end_steps[uuid]
            # The counter has 64 bits and never overflows, so a decrease is a reset.
            if end_mj < start_mj:
                raise MeterError("the energy counter decreased: was the driver reloaded?")
            power_w += (end_mj - start_mj) / 1e3 / (end_s - start_s)
        return power_w

    def _instant_power_w(self, handle: Any) -> float:
        try:
            values = self._nvml.nvmlDeviceGetFieldValues(handle, [_FIELD_POWER_INSTANT])
        except self._nvml.NVMLError as error:
            raise self._error("instant power cannot be read", error) from None
        value = values[0]
        if value.nvmlReturn != 0:
            raise MeterError(f"instant power is not supported (code {value.nvmlReturn})")
        return float(value.value.uiVal) / 1e3

    def _power_usage_w(self, handle: Any) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3
        except self._nvml.NVMLError as error:
            raise self._error("power cannot be read", error) from None

    def _error(self, what: str, error: Exception) -> MeterError:
        hint = ""
        if "permission" in str(error).lower():
            hint = "; ask the administrator for access to the GPU's counters, or run as root"
        return MeterError(f"{what}: {error}{hint}")

    def _sampled_power_w(self) -> float:
        """Return the mean power of the samples by the trapezoid rule, 0 W without samples."""
        if not self._samples:
            return 0.0
        span_s = self._samples[-1][0] - self._samples[0][0]
        sampled_j = sum(
            (t1 - t0) * (p0 + p1) / 2 for (t0, p0), (t1, p1) in pairwise(self._samples)
        )
        return sampled_j / span_s if span_s > 0 else self._samples[-1][1]

    def _throttle_flags(self) -> set[str]:
        """Return the flags of the throttle reasons in this window."""
        reasons = self._window_reasons or 0
        return {name for bit, name in _THROTTLE_FLAGS.items() if reasons & bit}

    def _read_throttle_reasons(self) -> int | None:
        """Return the boards' throttle reasons as one bit mask, ``None`` if none reports them."""
        by_board = [
            maybe(self._nvml, "nvmlDeviceGetCurrentClocksEventReasons", handle)
            for handle in self._handles.values()
        ]
        reported = [int(reasons) for reasons in by_board if reasons is not None]
        combined = 0
        for reasons in reported:
            combined |= reasons
        return combined if reported else None

    def _sample_until_stopped(self) -> None:
        period_s = _SLOW_SAMPLE_S if self._joules_only else _SAMPLE_S
        while True:
            try:
                self.sample()
            except MeterError as error:
                self._failure = error
                return
            if self._stop.wait(period_s):
                return

    def _stop_sampling(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
