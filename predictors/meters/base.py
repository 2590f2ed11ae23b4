"""The ``Meter`` protocol, and the records ``Window`` and ``EnergyReading``.

A meter accumulates joules between ``begin`` and ``end``. ``predictors.measurement`` handles
repeats, window lengths and readings in the same way for every meter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from nas.core.estimate import Estimate
from nas.core.names import MOST_TEXT, check_name
from nas.core.plain import from_plain
from predictors.meters.board import Board, Limits, describe_limits
from predictors.meters.flags import NOT_CONVERGED, describe_flag


class MeterError(RuntimeError):
    """A meter cannot return a reliable figure; the message has the cause and a remedy."""


@dataclass(frozen=True, slots=True)
class Window:
    """Readings of a meter between ``begin`` and ``end``; an absent sensor is ``None``, never 0.

    ``energy_j`` is gross joules of the device over ``duration_s``. ``flags`` names disturbances
    (``thermal_throttle``, ``foreign_process``, ...); an empty tuple is a clean window.
    ``dram_energy_j`` is of memory with its own sensor, and not part of ``energy_j``.
    ``cross_check`` is the relative difference of the joules from those of a second source.
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
    """Meter of the energy of one device (or several summed) over a window.

    Implementations derive from it. They must define ``begin``, ``end`` and ``close``; the defaults
    of other methods stand for a device without that capability.

    Attributes:
        name: Name on the command line: ``nvml``, ``rapl``, ``estimate``.
        source: Origin of the joules, stored with every reading, such as ``nvml-total-energy``.
        device: The device's name, such as ``NVIDIA H200``.
        is_estimate: Whether joules follow from a stated power and not from a sensor.
        driver_version: Version of the device's driver, ``None`` where there is none.
        tick_s: Seconds between steps of the counter, ``None`` before it is measured or where the
            counter does not step.
    """

    name: str
    source: str
    device: str
    is_estimate: bool
    driver_version: str | None = None
    tick_s: float | None = None

    def begin(self, work: Work) -> None:
        """Start a window.

        A meter whose counter steps calls ``work`` until the next step, so that the device stays
        loaded; ``work`` returns when the device has finished.

        Raises:
            MeterError: the sensor is lost, or a window is already open.
        """

    def end(self, work: Work) -> Window:
        """Close the window, calling ``work`` until the next step of the counter.

        Batches that ``work`` runs here belong to the window, so callers count them.

        Raises:
            MeterError: the sensor is lost, or no window is open.
        """

    def close(self) -> None:
        """Release the sensor. Safe to call twice."""

    def measure_tick(self, work: Work) -> None:
        """Measure ``tick_s`` while ``work`` keeps the device loaded; callers warm it up first.

        Raises:
            MeterError: the sensor is lost.
        """
        return

    def read_board(self) -> Board | None:
        """Return the current settings of the (first) board, ``None`` if it reports none."""
        return None

    def count_joules_only(self) -> None:
        """Read only joules in later windows, for spans of minutes during training."""
        return

    def set_own_processes(self, own_pids: Callable[[], set[int]]) -> None:
        """Treat the processes that ``own_pids`` returns as ours, and all others as foreign."""
        return


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """Joules per ``unit`` of one model on one workload and device, with a 95% interval.

    ``energy_j`` is the median over repeats of gross device joules per ``unit`` (``sample``, or
    ``generated token`` and the like); ``low_j`` and ``high_j`` bound it at 95%. ``net_energy_j``
    is net of idle, ``None`` where idle was not measured. ``latency_s`` is seconds per batch.
    ``duration_s`` is the total measured time. ``driver`` is the version of the device's driver,
    where there is one, ``board`` its settings and ``host`` the name of the machine. ``flags``
    names disturbances (``predictors.meters.flags``), and ``n_rejected`` is the number of windows
    that were repeated because of them.
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

    @property
    def estimate(self) -> Estimate:
        """The joules per ``unit`` with their interval."""
        return Estimate(self.energy_j, self.low_j, self.high_j, self.source)

    @property
    def device_type(self) -> str:
        """The type of device that ran the model, as torch names it: ``cuda`` or ``cpu``."""
        return "cuda" if self.source.startswith(_OF_CUDA) else "cpu"

    @property
    def half_width(self) -> float:
        """Half-width of the 95% interval relative to ``energy_j``."""
        return self.estimate.half_width

    @property
    def caveats(self) -> tuple[str, ...]:
        """All flags, including that of an interval that is too wide."""
        return self.flags if self.converged else (*self.flags, NOT_CONVERGED)

    @property
    def limits(self) -> Limits | None:
        """Limits of the board, ``None`` without a board."""
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
        return asdict(self) | {"flags": list(self.flags)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EnergyReading:
        """Read the result of ``to_dict``.

        Raises:
            ValueError: a key is missing or unknown, or a value not allowed.
        """
        reading = from_plain(cls, data, "energy reading")
        for name in ("meter", "source", "device", "workload", "protocol_hash", "unit"):
            check_name(name, getattr(reading, name), most=MOST_TEXT)
        return reading


# Beginnings of the sources of meters that read NVIDIA GPUs.
_OF_CUDA = ("nvml", "zeus-gpu")
