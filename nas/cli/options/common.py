"""Options with one meaning in every verb."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.units import parse_count, parse_seconds

if TYPE_CHECKING:
    from search_spaces.plugins import Plugin


def add_json(parser: Any) -> None:
    """Add ``--json`` to a parser or to a group of exclusive options."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``, ``--csv`` and ``--markdown``; the default is aligned columns."""
    form = parser.add_mutually_exclusive_group()
    add_json(form)
    form.add_argument("--csv", action="store_true", help="print the result as CSV")
    form.add_argument(
        "--markdown", action="store_true", help="print the result as a Markdown table"
    )


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


def add_seed(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add ``--seed`` with the default 0."""
    parser.add_argument("--seed", type=int, default=0, help=help_text)


def check_seed(arguments: argparse.Namespace) -> None:
    """Raise ``ValueError`` for a negative seed."""
    if arguments.seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {arguments.seed!r}")


def add_device(parser: Any) -> None:
    """Add ``--device``, the device that a verb runs on."""
    parser.add_argument("--device", help="cpu or cuda:N (default: CUDA if available)")


def add_device_name(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, the name of the device whose joules a verb shows."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="use the joules of this device, named by nas search --measure-on (default: the "
        "first)",
    )


def add_meter(parser: Any) -> None:
    """Add ``--meter``."""
    parser.add_argument(
        "--meter", help="energy meter (default: the best available; see nas doctor)"
    )


def add_runtime(parser: Any) -> None:
    """Add ``--runtime``, those of one search."""
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="NAME",
        help="runtime that serves the networks, in which joules are measured: torch, torch-eager, "
        "onnxruntime, openvino, litert or executorch (repeatable: a candidate is trained once and "
        "measured in each that is not ruled out; default: the space's, else torch)",
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


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Add ``--plugin``, a file that adds tasks or model families."""
    parser.add_argument(
        "--plugin",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="run this Python file, which adds tasks or model families (repeatable)",
    )


def named_plugins(arguments: argparse.Namespace) -> tuple[Plugin, ...]:
    """Load the plug-ins that ``--plugin`` names into this process.

    Raises:
        ValueError: a file cannot be read or is not a plug-in.
    """
    from search_spaces.plugins import name_plugin

    return tuple(name_plugin(path) for path in arguments.plugin)
