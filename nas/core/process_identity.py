"""The identity of a process, to tell whether the process that wrote a file still runs.

Process numbers are reused, and each container counts from 1, under a host name that others may
share. On Linux the kernel's boot, the namespace of process numbers and the process's start make
the identity unique; elsewhere they are ``None``, and whether it runs is unknown.
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
    """One process of one machine; ``started`` is in ticks since ``boot``."""

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
        """Read the fields out of ``data``, which may have other keys.

        Raises:
            ValueError: a value has another type.
        """
        own = {field.name: data.get(field.name) for field in fields(cls)}
        return from_plain(cls, own, "process")

    @property
    def is_of_this_kernel(self) -> bool:
        """Whether the process ran since this machine started, in any container."""
        return self.boot is not None and self.boot == _boot()

    def is_alive(self) -> bool | None:
        """Return whether the process runs, ``None`` where that cannot be seen from here."""
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
    # The command's name, in brackets, may hold spaces and brackets.
    fields_after_name = [] if text is None else text.rpartition(")")[2].split()
    # A zombie has ended: only its parent has not looked yet.
    if len(fields_after_name) < 20 or fields_after_name[0] in "ZX":
        return None
    return int(fields_after_name[19])


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
