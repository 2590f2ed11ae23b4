"""``--device NAME``: the device whose joules a verb shows."""

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
        help="use the joules of this device, named by nas search --measure-on (default: the "
        "first)",
    )


def seen_on(run: Run, name: str | None) -> Run:
    """Return ``run`` with the joules of the device called ``name``; unchanged if ``None``.

    Raises:
        ValueError: the run has no such device.
    """
    return run if name is None else run.on(name)


def device_text(hardware: str, name: str | None) -> str:
    """Return the hardware, preceded by the name that the search gave it, if any."""
    return hardware if name is None else f"{name} ({hardware})"
