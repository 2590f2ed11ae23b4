"""The identity of a process, to tell whether the process that wrote a file still runs.

Process numbers are reused, and each container counts from 1, under a host name that others may
share. On Linux the kernel's boot, the namespace of process numbers and the process's start make
the identity unique; elsewhere they are ``None``, and whether it runs is unknown.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


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
        """Read ``to_dict``'s form out of ``data``, which may have other keys.

        Raises:
            ValueError: a value has another type.
        """
        values = {f.name: data.get(f.name) for f in fields(cls)}
        kinds: dict[str, tuple[type, ...]] = {"pid": (int,), "host": (str,)}
        texts = {name: (str, type(None)) for name in ("boot", "namespace")}
        for name, allowed in (kinds | texts | {"started": (int, type(None))}).items():
            if isinstance(values[name], bool) or not isinstance(values[name], allowed):
                raise ValueError(f"{name} of a process must be as written, got {values[name]!r}")
        return cls(**values)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

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
