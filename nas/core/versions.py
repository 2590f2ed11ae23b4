"""Versions of the libraries that figures depend on, and how they differ from earlier ones."""

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
    found = [("python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append((name, "absent"))
    return tuple(found)


def versions() -> dict[str, str]:
    """Return versions of Python, this package and the libraries that train and measure."""
    return dict(_here())


def changes(before: Versions, now: Versions) -> str:
    """Return the differences, as ``torch 2.11.0, now 2.12.0``; empty if there are none."""
    names = dict.fromkeys([*before, *now])
    return "; ".join(
        f"{name} {before.get(name, 'unknown')}, now {now.get(name, 'unknown')}"
        for name in names
        if before.get(name) != now.get(name)
    )


def with_these(earlier: Sequence[Versions], now: Versions) -> tuple[dict[str, str], ...]:
    """Return the distinct elements of ``earlier`` and ``now``, in this order."""
    distinct: list[dict[str, str]] = []
    for one in (*earlier, now):
        if dict(one) not in distinct:
            distinct.append(dict(one))
    return tuple(distinct)


def described(one: Versions) -> str:
    """Return one line for people."""
    return ", ".join(f"{name} {version}" for name, version in one.items())


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a driver: its time and its versions."""

    started: str
    versions: dict[str, str]

    @classmethod
    def now(cls) -> Start:
        """Return the start of this driver."""
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return cls(started, versions())


def of_all(starts: Sequence[Start]) -> dict[str, str]:
    """Return versions over all ``starts``, such as ``2.11.0, then 2.12.0``."""
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
        f"may not compare with earlier ones, and each says what trained and measured it"
    )
