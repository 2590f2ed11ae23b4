"""Options that say what no member may break, shared by verbs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nas.cli.units import parse_bytes, parse_joules

if TYPE_CHECKING:
    from nas.searching.goals import Goals

BUDGET_HELP = "budget per sample (per token in translation and phases of decoding): 2mJ or 0.002"


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options, but for joules."""
    parser.add_argument(
        "--max-latency-ms", type=float, help="measured milliseconds a batch, at most"
    )
    parser.add_argument("--max-params", type=int, help="parameters, at most")
    parser.add_argument(
        "--max-memory", help="peak memory of a batch as it is counted, such as 64MB, at most"
    )


def limits_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, as fields of ``SearchConfig`` and ``Goals``.

    Raises:
        ValueError: a value is not allowed.
    """
    found: dict[str, Any] = {}
    if arguments.max_latency_ms is not None:
        if not arguments.max_latency_ms > 0:
            raise ValueError(f"max_latency_ms must be > 0, got {arguments.max_latency_ms!r}")
        found["max_latency_s"] = arguments.max_latency_ms / 1e3
    if arguments.max_params is not None:
        found["max_params"] = arguments.max_params
    if arguments.max_memory is not None:
        found["max_memory_bytes"] = parse_bytes(arguments.max_memory)
    return found


def asked_limits(arguments: argparse.Namespace) -> Goals | None:
    """The same for a query; ``None`` where nothing was asked for."""
    from nas.searching.goals import Goals

    found = limits_of(arguments)
    return Goals(**found) if found else None


def parse_reference(text: str, names: tuple[str, ...]) -> tuple[float, ...]:
    """A value for each objective, such as ``0.5,1mJ`` or ``0.5,1mJ,20`` with latency in ms.

    Raises:
        ValueError: there are more or fewer, or one is not a number in its unit.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != len(names):
        raise ValueError(
            f"reference must have {len(names)} values, for {', '.join(names)}, got {text!r}"
        )
    return tuple(_value(part, name) for part, name in zip(parts, names, strict=True))


def _value(text: str, name: str) -> float:
    if name == "joules":
        return parse_joules(text)
    if name == "memory":
        return parse_bytes(text)
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"reference {name} must be a number, got {text!r}") from None
    return value / 1e3 if name == "latency" else value
