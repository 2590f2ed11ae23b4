"""Joules of CPU packages from RAPL, read from ``/sys/class/powercap``.

A window has the joules of all packages, which include the cores; DRAM is separate. A counter wraps
around at ``max_energy_range_uj`` (65 to 262 kJ), so a thread polls it. See the kernel's
``Documentation/power/powercap/powercap.rst``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from predictors.meters.base import Meter, MeterError, Window, Work
from predictors.meters.estimate import cpu_name

ROOT = Path("/sys/class/powercap")
# At 400 W the smallest range, 65.5 kJ, wraps around after 160 s.
POLL_S = 20.0


@dataclass(frozen=True, slots=True)
class Zone:
    """A RAPL zone, such as ``package-0`` or ``dram``; its counter wraps around at ``range_uj``."""

    name: str
    counter: Path
    range_uj: int


def find_zones(root: Path = ROOT) -> list[Zone]:
    """Return every zone of the machine; an empty list without RAPL.

    Raises:
        MeterError: a zone's files exist but cannot be read as numbers.
    """
    zones = []
    for folder in sorted(root.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text(encoding="ascii").strip()
            range_uj = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
        except PermissionError:
            raise MeterError(_permission_sentence(root)) from None
        except (OSError, ValueError) as error:
            raise MeterError(f"RAPL zone {folder} cannot be read: {error}") from None
        zones.append(Zone(name, folder / "energy_uj", range_uj))
    return zones


class RaplMeter(Meter):
    """``Meter`` of all CPU packages."""

    name = "rapl"
    source = "rapl-package"
    is_estimate = False

    def __init__(
        self,
        root: Path = ROOT,
        *,
        wall_clock: Callable[[], float] = time.perf_counter,
        poll_s: float = POLL_S,
    ) -> None:
        """Find the packages and read each once.

        Raises:
            MeterError: RAPL is absent or may not be read; the message has a remedy.
        """
        zones = find_zones(root)
        self._packages = [zone for zone in zones if zone.name.startswith("package")]
        self._dram = [zone for zone in zones if zone.name == "dram"]
        if not self._packages:
            raise MeterError(
                "no RAPL package under /sys/class/powercap: virtual machines rarely have it; "
                "measure on bare metal, or use the estimate meter"
            )
        self.device = cpu_name()
        self._wall_clock, self._poll_s = wall_clock, poll_s
        self._last: dict[Path, int] = {}
        self._total_uj: dict[Path, int] = {}
        self._opened_s: float | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._poller: threading.Thread | None = None
        self._failure: MeterError | None = None
        for zone in self._packages + self._dram:
            self._last[zone.counter] = _read(zone)

    def begin(self, work: Work) -> None:
        """See ``Meter.begin``; steps of a millisecond are too short to wait for."""
        if self._opened_s is not None:
            raise MeterError("a window is already open")
        self.poll()
        with self._lock:
            self._total_uj = dict.fromkeys(self._last, 0)
        self._opened_s = self._wall_clock()
        self._stop.clear()
        self._poller = threading.Thread(target=self._poll_on, daemon=True)
        self._poller.start()

    def end(self, work: Work) -> Window:
        """See ``Meter.end``."""
        if self._opened_s is None:
            raise MeterError("no window is open")
        opened_s, self._opened_s = self._opened_s, None
        self._stop_polling()
        if self._failure is not None:
            raise self._failure
        self.poll()
        duration_s = self._wall_clock() - opened_s
        return Window(
            energy_j=self._sum_j(self._packages),
            duration_s=duration_s,
            dram_energy_j=self._sum_j(self._dram) if self._dram else None,
        )

    def poll(self) -> None:
        """Add each counter's increase since the last reading; a decrease is a wrap-around.

        Raises:
            MeterError: a counter cannot be read.
        """
        with self._lock:
            for zone in self._packages + self._dram:
                now = _read(zone)
                increase_uj = now - self._last[zone.counter]
                if increase_uj < 0:
                    increase_uj += zone.range_uj
                self._last[zone.counter] = now
                self._total_uj[zone.counter] = self._total_uj.get(zone.counter, 0) + increase_uj

    def close(self) -> None:
        """See ``Meter.close``."""
        self._opened_s = None
        self._stop_polling()

    def _sum_j(self, zones: list[Zone]) -> float:
        return sum(self._total_uj[zone.counter] for zone in zones) / 1e6

    def _poll_on(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                self.poll()
            except MeterError as error:
                self._failure = error
                return

    def _stop_polling(self) -> None:
        self._stop.set()
        if self._poller is not None:
            self._poller.join()
            self._poller = None


def _read(zone: Zone) -> int:
    try:
        return int(zone.counter.read_text(encoding="ascii"))
    except PermissionError:
        raise MeterError(_permission_sentence(zone.counter.parent.parent)) from None
    except (OSError, ValueError) as error:
        raise MeterError(f"RAPL counter {zone.counter} cannot be read: {error}") from None


def _permission_sentence(root: Path) -> str:
    return (
        f"RAPL may not be read by this user: run as root, or run "
        f"'sudo chmod a+r {root}/intel-rapl:*/energy_uj', which lasts until the next boot"
    )
