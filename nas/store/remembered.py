"""What this user named on this machine before, such as a cluster, kept as hashes in his cache."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from nas.core.user_folders import cache_folder


def remember(kind: str, text: str) -> None:
    """Note that the user named ``text``; where nothing can be kept, he will be asked again."""
    with suppress(OSError):
        _mark(kind, text).touch()


def is_remembered(kind: str, text: str) -> bool:
    """Whether this user named ``text`` on this machine before."""
    return _mark(kind, text).is_file()


def _mark(kind: str, text: str) -> Path:
    return cache_folder("named") / hashlib.sha256(f"{kind}\0{text}".encode()).hexdigest()
