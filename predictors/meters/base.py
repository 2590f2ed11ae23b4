"""The ``Meter`` protocol, and the records ``Window`` and ``EnergyReading``.

A meter returns the joules between ``begin`` and ``end``. Repeats, window lengths and statistics
are the task of ``predictors.measurement``, in the same way for every meter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

from nas.core.estimate import Estimate
from nas.core.names import MOST_TEXT, TORCH, check_name, place_of
from nas.core.plain import from_plain
from predictors.meters.board import Board, Limits, describe_limits
from predictors.meters.flags import NOT_CONVERGED, describe_flag

# Half-width of a normal distribution's 95% interval, in standard deviations.
_Z = 1.96


class MeterError(RuntimeError):
    """A meter cannot return a reliable figure; the message has the cause and a remedy."""


@dataclass(frozen=True, slots=True)
class Window:
    """Figures of a meter between ``begin`` and ``end``; a missing sensor is ``None``, never 0.

    ``energy_j`` is gross joules of the device over ``duration_s``. ``flags`` names disturbances
    (``thermal_throttle``, ``foreign_process``, ...). ``dram_energy_j`` is the energy of memory
    that has its own sensor, and is not part of ``energy_j``. ``cross_check`` is the relative
    difference of the joules from those of a second source.
    """

    energy_j: float
    duration_s: float
    dram_energy_j: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    power_limit_w: float | None = None
    throttle_reasons: int | None = None
    cross_check: float | None = None
    flags: tuple[str, ...] = ()


Work = Callable[[], None]


@runtime_checkable
class Meter(Protocol):
    """Meter of the energy of one device, or of the sum of several, over a window.

    Implementations derive from it and must define ``begin``, ``end`` and ``close``. The default of
    every other method is right for a device without that capability.

    Attributes:
        name: Name on the command line: ``nvml``, ``rapl``, ``estimate``.
        source: Origin of the joules, stored with every reading, such as ``nvml-total-energy``.
        device: The device's name, such as ``NVIDIA H200``.
        is_estimate: Whether joules are computed from an assumed power instead of a sensor.
        driver_version: Version of the device's driver, ``None`` without a driver.
        tick_s: Seconds between steps of the counter; ``None`` before they are measured, or if the
            counter has no steps.
    """

    name: str
    source: str
    device: str
    is_estimate: bool
    driver_version: str | None = None
    tick_s: float | None = None

    def begin(self, work: Work) -> None:
        """Start a window.

        A meter whose counter steps calls ``work`` until the next step to keep the device under
        load. ``work`` returns when the device has finished.

        Raises:
            MeterError: the sensor cannot be read, or a window is already open.
        """

    def end(self, work: Work) -> Window:
        """End the window at the next step of the counter, calling ``work`` until then.

        Callers count the batches that ``work`` runs here, because they belong to the window.

        Raises:
            MeterError: the sensor cannot be read, or no window is open.
        """

    def close(self) -> None:
        """Release the sensor; a second call has no effect."""

    def measure_tick(self, work: Work) -> None:
        """Measure ``tick_s`` while ``work`` keeps the device under load; callers warm it up first.

        Raises:
            MeterError: the sensor cannot be read.
        """
        return

    def read_board(self) -> Board | None:
        """Return the settings of the (first) board, or ``None`` if it reports none."""
        return None

    def count_joules_only(self) -> None:
        """Read only joules in later windows, which last minutes during training."""
        return

    def set_own_processes(self, own_pids: Callable[[], set[int]]) -> None:
        """Treat the processes that ``own_pids`` returns as ours, and all others as foreign."""
        return


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """Joules per ``unit`` of one model on one workload and device, with a 95% interval.

    ``energy_j`` is the median over repeats of the device's gross joules per ``unit`` (``sample``,
    ``generated token``, ...). ``low_j`` and ``high_j`` are the bounds of its interval: that of the
    windows of one process, or, after ``between_sessions``, a prediction interval for the median of
    a new process in a new session. Then ``between_sd`` is the relative standard deviation between
    sessions and processes that it contains, and ``window_half_width`` the relative half-width of
    the windows' interval.
    ``net_energy_j`` is without the joules of idling, ``None`` if these were not measured.
    ``latency_s`` is seconds per batch. ``duration_s`` is the total time of the windows. ``driver``
    is the version of the device's driver, ``board`` its settings and ``host`` the name of the
    machine, if known. ``runtime`` is what ran the model. ``flags`` names disturbances
    (``predictors.meters.flags``), and ``n_rejected`` is the number of windows that were repeated
    because of them.
    """

    energy_j: float
    low_j: float
    high_j: float
    n_repeats: int
    converged: bool
    meter: str
    source: str
    is_estimate: bool
    device: str
    workload: str
    batch_size: int
    latency_s: float
    power_w: float
    duration_s: float
    protocol_hash: str
    net_energy_j: float | None = None
    unit: str = "sample"
    driver: str | None = None
    flags: tuple[str, ...] = ()
    n_rejected: int = 0
    host: str | None = None
    board: Board | None = None
    between_sd: float = 0.0
    window_half_width: float | None = None
    runtime: str = TORCH

    def __post_init__(self) -> None:
        """Check that figures are finite, positive and consistent."""
        for name in ("energy_j", "low_j", "high_j", "latency_s", "power_w", "duration_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be finite and > 0, got {value!r}")
        if not self.low_j <= self.energy_j <= self.high_j:
            raise ValueError(
                f"low_j <= energy_j <= high_j must hold, got "
                f"{self.low_j!r}, {self.energy_j!r}, {self.high_j!r}"
            )
        if self.n_repeats < 1:
            raise ValueError(f"n_repeats must be >= 1, got {self.n_repeats!r}")
        if not (math.isfinite(self.between_sd) and self.between_sd >= 0):
            raise ValueError(f"between_sd must be finite and >= 0, got {self.between_sd!r}")

    def between_sessions(self, sd: float) -> EnergyReading:
        """Return this reading of one process with the interval of a new process and session.

        ``sd`` is the relative standard deviation between sessions and processes of the device. The
        next median differs from this one by twice the variance: both have an error of their own.
        """
        if sd == 0:
            return self
        within_sd = math.log(self.high_j / self.low_j) / (2 * _Z)
        factor = math.exp(_Z * math.sqrt(2) * math.hypot(within_sd, sd))
        return replace(
            self,
            low_j=self.energy_j / factor,
            high_j=self.energy_j * factor,
            between_sd=sd,
            window_half_width=self.half_width,
        )

    @property
    def relative_sd(self) -> float:
        """Relative standard deviation of ``energy_j`` as an estimate of the device's level."""
        sd = math.log(self.high_j / self.low_j) / (2 * _Z)
        return sd / math.sqrt(2) if self.between_sd else sd

    @property
    def half_width_in_process(self) -> float:
        """Half-width, relative to ``energy_j``, of the 95% interval of the windows alone."""
        return self.half_width if self.window_half_width is None else self.window_half_width

    @property
    def estimate(self) -> Estimate:
        """The joules per ``unit`` with their interval."""
        return Estimate(self.energy_j, self.low_j, self.high_j, self.source)

    @property
    def device_type(self) -> str:
        """The type of device that ran the model, as torch names it: ``cuda`` or ``cpu``."""
        return "cuda" if self.source.startswith(_OF_CUDA) else "cpu"

    @property
    def place(self) -> str:
        """The device with its runtime: readings of one place may be compared."""
        return place_of(self.device, self.runtime)

    @property
    def half_width(self) -> float:
        """Half-width of the 95% interval relative to ``energy_j``."""
        return self.estimate.half_width

    @property
    def caveats(self) -> tuple[str, ...]:
        """All flags, with ``not_converged`` if the interval is too wide."""
        return self.flags if self.converged else (*self.flags, NOT_CONVERGED)

    @property
    def limits(self) -> Limits | None:
        """Limits of the board, ``None`` if there is no board."""
        return None if self.board is None else self.board.limits

    @property
    def limits_text(self) -> str:
        """Description of the limits, empty if they are unknown."""
        return describe_limits(self.limits)

    @property
    def caveat_texts(self) -> tuple[tuple[str, str], ...]:
        """Each of ``caveats`` with its description."""
        return tuple((flag, describe_flag(flag)) for flag in self.caveats)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; ``from_dict`` reads it."""
        data = asdict(self) | {"flags": list(self.flags)}
        if not self.between_sd:
            # Left out, so that readings of one process stay as they are.
            del data["between_sd"], data["window_half_width"]
        if self.runtime == TORCH:
            # As in readings from before there were others.
            del data["runtime"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EnergyReading:
        """Read the result of ``to_dict``.

        Raises:
            ValueError: a key is missing or unknown, or a value is not allowed.
        """
        reading = from_plain(cls, data, "energy reading")
        names = ("meter", "source", "device", "workload", "protocol_hash", "unit", "runtime")
        for name in names:
            check_name(name, getattr(reading, name), most=MOST_TEXT)
        return reading


# Prefixes of ``source`` of meters that read NVIDIA GPUs.
_OF_CUDA = ("nvml", "zeus-gpu")
