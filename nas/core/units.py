"""Format and parse joules, seconds, bytes and counts.

``parse_*`` accept the output of ``format_*`` and of tables: both micro signs, a unit with or
without a space before it, exponents, and commas between thousands.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation

from nas.core.estimate import Estimate

# A number in the base unit, or a text with its unit.
Quantity = float | str

_JOULES = (("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9))
_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_WEIGHTS = (("t", 1e6), ("kg", 1e3), ("g", 1.0), ("mg", 1e-3))
# Both micro signs are normalised to U+03BC, in keys as in texts.
JOULE_UNITS = {"": 1.0, **{unit.replace("µ", "μ"): x for unit, x in _JOULES}, "uJ": 1e-6}
_BYTE_SCALES = {
    **{"": 1.0, "B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12},
    **{"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40},
}
_SECOND_SCALES = {
    **{"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3},
    **{"us": 1e-6, "μs": 1e-6, "ns": 1e-9},
}
_NUMBER = r"((?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:[eE][+-]?\d+)?)"
_QUANTITY = re.compile(rf"\s*{_NUMBER}\s*([a-zA-Zμ]*)\s*")


def parse_joules(value: Quantity, name: str = "joules") -> float:
    """Parse joules such as ``2mJ``, ``150 uJ`` or plain ``0.002``; errors contain ``name``.

    Raises:
        ValueError: not a number above zero, or an unknown unit.
    """
    return _parsed(value, JOULE_UNITS, name, "J, kJ, mJ, uJ or nJ")


def parse_seconds(value: Quantity, name: str = "seconds", *, plain_s: float = 1.0) -> float:
    """Parse seconds such as ``12.3 ms``, ``90 s`` or a plain number of ``plain_s`` each.

    Raises:
        ValueError: not a number above zero, or an unknown unit.
    """
    return _parsed(value, {"": plain_s, **_SECOND_SCALES}, name, "s, ms, us, ns, min or h")


def parse_bytes(value: Quantity, name: str = "memory") -> float:
    """Parse bytes such as ``64MB``, ``1.5 GB`` or plain ``64000000``; a kB is 1,000 bytes.

    Raises:
        ValueError: not a number above zero, or an unknown unit.
    """
    return _parsed(value, _BYTE_SCALES, name, "B, kB, MB or GB")


def parse_count(value: Quantity, name: str) -> float:
    """Parse a whole number such as ``18,202``.

    Raises:
        ValueError: not a whole number above zero.
    """
    try:
        count = _parsed(value, {"": 1.0}, name, "digits")
    except ValueError:
        count = 0.5
    if count != int(count):
        raise ValueError(f"{name} must be a whole number > 0 such as 18,202, got {value!r}")
    return count


def parse_number(text: str, scale: float = 1.0) -> float:
    """Parse a finite number as tables print it, with or without commas; NaN if invalid."""
    match = re.fullmatch(rf"\s*(-?){_NUMBER}\s*", unicodedata.normalize("NFKC", text))
    if match is None:
        return math.nan
    try:
        # Decimal: in floats, 100 * 1e-6 is slightly below 1e-4.
        number = Decimal(match.group(1) + match.group(2).replace(",", ""))
        value = float(number * Decimal(repr(scale)))
    except (InvalidOperation, OverflowError):
        return math.nan
    return value if math.isfinite(value) else math.nan


def _parsed(value: Quantity, scales: Mapping[str, float], name: str, units: str) -> float:
    parsed = math.nan
    if isinstance(value, str):
        # Normalise both micro signs and non-breaking spaces to one form each.
        match = _QUANTITY.fullmatch(unicodedata.normalize("NFKC", value))
        if match and match.group(2) in scales:
            parsed = parse_number(match.group(1), scales[match.group(2)])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        # An integer of hundreds of digits overflows.
        with suppress(OverflowError):
            parsed = value * scales[""]
    if not (math.isfinite(parsed) and parsed > 0):
        raise ValueError(f"{name} must be a number > 0 in {units}, got {value!r}")
    return float(parsed)


def format_joules(energy_j: float) -> str:
    """Format joules with three digits and a suitable unit, such as ``1.25 mJ``."""
    return _formatted(energy_j, _JOULES, "J")


def meter_label(meter: str, *, is_estimate: bool) -> str:
    """Return the meter's name, marked if its joules are estimates."""
    return meter if not is_estimate or meter == "estimate" else f"{meter}, estimate"


def format_interval(energy_j: Estimate) -> str:
    """Format joules with their interval, such as ``1.25 mJ [1.2 mJ, 1.3 mJ]``."""
    low, mean, high = map(format_joules, energy_j.range)
    return f"{mean} [{low}, {high}]"


def format_grams(grams: float) -> str:
    """Format a mass with three digits and a suitable unit, such as ``1.25 kg``."""
    return f"{grams:.2g} g" if grams < 1e-3 else _formatted(grams, _WEIGHTS, "mg")


def format_bytes(size_bytes: float) -> str:
    """Format bytes with three digits and a suitable unit, such as ``1.25 MB``."""
    return _formatted(size_bytes, _SIZES, "B")


def format_milliseconds(duration_s: float) -> str:
    """Format seconds as milliseconds with three digits, such as ``12.3 ms``."""
    return f"{duration_s * 1e3:.3g} ms"


def _formatted(value: float, units: tuple[tuple[str, float], ...], least: str) -> str:
    for unit, scale in units:
        # A value that rounds up to 1,000 of the smaller unit is 1 of this one.
        if value >= scale * 0.9995:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.3g} {least}"
