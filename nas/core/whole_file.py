"""Write a file whole or not at all, with the rights that a new file has."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` to fill, then flush it and rename it into place.

    Libraries that make a file of their own give it to its owner alone: the rights are those that
    the process's umask, or the directory, gives new files.

    Raises:
        OSError: the file cannot be written; ``path`` is what it was.
    """
    # Of a name that no other process takes, on no other machine that shares the folder.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        rights = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        yield temporary
        with temporary.open("rb") as handle:
            if stat.S_IMODE(os.fstat(handle.fileno()).st_mode) != rights:
                temporary.chmod(rights)
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
