"""Choose a meter: which ones work on this machine, and why the others do not."""

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
# Our meters for each kind of device, the best first. A meter of another kind would read a device
# that does not run the model.
_COVERS = {"cuda": ("nvml", "zeus"), "cpu": ("rapl", "zeus", "estimate")}


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """Whether one meter works here; ``detail`` is what it reads, or why not and what to do."""

    name: str
    is_available: bool
    detail: str


def parse_device(text: str) -> str:
    """``cpu`` or ``cuda:N`` in its canonical form, as locks and records have it.

    Raises:
        ValueError: it is neither.
    """
    found = re.fullmatch(r"cpu|cuda(?::(\d{1,3}))?", text)
    if found is None:
        raise ValueError(f"device must be cpu or cuda:N, got {text!r}")
    return text if text == "cpu" else f"cuda:{int(found[1] or 0)}"


def choose_meter(name: str | None, device: str) -> Meter:
    """The meter called ``name``, or the best one for ``device`` (``cpu`` or ``cuda:N``).

    Raises:
        MeterError: it does not work here, or no meter covers the device.
        ValueError: there is no meter of that name for such a device, or no such device.
    """
    device = parse_device(device)
    known = _makers(device)
    best = _COVERS[device.partition(":")[0]]
    if name is not None:
        of_others = {other for covered in _COVERS.values() for other in covered} - set(best)
        allowed = [known_name for known_name in known if known_name not in of_others]
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"meter must be one of {', '.join(allowed)} for {device}, got {name!r}{hint}"
            )
        return known[name]()
    refusals = []
    for candidate in best:
        try:
            return known[candidate]()
        except MeterError as error:
            refusals.append(str(error))
    # The first refusal is that of the best meter for the device.
    raise MeterError(refusals[0])


def limits_of(meter: Meter) -> str:
    """Limits of the board that ``meter`` reads, in words; empty where it reports none."""
    board = meter.read_board()
    return "" if board is None else describe_limits(board.limits)


def meter_names() -> tuple[str, ...]:
    """Every meter's name, plug-ins' too, whether or not it works here."""
    return tuple(_makers("cpu"))


def survey(device: str = "cpu") -> list[MeterStatus]:
    """Try every meter for ``device``."""
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
            f"and {type(meter).__name__} lacks members of it"
        )
    return meter
