"""Ray clusters that a run may use: only those that this user named.

The process at a cluster's address receives our code and may run any code here. So an address in
``run.json`` is used only if ``RAY_ADDRESS`` names it, or if ``--address`` named it on this machine
for this or an earlier search. A token is sent only to an address that is named now.
"""

from __future__ import annotations

import os

from nas.store.recorded import Recorded, is_remembered, remember

# Address of a driver that starts its own Ray.
LOCAL = "local"
_KIND = "cluster"


def name_address(address: str) -> None:
    """Record that this user named ``address``, for later searches."""
    if address != LOCAL and not isinstance(address, Recorded):
        remember(_KIND, address)


def is_named_now(address: str) -> bool:
    """Return whether the command line, a program or the environment names ``address``."""
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
