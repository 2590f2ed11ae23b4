"""A folder that is filled beside its place and stands there whole, or not at all.

A process that is killed cannot clean up after itself: what it left, whose lock the kernel has let
go of, the next one that writes to the same place clears away.
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
    """A folder to fill, which becomes ``to`` where nothing is raised; else nothing stays.

    ``to`` is new, or an empty folder, which stays the folder that it is: it may be a mounted one,
    or the one that the user is in.

    Raises:
        ValueError: ``to`` is something else, or cannot be written.
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
            # Where there are no locks, nobody clears away what is left either.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield staging
        _share(staging)
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
    """Clear away what processes left that are no more."""
    for path in parent.iterdir():
        if not _is_staging(path):
            continue
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _share(folder: Path) -> None:
    """Give all of it the rights that new files have: temporary ones are their owner's alone."""
    # There is no way to read it but to set it.
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
