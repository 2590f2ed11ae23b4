"""Write a folder beside its final path, and move it there on success.

A killed process cannot clean up. The next export to the same path removes the folders of
processes that no longer hold their lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".nas-export-"


@contextmanager
def staged(to: Path) -> Iterator[Path]:
    """Yield a folder to fill, which becomes ``to`` unless an exception is raised.

    ``to`` is new or empty. An empty folder is filled rather than replaced, because it may be a
    mount point or the current directory.

    Raises:
        ValueError: ``to`` is neither new nor empty, or cannot be written.
    """
    to = to.resolve()
    if to.exists() and (not to.is_dir() or any(not _is_staging(path) for path in to.iterdir())):
        raise ValueError(f"export folder must be new or empty, got {to}")
    is_new = not to.exists()
    parent = to.parent if is_new else to
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise ValueError(f"export folder must be writable, got {to}: {error.strerror}") from None
    lock = os.open(staging, os.O_RDONLY)
    try:
        with suppress(OSError):
            # On file systems without locks, ``_sweep`` removes nothing.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield staging
        _apply_umask(staging)
        if is_new:
            staging.rename(to)
        else:
            for path in sorted(staging.iterdir()):
                path.rename(to / path.name)
    finally:
        os.close(lock)
        shutil.rmtree(staging, ignore_errors=True)


def _is_staging(path: Path) -> bool:
    return path.name.startswith(_PREFIX)


def _sweep(parent: Path) -> None:
    """Remove staging folders of processes that have ended."""
    for path in filter(_is_staging, parent.iterdir()):
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _apply_umask(folder: Path) -> None:
    """Give files their usual permissions; ``mkdtemp`` makes the folder private."""
    # The umask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
