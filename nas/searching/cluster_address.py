"""Which Ray cluster a run folder may lead to: one that this user named before.

Whoever answers at a cluster's address is sent our code and may run any here. An address in
``run.json`` is therefore connected to only where ``--address`` named it on this machine, now or
for an earlier search, or ``RAY_ADDRESS`` names it. A token is shown only to one that is named now.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from nas.recorded import Recorded
from search_spaces.user_folders import cache_folder

# What the address is called where a driver starts a Ray of its own.
LOCAL = "local"


def name_address(address: str) -> None:
    """Remember that this user named ``address``, for searches that go on later."""
    if address != LOCAL and not isinstance(address, Recorded):
        with suppress(OSError):
            _mark(address).touch()


def is_named_now(address: str) -> bool:
    """Whether the command line, a program or the environment names ``address``."""
    return not isinstance(address, Recorded) or address == os.environ.get("RAY_ADDRESS")


def check_address(address: str) -> None:
    """Raise ``ValueError`` if ``address`` is from a run folder and this user never named it."""
    if not is_named_now(address) and not _mark(address).is_file():
        raise ValueError(
            f"cluster {address} is from a run folder, and you have not named it on this machine: "
            f"give --address {address} if it is yours, or --address local"
        )


def _mark(address: str) -> Path:
    digest = hashlib.sha256(str(address).encode()).hexdigest()
    return cache_folder("clusters") / digest
