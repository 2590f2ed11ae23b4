"""Joules as people write and read them."""

from __future__ import annotations

import math
import re

_SCALES = {"": 1.0, "J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6, "nJ": 1e-9, "kJ": 1e3}
_NUMBER = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Zµ]*)\s*")


def parse_joules(text: str) -> float:
    """Joules from ``2mJ``, ``150 uJ`` or plain ``0.002``.

    Raises:
        ValueError: not a number above zero, or an unknown unit.
    """
    match = _NUMBER.fullmatch(text)
    unit = match.group(2) if match else ""
    try:
        value = float(match.group(1)) * _SCALES[unit] if match else math.nan
    except (KeyError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"joules must be a number > 0 in J, mJ, uJ or nJ, got {text!r}")
    return value


def format_joules(energy_j: float) -> str:
    """Three digits with the unit that fits, such as ``1.25 mJ``."""
    for unit, scale in (("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9)):
        if energy_j >= scale:
            return f"{energy_j / scale:.3g} {unit}"
    return f"{energy_j:.3g} J"
