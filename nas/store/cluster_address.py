"""Ray clusters that a run may use: ones that this user named.

The process at a cluster's address is sent our code and may run any code here. An address in
``run.json`` is therefore connected to only where ``--address`` named it on this machine, now or
for an earlier search, or ``RAY_ADDRESS`` names it. A token is shown only to one that is named now.
"""

from __future__ import annotations

import os

from nas.store.recorded import Recorded, is_remembered, remember

# What the address is called where a driver starts a Ray of its own.
LOCAL = "local"
_KIND = "cluster"


def name_address(address: str) -> None:
    """Remember that this user named ``address``, for searches that go on later."""
    if address != LOCAL and not isinstance(address, Recorded):
        remember(_KIND, address)


def is_named_now(address: str) -> bool:
    """Whether the command line, a program or the environment names ``address``."""
    if address == LOCAL or not isinstance(address, Recorded):
        return True
    return address == os.environ.get("RAY_ADDRESS")


def check_address(address: str) -> None:
    """Raise ``ValueError`` if ``address`` is from a run folder and this user never named it."""
    if not is_named_now(address) and not is_remembered(_KIND, address):
        raise ValueError(
            f"cluster {address} is from a run folder, and you have not named it on this machine: "
            f"give --address {address} if it is yours, or --address local"
        )
