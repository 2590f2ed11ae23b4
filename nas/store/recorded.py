"""Hosts from a file of a run, as distinct from hosts that the user named.

A run directory may be untrusted input. Before a password, a token or code is sent to a host in it,
the user must have named the host. Cluster addresses and endpoints that the user named are stored
in the user's cache as hashes; hosts of databases are not.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from nas.core.user_folders import cache_folder

# Hashes of the hosts named in this process, in case the cache cannot be written.
_named: set[str] = set()


class Recorded(str):
    """A URL or address that was read from a file; otherwise a ``str``."""

    __slots__ = ()


def recorded(text: str | None) -> Recorded | None:
    """Return ``text`` marked as read from a file."""
    return None if text is None else Recorded(text)


def remember(kind: str, text: str) -> None:
    """Record that this user named ``text``."""
    digest = _digest(kind, text)
    if digest not in _named:
        _named.add(digest)
        with suppress(OSError):
            (cache_folder("named") / digest).touch()


def is_remembered(kind: str, text: str) -> bool:
    """Return whether this user named ``text`` in this process or earlier on this machine."""
    digest = _digest(kind, text)
    return digest in _named or (cache_folder("named") / digest).is_file()


def _digest(kind: str, text: str) -> str:
    return hashlib.sha256(f"{kind}\0{text}".encode()).hexdigest()
