"""Joules of NVIDIA GPUs by NVML. The one door to ``pynvml``.

Sources in order of preference, probed by calling them:

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
# Steps whose median is the period.
_PERIOD_TICKS = 5
_SAMPLE_S = 0.02
_SLOW_SAMPLE_S = 0.5
# A counter may differ by this much from integrated power before it is flagged.
_CROSS_CHECK = 0.05
# Slowdowns by software and hardware: the clock was not the requested one.
_REJECTED_REASONS = {
    0x8: "hw_slowdown",
    0x20: "thermal_throttle",
    0x40: "thermal_throttle",
    0x80: "power_brake",
}


def load_pynvml() -> ModuleType:
    """Return the ``pynvml`` module, initialised.

    Raises:
        MeterError: there is no NVIDIA driver; the message has a remedy.
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


def board_uuid(device: str, nvml: Any = None) -> str | None:
    """Return the UUID of the board that this process calls ``device`` (``cuda:N``).

    The UUID is the same in every process, whatever CUDA hides and renumbers. ``None`` if there is
    no driver or no such board.
    """
    try:
        board = visible_gpu(int(device.partition(":")[2] or 0))
        return find_uuid(load_pynvml() if nvml is None else nvml, board)
    except MeterError:
        return None


class NvmlMeter(Meter):
    """``Meter`` over one GPU or the sum of several, each named by index or UUID."""

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
        """Open the devices; ``nvml``, the clock and the sampling thread may be replaced in tests.

        ``own_pids`` are our processes on the devices, this one alone by default.

        Raises:
            MeterError: a device is absent, in MIG mode, or reports no energy or power.
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
            raise MeterError("devices must name one GPU or more, got none")
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
        self._steps = StepWatcher(self._counts, clock, background=background)
        # The counter's own period in seconds; None before it is measured.
        self.tick_s: float | None = None

    def count_joules_only(self) -> None:
        """See ``Meter.count_joules_only``; a board without a counter is sampled twice a second."""
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
        """See ``Meter.measure_tick``; the first board's, since boards step alike."""
        if not self._has_counter:
            return
        first = next(iter(self._handles))
        seen = self._steps.follow(work, _PERIOD_TICKS + 1)[first]
        self.tick_s = median(later - earlier for (earlier, _), (later, _) in pairwise(seen))

    def begin(self, work: Work) -> None:
        """See ``Meter.begin``."""
        if self._opened_s is not None:
            raise MeterError("a window is already open")
        self._failure = None
        self._samples = []
        self._seen_reasons: int | None = None
        self._seen_flags: set[str] = set()
        if not self._joules_only:
            # At both ends, since a process that exits before the end has spoilt the window. Before
            # the counter steps, since the device idles while the driver lists processes.
            self._seen_flags = self._processes.flags()
            self._processes.reset_use()
        self._start_steps = self._steps.wait(work) if self._has_counter else {}
        self._opened_s = self._clock()
        if self._joules_only and self._has_counter:
            return
        if self._background:
            self._stop.clear()
            self._thread = threading.Thread(target=self._sample_on, daemon=True)
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
            # Before the thread is joined, which may wait for a sensor while the device idles.
            duration_s = self._clock() - opened_s
            self._join()
        if self._joules_only and self._has_counter:
            return Window(self._mean_power_w(end_steps) * duration_s, duration_s)
        self.sample()
        if self._failure is not None:
            raise self._failure
        sampled_w = self._sampled_power_w()
        power_w = self._mean_power_w(end_steps) if self._has_counter else sampled_w
        flags = self._seen_flags | self._throttle_flags()
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
            throttle_reasons=self._seen_reasons,
            cross_check=cross_check,
            flags=tuple(sorted(flags)),
        )

    def sample(self) -> None:
        """Read summed power and throttle reasons once.

        Raises:
            MeterError: the sensor is lost.
        """
        reasons = self._reasons()
        if reasons is not None:
            # Accumulated, since throttling that ends before the window has spoilt it.
            self._seen_reasons = (self._seen_reasons or 0) | reasons
        if self._read_power is not None:
            watts = sum(self._read_power(handle) for handle in self._handles.values())
            self._samples.append((self._clock(), watts))

    def poll(self) -> None:
        """Poll the counter, as a thread does unless ``background`` is off."""
        self._steps.poll()

    def close(self) -> None:
        """See ``Meter.close``."""
        self._opened_s = None
        self._join()

    def _open(self, device: int | str) -> Any:
        nvml = self._nvml
        if isinstance(device, int):
            self._check_order(device)
        try:
            # CUDA accepts a prefix of a UUID, and the driver does not.
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
            mode = 0  # boards without MIG raise
        if mode:
            raise MeterError(mig_sentence(device))
        return handle

    def _check_order(self, device: int) -> None:
        """Reject an ambiguous index: CUDA's default order puts the fastest board first."""
        nvml = self._nvml
        names = {
            text(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(i)))
            for i in range(nvml.nvmlDeviceGetCount())
        }
        if len(names) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            raise MeterError(
                f"GPU {device} may be another board for CUDA than for NVML, since this machine "
                f"has {', '.join(sorted(names))}: set CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )

    def _probe(self) -> str:
        """Call each source on every board, and return the best that all of them support."""
        refusals = []
        power = None
        for name, read in (
            ("nvml-instant-power", self._instant_power_w),
            ("nvml-power-usage", self._power_usage_w),
        ):
            try:
                for handle in self._handles.values():
                    read(handle)
            except MeterError as error:
                refusals.append(str(error))
                continue
            self._read_power, power = read, name
            break
        try:
            self._counts()
        except MeterError as error:
            self._has_counter = False
            if power is None:
                raise MeterError(
                    f"GPU reports neither energy nor power: {'; '.join([str(error), *refusals])}"
                ) from None
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
            raise MeterError(self._cause("the energy counter was lost", error)) from None

    def _mean_power_w(self, end_steps: dict[str, Step]) -> float:
        """Return the sum of the devices' watts, each between two steps of its counter."""
        watts = 0.0
        for uuid, (start_s, start_mj) in self._start_steps.items():
            end_s, end_mj = end_steps[uuid]
            # Unsigned 64 bits never wrap in practice, so only a reset counts backwards.
            if end_mj < start_mj:
                raise MeterError("the energy counter went backwards: was the driver reloaded?")
            watts += (end_mj - start_mj) / 1e3 / (end_s - start_s)
        return watts

    def _instant_power_w(self, handle: Any) -> float:
        try:
            values = self._nvml.nvmlDeviceGetFieldValues(handle, [_FIELD_POWER_INSTANT])
        except self._nvml.NVMLError as error:
            raise MeterError(self._cause("instant power was lost", error)) from None
        value = values[0]
        if value.nvmlReturn != 0:
            raise MeterError(f"instant power is not supported (code {value.nvmlReturn})")
        return float(value.value.uiVal) / 1e3

    def _power_usage_w(self, handle: Any) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3
        except self._nvml.NVMLError as error:
            raise MeterError(self._cause("power was lost", error)) from None

    def _cause(self, what: str, error: Exception) -> str:
        hint = ""
        if "permission" in str(error).lower():
            hint = ": ask for access to the GPU's counters, or run as root"
        return f"{what}: {error}{hint}"

    def _sampled_power_w(self) -> float:
        """Return mean watts of the samples by the trapezoid rule, 0 without samples."""
        if not self._samples:
            return 0.0
        span_s = self._samples[-1][0] - self._samples[0][0]
        sampled_j = sum(
            (t1 - t0) * (p0 + p1) / 2 for (t0, p0), (t1, p1) in pairwise(self._samples)
        )
        return sampled_j / span_s if span_s > 0 else self._samples[-1][1]

    def _throttle_flags(self) -> set[str]:
        reasons = self._seen_reasons or 0
        return {name for bit, name in _REJECTED_REASONS.items() if reasons & bit}

    def _reasons(self) -> int | None:
        by_board = [
            maybe(self._nvml, "nvmlDeviceGetCurrentClocksEventReasons", handle)
            for handle in self._handles.values()
        ]
        reported = [int(reasons) for reasons in by_board if reasons is not None]
        combined = 0
        for reasons in reported:
            combined |= reasons
        return combined if reported else None

    def _sample_on(self) -> None:
        every_s = _SLOW_SAMPLE_S if self._joules_only else _SAMPLE_S
        while True:
            try:
                self.sample()
            except MeterError as error:
                self._failure = error
                return
            if self._stop.wait(every_s):
                return

    def _join(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
