"""Temporary folders with an owner, so that those of killed processes can be removed.

Each contains a file with its process's identity, locked while the process runs. The next search
removes a folder whose lock is free and whose process has certainly ended on this machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nas.core.plain import to_plain
from nas.core.process_identity import ProcessIdentity

_PREFIX = "joulenas-"
_OWNER = ".joulenas-owner"
_TRIES, _PAUSE_S = 10, 0.1


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """Yield an empty folder in the system's temporary directory, and remove it afterwards.

    Raises:
        OSError: the disk is full, or a permission is missing.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-"))
    try:
        with (folder / _OWNER).open("x") as owner:
            with suppress(OSError):
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            owner.write(json.dumps(to_plain(ProcessIdentity.here())))
            owner.flush()
            yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove ``folder``, with retries while ending processes still write to it."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_PAUSE_S)


def clear_abandoned() -> None:
    """Remove folders of this user's processes that have certainly ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, ValueError, TypeError):
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return False
    with (folder / _OWNER).open() as owner:
        identity = ProcessIdentity.from_dict(json.loads(owner.read(2000)))
        if identity.host != socket.gethostname() or identity.is_alive():
            return False
        # The folder may be shared between machines; locks of another kernel are not visible.
        if identity.is_alive() is None and not identity.is_of_this_kernel:
            return False
        # A child process may still use the folder.
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
