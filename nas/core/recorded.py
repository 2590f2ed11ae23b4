"""Text that a file of a run contains, as distinct from what a user of this process named.

A run folder may come from somebody else. Where the host in it would be sent a password or a
token, the text must be named by the user as well; see ``nas.store.storage_host``.
"""

from __future__ import annotations


class Recorded(str):
    """A URL or address that was read from a file. It is a ``str`` in all else."""

    __slots__ = ()


def recorded(text: str | None) -> Recorded | None:
    """``text`` marked as read from a file, ``None`` where there is none."""
    return None if text is None else Recorded(text)
