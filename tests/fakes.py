"""Deterministic stand-ins: a clock that only moves when told, and an NVIDIA driver on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

from predictors.meters.base import MeterError, Window


class FakeClock:
    """Seconds that pass only by ``advance``."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class FakeMeter:
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
    power_w: float = 300.0
    tick_s: float = 0.1
    has_counter: bool = True
    has_instant: bool = True
    has_usage: bool = True
    mig: bool = False
    reasons: int = 0
    pids: tuple[int, ...] = ()
    dead: bool = False
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

    def advance(self, seconds: float) -> None:
        """Let time pass in steps short enough that no tick is missed."""
        end_s = self.clock() + seconds
        while self.clock() < end_s - 1e-12:
            step_s = min(0.001, end_s - self.clock())
            self.clock.advance(step_s)
            for gpu in self.gpus:
                gpu._true_j += gpu.power_w * step_s
                if self.clock() >= gpu._next_tick_s:
                    gpu._shown_mj = int(gpu._true_j * 1e3 * gpu.counter_gain)
                    gpu._next_tick_s += gpu.tick_s

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
        return "Fake GPU"

    def nvmlDeviceGetMigMode(self, gpu):
        if not gpu.mig:
            raise FakeNvmlError("Not Supported")
        return 1, 1

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):
        if gpu.dead:
            raise FakeNvmlError("GPU is lost")
        if not gpu.has_counter:
            raise FakeNvmlError("Not Supported")
        return gpu._shown_mj

    def nvmlDeviceGetFieldValues(self, gpu, fields):
        assert fields == [186]
        if gpu.dead:
            raise FakeNvmlError("GPU is lost")
        milliwatts = SimpleNamespace(uiVal=int(gpu.power_w * 1e3))
        return [SimpleNamespace(nvmlReturn=0 if gpu.has_instant else 3, value=milliwatts)]

    def nvmlDeviceGetPowerUsage(self, gpu):
        if gpu.dead:
            raise FakeNvmlError("GPU is lost")
        if not gpu.has_usage:
            raise FakeNvmlError("Not Supported")
        return int(gpu.power_w * 1e3)

    def nvmlDeviceGetTemperature(self, gpu, sensor):
        return 55

    def nvmlDeviceGetClockInfo(self, gpu, clock):
        return 1700

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu):
        raise FakeNvmlError("Not Supported")

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu):
        return gpu.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, gpu):
        return [SimpleNamespace(pid=pid) for pid in gpu.pids]


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
