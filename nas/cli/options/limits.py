"""Constraints on candidates and members, shared by verbs."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from nas.cli.options.common import whole_number
from nas.core.units import parse_bytes, parse_count, parse_joules, parse_number, parse_seconds

if TYPE_CHECKING:
    from nas.records.goals import Goals

BUDGET_HELP = (
    "energy budget per sample (per token in translation and phases of decoding): 2mJ or 0.002"
)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add every constraint except that on joules."""
    parser.add_argument(
        "--max-latency-ms", help="maximum measured latency of a batch, such as 12.3 or 12.3ms"
    )
    parser.add_argument(
        "--max-params", type=whole_number, help="maximum number of parameters, such as 18,202"
    )
    parser.add_argument(
        "--max-memory",
        help="maximum peak memory of a batch, counted and not measured, such as 64MB",
    )


def limits_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the constraints as fields of ``SearchConfig`` and ``Goals``.

    Raises:
        ValueError: a value is not allowed.
    """
    limits: dict[str, Any] = {}
    if arguments.max_latency_ms is not None:
        limits["max_latency_s"] = parse_seconds(
            arguments.max_latency_ms, "max_latency_ms", plain_s=1e-3
        )
    if arguments.max_params is not None:
        limits["max_params"] = parse_count(arguments.max_params, "max_params")
    if arguments.max_memory is not None:
        limits["max_memory_bytes"] = parse_bytes(arguments.max_memory, "max_memory")
    return limits


def requested_limits(arguments: argparse.Namespace) -> Goals | None:
    """Return the constraints of a query; ``None`` if there are none."""
    from nas.records.goals import Goals

    limits = limits_of(arguments)
    return Goals(**limits) if limits else None


def parse_reference(text: str, names: tuple[str, ...]) -> tuple[float, ...]:
    """Parse a reference point: ``0.5,1mJ``, or ``0.5,1mJ,20`` with latency in ms.

    Raises:
        ValueError: the number of values is wrong, or one is not a number in its unit.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != len(names):
        raise ValueError(
            f"reference must have {len(names)} values, for {', '.join(names)}, got {text!r}"
        )
    return tuple(_value(part, name) for part, name in zip(parts, names, strict=True))


def _value(text: str, name: str) -> float:
    if name == "joules":
        return parse_joules(text, "reference joules")
    if name == "memory":
        return parse_bytes(text, "reference memory")
    if name == "latency":
        return parse_seconds(text, "reference latency", plain_s=1e-3)
    is_share = name == "quality" and text.endswith("%")
    value = parse_number(text.removesuffix("%"))
    if math.isnan(value):
        raise ValueError(f"reference {name} must be a number, got {text!r}")
    return value / 100 if is_share else value
