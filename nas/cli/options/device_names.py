"""``--device NAME`` of verbs that show a run: by which of its devices' joules it is seen."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.store.run import Run


def add_device_name(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="see the run by the joules of this device, one that nas search --measure-on named "
        "(default: the first)",
    )


def seen_on(run: Run, name: str | None) -> Run:
    """``run`` by the joules of the device called ``name``, or as it is.

    Raises:
        ValueError: it was not measured on such a device.
    """
    return run if name is None else run.on(name)


def device_text(hardware: str, name: str | None) -> str:
    """What a device is, after the name that the search gave it, if it gave one."""
    return hardware if name is None else f"{name} ({hardware})"
