"""Units as the command line prints them; what is typed is read by the same module."""

from __future__ import annotations

from nas.core.units import format_bytes, format_joules, parse_bytes, parse_joules

__all__ = ["format_bytes", "format_joules", "parse_bytes", "parse_joules", "uses"]


def uses(unit: str) -> str:
    """What is counted over a life whose joules are per ``unit``, in the plural."""
    return "inferences" if unit == "sample" else f"{unit}s"
