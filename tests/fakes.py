"""Deterministic stand-ins: a clock that only moves when told, and an NVIDIA driver on it."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from predictors.measurement.process import MeasureError, MeasureTimeout
from predictors.measurement.windows import WindowLoop, run_windows
from predictors.measurement.worker import make_record
from predictors.meters.base import Meter, MeterError, Window
from predictors.meters.nvml import NvmlMeter


class FakeClock:
    """Seconds that pass only by ``advance``."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class FakeMeter(Meter):
    """A meter whose device draws ``power_w`` whenever the clock moves."""

    name, source, device, is_estimate = "fake", "fake-counter", "Fake device", False

    def __init__(self, clock: FakeClock, power_w: float = 50.0) -> None:
        self._clock, self.power_w = clock, power_w
        self._opened_s: float | None = None
        self.flags: list[tuple[str, ...]] = []
        self.temperatures_c: list[float] = []

    def begin(self, work) -> None:
        if self._opened_s is not None:
            raise MeterError("a window is already open")
        self._opened_s = self._clock()

    def end(self, work) -> Window:
        if self._opened_s is None:
            raise MeterError("no window is open")
        duration_s = self._clock() - self._opened_s
        self._opened_s = None
        flags = self.flags.pop(0) if self.flags else ()
        temperature_c = self.temperatures_c.pop(0) if self.temperatures_c else None
        return Window(
            self.power_w * duration_s, duration_s, temperature_c=temperature_c, flags=flags
        )

    def close(self) -> None:
        self._opened_s = None


class FakeNvmlError(Exception):
    pass


@dataclass
class FakeGpu:
    """One board. ``power_w`` may be changed at any time; its counter steps each ``tick_s``."""

    uuid: str = "GPU-0"
    name: str = "Fake GPU"
    power_w: float = 300.0
    tick_s: float = 0.1
    has_counter: bool = True
    has_instant: bool = True
    has_usage: bool = True
    mig: bool = False
    reasons: int = 0
    # Ours is 1 wherever a meter is asked not to take the number of the tests' own process.
    pids: tuple[int, ...] = (1,)
    # Seconds that listing them takes, in which nothing is given to the board to do.
    listing_s: float = 0.0
    # Watts meanwhile; None: what it drew before.
    idle_w: float | None = None
    # Percent of the SMs that processes use, by number; None: the driver does not tell.
    use: dict[int, int] | None = None
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None
    ecc: bool | None = None
    persistence: bool | None = None
    # Clocks by the driver's number of their domain: 1 is the SM's, 2 the memory's.
    clocks_mhz: dict[int, int] = field(default_factory=lambda: {1: 1700, 2: 2600})
    clock_limits_mhz: dict[int, int] = field(default_factory=dict)
    dead: bool = False
    # Names of what the driver says may not be read: energy, power, processes.
    forbidden: tuple[str, ...] = ()
    # Watts as a function of load in [0, 1], which ``FakeNvml.advance`` is told; None: ``power_w``.
    power_of_load: Callable[[float], float] | None = None
    # The counter reads this many times the true joules.
    counter_gain: float = 1.0
    _true_j: float = 0.0
    _shown_mj: int = 0
    _next_tick_s: float = field(default=0.0)


class FakeNvml:
    """The parts of ``pynvml`` that the meter calls, over fake boards and a fake clock."""

    NVMLError = FakeNvmlError

    def __init__(self, clock: FakeClock, *gpus: FakeGpu) -> None:
        self.clock, self.gpus = clock, list(gpus) or [FakeGpu()]
        for gpu in self.gpus:
            gpu._next_tick_s = clock() + gpu.tick_s
        # Called each millisecond, as the meter's threads look on a real board.
        self.watchers: list[Callable[[], None]] = []

    def advance(self, seconds: float, load: float = 1.0) -> None:
        """Let time pass at a load, in steps short enough that no tick is missed."""
        for gpu in self.gpus:
            if gpu.power_of_load is not None:
                gpu.power_w = gpu.power_of_load(load)
        end_s = self.clock() + seconds
        while self.clock() < end_s - 1e-12:
            step_s = min(0.001, end_s - self.clock())
            self.clock.advance(step_s)
            for gpu in self.gpus:
                gpu._true_j += gpu.power_w * step_s
                if self.clock() >= gpu._next_tick_s:
                    gpu._shown_mj = int(gpu._true_j * 1e3 * gpu.counter_gain)
                    gpu._next_tick_s += gpu.tick_s
            for watch in self.watchers:
                watch()

    def nvmlSystemGetDriverVersion(self):
        return "580.0"

    def nvmlDeviceGetHandleByIndex(self, index):
        if not 0 <= index < len(self.gpus):
            raise FakeNvmlError("Invalid Argument")
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        for gpu in self.gpus:
            if gpu.uuid == uuid:
                return gpu
        raise FakeNvmlError("Not Found")

    def nvmlDeviceGetUUID(self, gpu):
        return gpu.uuid.encode()

    def nvmlDeviceGetName(self, gpu):
        return gpu.name

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetMigMode(self, gpu):
        if not gpu.mig:
            raise FakeNvmlError("Not Supported")
        return 1, 1

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):
        if gpu.dead:
            raise FakeNvmlError("GPU is lost")
        if "energy" in gpu.forbidden:
            raise FakeNvmlError("Insufficient Permissions")
        if not gpu.has_counter:
            raise FakeNvmlError("Not Supported")
        return gpu._shown_mj

    def nvmlDeviceGetFieldValues(self, gpu, fields):
        assert fields == [186]
        if gpu.dead:
            raise FakeNvmlError("GPU is lost")
        if "power" in gpu.forbidden:
            raise FakeNvmlError("Insufficient Permissions")
        milliwatts = SimpleNamespace(uiVal=int(gpu.power_w * 1e3))
        return [SimpleNamespace(nvmlReturn=0 if gpu.has_instant else 3, value=milliwatts)]

    def nvmlDeviceGetPowerUsage(self, gpu):
        if gpu.dead:
            raise FakeNvmlError("GPU is lost")
        if "power" in gpu.forbidden:
            raise FakeNvmlError("Insufficient Permissions")
        if not gpu.has_usage:
            raise FakeNvmlError("Not Supported")
        return int(gpu.power_w * 1e3)

    def nvmlDeviceGetTemperature(self, gpu, sensor):
        return 55

    def nvmlDeviceGetClockInfo(self, gpu, clock):
        return gpu.clocks_mhz[clock]

    def nvmlDeviceGetApplicationsClock(self, gpu, clock):
        return self._supported(gpu.clock_limits_mhz.get(clock))

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu):
        return int(self._supported(gpu.power_limit_w) * 1e3)

    def nvmlDeviceGetPowerManagementDefaultLimit(self, gpu):
        return int(self._supported(gpu.default_power_limit_w) * 1e3)

    def nvmlDeviceGetEccMode(self, gpu):
        return [int(self._supported(gpu.ecc)), 1]

    def nvmlDeviceGetPersistenceMode(self, gpu):
        return int(self._supported(gpu.persistence))

    @staticmethod
    def _supported(value):
        if value is None:
            raise FakeNvmlError("Not Supported")
        return value

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu):
        return gpu.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, gpu):
        if "processes" in gpu.forbidden:
            raise FakeNvmlError("Insufficient Permissions")
        if gpu.listing_s:
            power_w = gpu.power_w
            gpu.power_w = power_w if gpu.idle_w is None else gpu.idle_w
            self.advance(gpu.listing_s)
            gpu.power_w = power_w
        return [SimpleNamespace(pid=pid) for pid in gpu.pids]

    def nvmlDeviceGetProcessUtilization(self, gpu, since_us):
        now_us = int(self.clock() * 1e6)
        if not self._supported(gpu.use) or now_us <= since_us:
            raise FakeNvmlError("Not Found")
        return [
            SimpleNamespace(pid=pid, timeStamp=now_us, smUtil=use) for pid, use in gpu.use.items()
        ]


class FakeZeusMonitor:
    """The part of ``zeus.monitor.ZeusMonitor`` 0.16 that the adapter calls, over a fake clock."""

    def __init__(self, clock: FakeClock, power_w: float = 50.0, part: str = "gpu") -> None:
        self._clock, self.power_w, self._part = clock, power_w, part
        self.soc_is_present = part in ("apple", "jetson")
        self.soc = SimpleNamespace()
        self.cpu_indices = [0, 1] if part == "cpu" else []
        self.gpus = SimpleNamespace(get_name=lambda index: f"Fake GPU {index}")
        self.dead = False
        self._opened_s: dict[str, float] = {}

    def begin_window(self, key, sync_execution=True, restart=False):
        assert restart or key not in self._opened_s
        self._opened_s[key] = self._clock()

    def end_window(self, key, sync_execution=True, cancel=False):
        if self.dead:
            raise RuntimeError("GPU is lost")
        joules = self.power_w * (self._clock() - self._opened_s.pop(key))
        soc = None
        if self._part == "jetson":
            soc = SimpleNamespace(total_energy_mj=joules * 1e3, cpu_energy_mj=1.0)
        elif self._part == "apple":
            soc = SimpleNamespace(cpu_total_mj=joules * 600, gpu_mj=joules * 400, dram_mj=None)
        return SimpleNamespace(
            gpu_energy={0: joules} if self._part == "gpu" else {},
            cpu_energy={0: joules / 2, 1: joules / 2} if self._part == "cpu" else None,
            soc_energy=soc,
        )


class FakeLab:
    """A fake board that measures plan items: known joules each, a power that drifts, and faults.

    ``power_w`` and ``batch_s`` give an item's true power and time a batch; ``drift`` maps seconds
    since the start to a factor on the power.
    """

    IDLE_W = 80.0

    def __init__(self, protocol, *, drift=lambda s: 1.0, tick_s=0.1, item_timeout_s=600.0):
        self.clock = FakeClock()
        self.gpu = FakeGpu(power_w=self.IDLE_W, tick_s=tick_s)
        self.driver = FakeNvml(self.clock, self.gpu)
        self.protocol, self.drift = protocol, drift
        self.start_s = self.clock()
        # Hashes of architectures that fail, and of those that never end.
        self.fails: set[str] = set()
        self.hangs: set[str] = set()
        self.item_timeout_s = item_timeout_s
        self.measured = []
        self._lock = threading.Lock()
        # Where the measurement under way is broken off, whatever it does.
        self._until_s = float("inf")

    def power_w(self, item) -> float:
        return 200.0 + item.architecture.d_model

    def batch_s(self, item) -> float:
        return 0.001 * item.architecture.depth

    def true_j(self, item) -> float:
        """Joules per sample without drift."""
        return self.power_w(item) * self.batch_s(item) / item.workload.batch_size

    def _run(self, watts: float, seconds: float) -> None:
        self.gpu.power_w = watts * self.drift(self.clock() - self.start_s)
        left_s = self._until_s - self.clock()
        self.driver.advance(min(seconds, max(left_s, 0.0)))
        if seconds > left_s:
            self.clock.advance(1e-6)
            raise MeasureTimeout("measuring took longer than it was given")

    def __call__(self, item, timeout_s=None):
        # Waiting for the device is part of the time that an item is given.
        until_s = self.clock() + (float("inf") if timeout_s is None else timeout_s)
        # The device's lock, for slices that start items ahead.
        with self._lock:
            self._until_s = until_s
            return self._measure(item, timeout_s)

    def _measure(self, item, timeout_s):
        self.measured.append(item)
        if item.architecture.hash in self.hangs:
            given_s = min(self.item_timeout_s, timeout_s or self.item_timeout_s)
            self.clock.advance(given_s)
            raise MeasureTimeout(f"measuring took longer than {given_s:g} s")
        if item.architecture.hash in self.fails:
            raise MeasureError("no kernel for this shape")
        meter = NvmlMeter(
            (0,), nvml=self.driver, clock=self.clock, background=False, own_pids=lambda: {1}
        )

        def call():
            self._run(self.power_w(item), self.batch_s(item))
            # Sampling runs on a thread of its own on a real board.
            if meter._opened_s is not None:
                meter.sample()

        self.driver.watchers = [meter.poll]

        loop = WindowLoop(
            call,
            meter,
            self.protocol,
            clock=self.clock,
            sleep=lambda seconds: self._run(self.IDLE_W, seconds),
        )
        subject = SimpleNamespace(
            architecture=item.architecture,
            workload=item.workload,
            protocol=self.protocol,
            mode="cuda-graph",
            meter=meter,
            seed=0,
            has_real_inputs=False,
            compile_s=0.0,
            flags=(),
            origin="",
            runtime="torch",
            versions={},
        )
        record = make_record(subject, run_windows(loop, self.protocol), held_s=1.0)
        date = datetime.datetime.fromtimestamp(self.clock(), datetime.UTC)
        return replace(record, date=date.isoformat(timespec="milliseconds"))
