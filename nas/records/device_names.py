"""Devices that a search measures on, by user-defined names.

``--measure-on NAME`` requires nodes with the resources ``joule_meter_NAME`` and ``joule_meter``.
The first device's joules are the search's objective. Every complete trial is also measured on
each further device and has a reading under its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from predictors.meters.select import choose_meter, limits_of, parse_device

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class MeasuredDevice:
    """Name of a device to measure on, and its local name on its node.

    ``device`` is ``cpu`` or ``cuda:N`` on that node, ``None`` for the search's own. If ``meter``
    is ``None``, the search's meter is used, or the best of the node if the search names none.

    Raises:
        ValueError: a field is out of range; the message names the field.
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
        """Parse ``NAME``, ``NAME=DEVICE`` or ``NAME=DEVICE/METER``.

        Raises:
            ValueError: ``text`` has none of these forms.
        """
        name, equals, rest = text.partition("=")
        device, slash, meter = rest.partition("/")
        if (equals and not device) or (slash and not meter):
            raise ValueError(
                f"measure_on must be NAME, NAME=DEVICE or NAME=DEVICE/METER, got {text!r}"
            )
        return cls(name, parse_device(device) if device else None, meter or None)


@dataclass(frozen=True, slots=True)
class MeterFound:
    """Description of a device's meter, from the machine with the device.

    ``name`` is the search's name for the device, ``None`` if it has none. ``device`` and ``meter``
    are local names on that machine. ``source``, ``hardware`` and ``limits`` (of the board, in
    words) are those of later readings.
    """

    name: str | None
    device: str
    meter: str
    source: str
    hardware: str
    limits: str = ""


def find_meter(name: str | None, device: str, meter: str | None) -> MeterFound:
    """Return the meter of ``device`` on this machine, the best one if ``meter`` is ``None``.

    Raises:
        MeterError: the meter does not work here, or no meter supports the device.
        ValueError: the device or meter is unknown.
    """
    chosen = choose_meter(meter, device)
    try:
        return MeterFound(
            name, device, chosen.name, chosen.source, chosen.device, limits_of(chosen)
        )
    finally:
        chosen.close()
