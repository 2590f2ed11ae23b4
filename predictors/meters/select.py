"""Choose a meter, and report which meters work on this machine."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points

from predictors.meters.base import Meter, MeterError
from predictors.meters.board import describe_limits
from predictors.meters.estimate import WATTS_VARIABLE, EstimateMeter, watts_per_core
from predictors.meters.nvml import NvmlMeter
from predictors.meters.rapl import RaplMeter
from predictors.meters.visible import visible_gpu
from predictors.meters.zeus import ZeusMeter

# A package registers a function ``device -> Meter`` under its name in this group.
PLUGIN_GROUP = "joulenas.meters"
# Kind of device -> meters, best first. Those of the other kind read a device that does not run the
# model.
_COVERS = {"cuda": ("nvml", "zeus"), "cpu": ("rapl", "zeus", "estimate")}


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """Availability of one meter; ``detail`` is its source, or why it is absent and a remedy."""

    name: str
    is_available: bool
    detail: str


def parse_device(text: str) -> str:
    """Return ``cpu`` or ``cuda:N``, the form that locks and records use.

    Raises:
        ValueError: ``text`` is neither.
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d{1,3}))?", text)
    if match is None:
        raise ValueError(f"device must be cpu or cuda:N, got {text!r}")
    return text if text == "cpu" else f"cuda:{int(match[1] or 0)}"


def choose_meter(name: str | None, device: str) -> Meter:
    """Return the meter called ``name``, or the best for ``device`` (``cpu`` or ``cuda:N``).

    Raises:
        MeterError: the meter does not work here, or no meter covers the device.
        ValueError: no meter for such a device has that name, or ``device`` is invalid.
    """
    device = parse_device(device)
    makers = _makers(device)
    best = _COVERS[device.partition(":")[0]]
    if name is not None:
        of_other_kinds = {other for covered in _COVERS.values() for other in covered} - set(best)
        allowed = [maker for maker in makers if maker not in of_other_kinds]
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"meter must be one of {', '.join(allowed)} for {device}, got {name!r}{hint}"
            )
        return makers[name]()
    errors = []
    for candidate in best:
        try:
            return makers[candidate]()
        except MeterError as error:
            errors.append(str(error))
    # The first error is that of the best meter for the device.
    raise MeterError(errors[0])


def limits_of(meter: Meter) -> str:
    """Describe the limits of the board that ``meter`` reads; empty if it reports none."""
    board = meter.read_board()
    return "" if board is None else describe_limits(board.limits)


def meter_names() -> tuple[str, ...]:
    """Return the names of all meters, plug-ins included, also of those that do not work here."""
    return tuple(_makers("cpu"))


def survey(device: str = "cpu") -> list[MeterStatus]:
    """Open every meter for ``device`` and return which are available."""
    statuses = []
    for name, make in _makers(device).items():
        try:
            meter = make()
        except (MeterError, ValueError, ImportError) as error:
            statuses.append(MeterStatus(name, False, str(error)))
            continue
        detail = f"{meter.source} on {meter.device}"
        if name == "estimate":
            detail = (
                f"CPU seconds x {watts_per_core():g} W per core (an estimate: set "
                f"{WATTS_VARIABLE} to your CPU's figure) on {meter.device}"
            )
        statuses.append(MeterStatus(name, True, detail))
        meter.close()
    return statuses


def _makers(device: str) -> dict[str, Callable[[], Meter]]:
    index = int(parse_device(device).partition(":")[2] or 0)
    makers: dict[str, Callable[[], Meter]] = {
        "nvml": lambda: NvmlMeter((visible_gpu(index),)),
        "rapl": RaplMeter,
        "zeus": lambda: ZeusMeter(device),
        "estimate": EstimateMeter,
    }
    for entry in entry_points(group=PLUGIN_GROUP):
        makers.setdefault(entry.name, partial(_plugin, entry, device))
    return makers


def _plugin(entry: EntryPoint, device: str) -> Meter:
    meter = entry.load()(device)
    if not isinstance(meter, Meter):
        raise MeterError(
            f"meter {entry.name} ({entry.value}) must derive from predictors.meters.base.Meter, "
            f"got {type(meter).__name__}, which lacks members of it"
        )
    return meter
