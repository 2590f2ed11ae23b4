"""Units as the command line prints and parses them."""

from __future__ import annotations

from nas.core.units import format_bytes, format_joules, parse_bytes, parse_joules

__all__ = ["format_bytes", "format_joules", "parse_bytes", "parse_joules", "uses"]


def uses(unit: str) -> str:
    """Return the plural noun for uses whose joules are per ``unit``."""
    return "inferences" if unit == "sample" else f"{unit}s"
