"""Identity of a process, to determine whether the process that wrote a file still runs.

Process IDs are reused, containers number them from 1, and host names may not be unique. On Linux
the boot ID, the PID namespace and the process's start time make the identity unique. Elsewhere
they are ``None``, and it is unknown whether the process runs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nas.core.plain import from_plain


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Identity of a process on a machine; ``started`` is in clock ticks since ``boot``."""

    pid: int
    host: str
    boot: str | None = None
    namespace: str | None = None
    started: int | None = None

    @classmethod
    def here(cls) -> ProcessIdentity:
        """Return the identity of this process."""
        pid = os.getpid()
        return cls(pid, socket.gethostname(), _boot(), _namespace(), _started(pid))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProcessIdentity:
        """Create an identity from ``data``, ignoring other keys.

        Raises:
            ValueError: a value has another type.
        """
        values = {field.name: data.get(field.name) for field in fields(cls)}
        return from_plain(cls, values, "process")

    @property
    def is_of_this_kernel(self) -> bool:
        """Whether the process ran since this machine's last boot, in any container."""
        return self.boot is not None and self.boot == _boot()

    def is_alive(self) -> bool | None:
        """Return whether the process runs, ``None`` if that is unknown."""
        if self.namespace is None or self.started is None or not self.is_of_this_kernel:
            return None
        if self.namespace != _namespace():
            return None
        return _started(self.pid) == self.started


def _boot() -> str | None:
    return _read(Path("/proc/sys/kernel/random/boot_id"))


def _namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _started(pid: int) -> int | None:
    text = _read(Path(f"/proc/{pid}/stat"))
    # The command's name, in brackets, may contain spaces and brackets.
    fields_after_name = [] if text is None else text.rpartition(")")[2].split()
    # A zombie has ended, but its parent has not waited for it yet.
    if len(fields_after_name) < 20 or fields_after_name[0] in "ZX":
        return None
    return int(fields_after_name[19])


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
