"""Optuna's lock on a journal, that a killed holder cannot keep for ever.

Optuna looks at the age of what the link names, and waits without end where that is not there: its
path was relative, or the run was moved. Here the age is the link's own, and the link names the
file beside it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from optuna.storages.journal import JournalFileSymlinkLock

from nas.core.retry import tell_of_wait

# A lock that is as old was left by a process that was killed: it is held for milliseconds.
_STALE_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 1.0


class JournalLock(JournalFileSymlinkLock):
    """A symbolic link beside a journal, which whoever writes to it holds."""

    def __init__(self, path: Path) -> None:
        """The lock of the journal at ``path``."""
        super().__init__(str(path))
        self._lock_target_file = path.name

    def acquire(self) -> bool:
        """Make the link; one that a killed process left is removed."""
        pause_s, seen, is_told, since_s = _FIRST_PAUSE_S, None, False, time.monotonic()
        while True:
            try:
                os.symlink(self._lock_target_file, self._lock_file)
                return True
            except FileExistsError:
                pass
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(self._lock_file)
                if (found.st_ino, found.st_mtime_ns) != seen:
                    seen, since_s = (found.st_ino, found.st_mtime_ns), time.monotonic()
                if time.monotonic() - since_s > _STALE_S:
                    # Fails where another process removes it first.
                    with contextlib.suppress(RuntimeError):
                        self.release()
            if pause_s >= _LONGEST_PAUSE_S and not is_told:
                tell_of_wait(
                    f"another program, or one that was killed, holds {self._lock_file}: it is "
                    f"taken away when it is {_STALE_S:.0f} s old"
                )
                is_told = True
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
