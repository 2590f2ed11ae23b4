"""Arrays that are made once and kept on disk, where every process maps them into its memory.

A folder of ``$XDG_CACHE_HOME/joulenas/tasks`` for each state of a task's files: what it is called
follows from all that its arrays depend on, so that a changed file makes a new one. It is filled
beside its place and renamed into it, so it is whole or absent; processes that make the same one at
the same time keep the first. Deleting any of it is safe: it is made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.core import user_folders
from nas.tasks.base.limits import MAX_TEXT_BYTES, check_size

_ABOUT = "about.json"
# In the names of folders that are being filled; the time after which none of them still is.
_STAGING = "-making-"
_STALE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Kept:
    """Arrays by name, mapped from a folder, and plain data about them."""

    folder: Path
    about: Mapping[str, Any]

    def array(self, name: str) -> NDArray[Any]:
        """The array of that name; changes to it stay in this process."""
        # Copied on write, because torch warns of memory that nobody may write to.
        path = self.folder / f"{name}.npy"
        found: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
        return found


def keep(key: str, make: Callable[[Path], Mapping[str, Any]]) -> Kept:
    """What is kept under ``key``, made by ``make`` where there is none yet.

    ``make`` writes arrays as ``NAME.npy`` into the folder it is given, and returns plain data
    about them. If it raises, nothing stays.
    """
    folder = cache_folder() / key
    if not (folder / _ABOUT).is_file():
        _sweep(folder.parent)
        staging = Path(tempfile.mkdtemp(prefix=f".{key}{_STAGING}", dir=folder.parent))
        try:
            about = json.dumps(make(staging), allow_nan=False)
            (staging / _ABOUT).write_text(about, encoding="utf-8")
            try:
                staging.rename(folder)
            except OSError:
                # Another process was faster, or else this one cannot write there.
                if not (folder / _ABOUT).is_file():
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Kept(folder, json.loads((folder / _ABOUT).read_text(encoding="utf-8")))


def key_of(what: Mapping[str, Any], files: Iterable[Path], *, by_content: bool = False) -> str:
    """A name for arrays that depend on ``what``, plain data, and on the contents of ``files``.

    A file counts as changed where its size or its time of change is another; ``by_content``, for
    files that are soon read, where its bytes are, wherever it lies.

    Raises:
        ValueError: a file cannot be read.
    """
    found = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode())
    for path in files:
        try:
            if by_content:
                check_size(max(1, path.stat().st_size), MAX_TEXT_BYTES)
                with path.open("rb") as handle:
                    found.update(b"\0" + hashlib.file_digest(handle, "sha256").digest())
                continue
            status = path.stat()
        except OSError as error:
            raise ValueError(f"{path} must be readable: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None
        found.update(f"\0{path}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return found.hexdigest()[:32]


def _sweep(parent: Path) -> None:
    """Remove what processes that were killed have left half made."""
    for left in parent.glob(f".*{_STAGING}*"):
        try:
            is_old = time.time() - left.stat().st_mtime > _STALE_S
        except OSError:
            continue
        if is_old:
            shutil.rmtree(left, ignore_errors=True)


def cache_folder() -> Path:
    """Where arrays are kept: ``$XDG_CACHE_HOME/joulenas/tasks``, of this user alone."""
    return user_folders.cache_folder("tasks")
