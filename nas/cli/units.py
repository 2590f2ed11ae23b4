"""Joules and bytes as people write and read them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_SCALES = {"": 1.0, "J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6, "nJ": 1e-9, "kJ": 1e3}
_BYTES = {"": 1.0, "B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_NUMBER = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Zµ]*)\s*")


def parse_joules(text: str) -> float:
    """Joules from ``2mJ``, ``150 uJ`` or plain ``0.002``.

    Raises:
        ValueError: not a number above zero, or an unknown unit.
    """
    return _parsed(text, _SCALES, "joules", "J, mJ, uJ or nJ")


def parse_bytes(text: str) -> float:
    """Bytes from ``64MB``, ``1.5 GB`` or plain ``64000000``; a kB is 1,000 of them.

    Raises:
        ValueError: not a number above zero, or an unknown unit.
    """
    return _parsed(text, _BYTES, "memory", "B, kB, MB or GB")


def _parsed(text: str, scales: Mapping[str, float], what: str, units: str) -> float:
    match = _NUMBER.fullmatch(text)
    try:
        value = float(match.group(1)) * scales[match.group(2)] if match else math.nan
    except (KeyError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{what} must be a number > 0 in {units}, got {text!r}")
    return value


def uses(unit: str) -> str:
    """What is counted over a life whose joules are per ``unit``, in the plural."""
    return "inferences" if unit == "sample" else f"{unit}s"


def format_joules(energy_j: float) -> str:
    """Three digits with the unit that fits, such as ``1.25 mJ``."""
    for unit, scale in (("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9)):
        if energy_j >= scale:
            return f"{energy_j / scale:.3g} {unit}"
    return f"{energy_j:.3g} J"


def format_bytes(size_bytes: float) -> str:
    """Three digits with the unit that fits, such as ``1.25 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes:.3g} B"
