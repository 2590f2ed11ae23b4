"""The devices that a search measures on, by names that its user gives them.

``--measure-on NAME`` asks for nodes with the resource ``joule_meter_NAME`` beside ``joule_meter``.
The first device's joules are the search's objective; every complete trial is measured on each
further one, too, and has a reading by its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from predictors.meters.select import choose_meter, limits_of, parse_device

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class MeasuredDevice:
    """A device to measure on: a name, and what the node that has it calls it.

    ``device`` is ``cpu`` or ``cuda:N`` on that node, ``None`` for the search's own; ``meter`` is
    ``None`` for the search's own, or else the best that the node has.

    Raises:
        ValueError: a field is not allowed; the message names it.
    """

    name: str
    device: str | None = None
    meter: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(
                "measure_on must name a device by at most 64 letters, digits, dots, hyphens and "
                f"underscores, got {self.name!r}"
            )
        if self.device is not None and (
            not isinstance(self.device, str) or parse_device(self.device) != self.device
        ):
            raise ValueError(f"measure_on device must be cpu or cuda:N, got {self.device!r}")
        if self.meter is not None and not (isinstance(self.meter, str) and self.meter):
            raise ValueError(f"measure_on meter must be a meter's name, got {self.meter!r}")

    @classmethod
    def parse(cls, text: str) -> MeasuredDevice:
        """Read ``NAME``, ``NAME=DEVICE`` or ``NAME=DEVICE/METER``.

        Raises:
            ValueError: it is none of them.
        """
        name, equals, what = text.partition("=")
        device, slash, meter = what.partition("/")
        if (equals and not device) or (slash and not meter):
            raise ValueError(
                f"measure_on must be NAME, NAME=DEVICE or NAME=DEVICE/METER, got {text!r}"
            )
        return cls(name, parse_device(device) if device else None, meter or None)


@dataclass(frozen=True, slots=True)
class MeterFound:
    """What measures a device, as the machine that has it knows it.

    ``name`` is the search's, ``None`` where it names none. ``device`` and ``meter`` are what
    measuring is asked for there; ``source``, ``hardware`` and ``limits`` are what readings will
    say, the limits of the board in words.
    """

    name: str | None
    device: str
    meter: str
    source: str
    hardware: str
    limits: str = ""


def find_meter(name: str | None, device: str, meter: str | None) -> MeterFound:
    """The meter of ``device`` on this machine; ``None`` is the best.

    Raises:
        MeterError: it does not work here, or no meter covers the device.
        ValueError: there is no such device or meter.
    """
    chosen = choose_meter(meter, device)
    try:
        return MeterFound(
            name, device, chosen.name, chosen.source, chosen.device, limits_of(chosen)
        )
    finally:
        chosen.close()
