"""Which meter to use: what this machine can measure, and why it cannot measure better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

from predictors.meters.base import Meter, MeterError
from predictors.meters.estimate import WATTS_VARIABLE, EstimateMeter, watts_per_core
from predictors.meters.nvml import NvmlMeter
from predictors.meters.rapl import RaplMeter
from predictors.meters.zeus import ZeusMeter

# A package registers a function ``device -> Meter`` under its name in this group.
PLUGIN_GROUP = "joulenas.meters"


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """Whether one meter works here. ``detail`` says what it reads, or why not and what to do."""

    name: str
    is_available: bool
    detail: str


def choose_meter(name: str | None, device: str) -> Meter:
    """The meter called ``name``, or the best one for ``device`` (``cpu`` or ``cuda:N``).

    Raises:
        MeterError: it does not work here, or no meter covers the device.
        ValueError: there is no meter of that name.
    """
    known = _makers(device)
    if name is not None:
        if name not in known:
            raise ValueError(f"meter must be one of {', '.join(known)}, got {name!r}")
        return known[name]()
    best = ("nvml", "zeus") if device.startswith("cuda") else ("rapl", "zeus", "estimate")
    refusals = []
    for candidate in best:
        try:
            return known[candidate]()
        except MeterError as error:
            refusals.append(str(error))
    # The first refusal is that of the meter which the device should have had.
    raise MeterError(refusals[0])


def survey(device: str = "cpu") -> list[MeterStatus]:
    """Try every meter for ``device`` and say what came of it."""
    found = []
    for name, make in _makers(device).items():
        try:
            meter = make()
        except (MeterError, ValueError, ImportError) as error:
            found.append(MeterStatus(name, False, str(error)))
            continue
        detail = f"{meter.source} on {meter.device}"
        if name == "estimate":
            detail = (
                f"CPU seconds x {watts_per_core():g} W per core (an estimate: set "
                f"{WATTS_VARIABLE} to your CPU's figure) on {meter.device}"
            )
        found.append(MeterStatus(name, True, detail))
        meter.close()
    return found


def _makers(device: str) -> dict[str, Callable[[], Meter]]:
    index = int(device.partition(":")[2] or 0) if device.startswith("cuda") else 0
    makers: dict[str, Callable[[], Meter]] = {
        "nvml": lambda: NvmlMeter((index,)),
        "rapl": RaplMeter,
        "zeus": lambda: ZeusMeter(device),
        "estimate": EstimateMeter,
    }
    for entry in entry_points(group=PLUGIN_GROUP):
        makers.setdefault(entry.name, lambda entry=entry: entry.load()(device))  # type: ignore[misc]
    return makers
