"""Versions of the libraries that results depend on, and changes between runs."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

_PACKAGES = ("joulenas", "torch", "torchao", "optuna", "ray", "numpy")

Versions = Mapping[str, str]


@lru_cache(maxsize=1)
def _here() -> tuple[tuple[str, str], ...]:
    entries = [("python", platform.python_version())]
    for name in _PACKAGES:
        try:
            entries.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            entries.append((name, "absent"))
    return tuple(entries)


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and the libraries that results depend on."""
    return dict(_here())


def changes(before: Versions, now: Versions) -> str:
    """Return the differences, such as ``torch 2.11.0, now 2.12.0``; empty without any."""
    names = dict.fromkeys([*before, *now])
    return "; ".join(
        f"{name} {before.get(name, 'unknown')}, now {now.get(name, 'unknown')}"
        for name in names
        if before.get(name) != now.get(name)
    )


def with_these(earlier: Sequence[Versions], now: Versions) -> tuple[dict[str, str], ...]:
    """Return the distinct elements of ``earlier`` and ``now``, in this order."""
    distinct: list[dict[str, str]] = []
    for entry in (*earlier, now):
        if dict(entry) not in distinct:
            distinct.append(dict(entry))
    return tuple(distinct)


def described(one: Versions) -> str:
    """Return the versions as one readable line."""
    return ", ".join(f"{name} {version}" for name, version in one.items())


@dataclass(frozen=True, slots=True)
class Start:
    """Start of a driver process: its time and library versions."""

    started: str
    versions: dict[str, str]

    @classmethod
    def now(cls) -> Start:
        """Return a record of this driver's start, now."""
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return cls(started, versions())


def of_all(starts: Sequence[Start]) -> dict[str, str]:
    """Return the versions of all ``starts``, such as ``2.11.0, then 2.12.0``."""
    names = dict.fromkeys(name for start in starts for name in start.versions)
    return {
        name: ", then ".join(dict.fromkeys(s.versions.get(name, "unknown") for s in starts))
        for name in names
    }


def note_of(starts: Sequence[Start]) -> str | None:
    """Return a note if the last of ``starts`` has other versions than the one before."""
    if len(starts) < 2:
        return None
    before, now = starts[-2:]
    changed = changes(before.versions, now.versions)
    if not changed:
        return None
    return (
        f"libraries differ from those of the last start ({before.started}): {changed}; new trials "
        f"may not be comparable with earlier ones; each trial records its versions"
    )
