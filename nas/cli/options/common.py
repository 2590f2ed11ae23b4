"""Options that mean the same in every verb, defined once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nas.core.units import parse_count, parse_seconds


def add_json(parser: Any) -> None:
    """``--json``, of a parser or of a group of options that exclude each other."""
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def add_quiet(parser: Any) -> None:
    """``--quiet``, of every verb that shows progress."""
    parser.add_argument("--quiet", action="store_true", help="no progress")


def seconds(text: str) -> float:
    """The type of options in seconds, which may be typed with a unit."""
    try:
        return parse_seconds(text, "it")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def whole_number(text: str) -> int:
    """The type of options that count, which may be typed with commas between thousands."""
    try:
        return int(parse_count(text, "it"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"invalid int value: {text!r}, where 18,202 or 18202 is allowed"
        ) from None


def add_device(parser: Any) -> None:
    """``--device``, of every verb that runs something on one."""
    parser.add_argument("--device", help="cpu or cuda:N (default: CUDA where there is one)")


def add_meter(parser: Any) -> None:
    """``--meter``, of every verb that measures."""
    parser.add_argument("--meter", help="meter, in place of the best one; see nas doctor")


def add_moved_task(parser: Any) -> None:
    """``--task``, of verbs that need the task of a run: its file may have moved."""
    parser.add_argument(
        "--task",
        type=Path,
        metavar="FILE",
        help="where the run's task file is now, if it has moved; task and data must be the same",
    )
