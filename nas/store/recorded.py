"""Text from a file of a run, as distinct from what the user named, now or in an earlier search.

A run folder may come from somebody else. Where the host in it would be sent a password, a token
or code, the user must have named the host as well. Cluster addresses and endpoints that the user
named are stored in the user's cache, as hashes; hosts of databases are not.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from nas.core.user_folders import cache_folder

# Hashes of what was named in this process, in case the cache cannot be written.
_named: set[str] = set()


class Recorded(str):
    """A URL or address that was read from a file. It is a ``str`` in all else."""

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
    """Whether this user named ``text`` in this process or on this machine before."""
    digest = _digest(kind, text)
    return digest in _named or (cache_folder("named") / digest).is_file()


def _digest(kind: str, text: str) -> str:
    return hashlib.sha256(f"{kind}\0{text}".encode()).hexdigest()
