"""Memory that a process of this machine can still have."""

from __future__ import annotations

from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Return the bytes that are free or can be freed, within this container's limit.

    ``None`` where the system does not report them.
    """
    free = [n for n in (_of_machine(meminfo), _of_container(cgroup)) if n is not None]
    return min(free, default=None)


def _of_machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _of_container(cgroup: Path) -> int | None:
    """Return what is left of a limit of cgroup version 2."""
    try:
        limit = (cgroup / "memory.max").read_text(encoding="utf-8").strip()
        used = int((cgroup / "memory.current").read_text(encoding="utf-8"))
        stat = (cgroup / "memory.stat").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    if not limit.isdecimal():
        return None
    # Pages of files that were not read lately are freed when memory is short.
    inactive = sum(int(line.split()[1]) for line in stat if line.startswith("inactive_file "))
    return max(0, int(limit) - used + inactive)
