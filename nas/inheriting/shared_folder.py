"""Files that a run makes once, and that each node of a cluster fetches once.

A folder on a disk that all nodes see is read where it is. Of one in an object store each node has
a copy in its user's cache, named by the files' digests: the first worker of a node fetches it, the
others wait for it. Copies that no search has used for two weeks are removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nas.core import user_folders
from nas.core.files import Place, as_local
from nas.core.remote import RemotePath

_CACHE, _LOCK, _STAGING = "shared", ".lock", ".fetching-"
_UNUSED_S = 14 * 24 * 3600.0

# SHA-256 of files, by name.
Digests = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """A folder of plain files with the SHA-256 of each."""

    place: Place
    digests: Digests

    def here(self, holds: Callable[[str], bool] = lambda _: True) -> Path:
        """Return a folder of this machine with the files whose names satisfy ``holds``.

        Raises:
            ValueError: the store's file is not the one of the digest.
            FileNotFoundError: the store has no such file.
            OSError: the store or this machine's disk is unavailable or full.
        """
        if isinstance(self.place, Path):
            return self.place
        text = "\n".join(f"{digest} {name}" for name, digest in sorted(self.digests))
        base = user_folders.cache_folder(_CACHE)
        folder = user_folders.private_folder(base / hashlib.sha256(text.encode()).hexdigest())
        with _locked(folder):
            for name, digest in self.digests:
                if holds(name) and not (folder / name).is_file():
                    _fetch(self.place / name, digest, folder)
            # The time of the last use, by which copies are removed.
            os.utime(folder)
        _remove_unused(base)
        return folder


def digests_of(paths: Iterable[Place]) -> Digests:
    """Return the SHA-256 of each file, by name.

    Raises:
        FileNotFoundError: a file is missing.
    """
    found = []
    for path in paths:
        with as_local(path) as local:
            found.append((path.name, _digest(local)))
    return tuple(sorted(found))


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _fetch(source: RemotePath, digest: str, folder: Path) -> None:
    staging = folder / f"{_STAGING}{os.getpid()}-{source.name}"
    try:
        source.copy_to(staging)
        if _digest(staging) != digest:
            raise ValueError(f"{source} must be the file that the run began with, and differs")
        staging.replace(folder / source.name)
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / _LOCK).open("w") as handle:
        # Where the disk has no locks, each worker fetches for itself.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _remove_unused(base: Path) -> None:
    for folder in base.iterdir():
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(folder)
