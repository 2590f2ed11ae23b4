"""Options with one meaning in every verb."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nas.core.units import parse_count, parse_seconds


def add_json(parser: Any) -> None:
    """Add ``--json`` to a parser or to a group of exclusive options."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_quiet(parser: Any) -> None:
    """Add ``--quiet``."""
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def seconds(text: str) -> float:
    """Parse seconds, with or without a unit."""
    try:
        return parse_seconds(text, "it")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def whole_number(text: str) -> int:
    """Parse a whole number, with or without commas between thousands."""
    try:
        return int(parse_count(text, "it"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"invalid int value: {text!r}, where 18,202 or 18202 is allowed"
        ) from None


def add_device(parser: Any) -> None:
    """Add ``--device``, the device that a verb runs on."""
    parser.add_argument("--device", help="cpu or cuda:N (default: CUDA if available)")


def add_meter(parser: Any) -> None:
    """Add ``--meter``."""
    parser.add_argument(
        "--meter", help="energy meter (default: the best available; see nas doctor)"
    )


def add_records(parser: Any) -> None:
    """Add the records files that a verb reads."""
    parser.add_argument(
        "records", nargs="+", type=Path, help="records of nas measure or of a campaign (.jsonl)"
    )


def add_moved_task(parser: Any) -> None:
    """Add ``--task``, the new path of a run's task file."""
    parser.add_argument(
        "--task",
        type=Path,
        metavar="FILE",
        help="new path of the run's task file, if it has moved; task and data must be unchanged",
    )
