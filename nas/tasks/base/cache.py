"""Arrays that are made once and cached on disk, where every process maps them into its memory.

Each state of a task's files has a folder below ``$XDG_CACHE_HOME/joulenas/tasks``, named by a
digest of all that the arrays depend on, so that a changed file makes a new one. A folder is filled
beside its final path and renamed, so it is whole or absent; of processes that make the same one at
once the first wins. Deleting any of them is safe.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from nas.core import user_folders
from nas.tasks.base.limits import MAX_TEXT_BYTES, check_size

_ABOUT = "about.json"
# In the names of folders that are being filled, and the age at which one is abandoned.
_STAGING = "-making-"
_STALE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Cache:
    """Arrays by name, mapped from ``folder``, and plain data about them."""

    folder: Path
    about: Mapping[str, Any]

    def array(self, name: str) -> NDArray[Any]:
        """Map the array of that name; changes to it stay in this process."""
        # Copied on write, because torch warns of memory that is read-only.
        path = self.folder / f"{name}.npy"
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
        return array

    def text(self, name: str) -> str:
        """Read the text file of that name."""
        return (self.folder / name).read_text(encoding="utf-8")


class CachedTexts(Sequence[str]):
    """Texts that ``write_texts`` wrote: mapped, each decoded when it is read."""

    def __init__(self, cache: Cache, name: str) -> None:
        """Map the texts called ``name``."""
        self._bytes, self._ends = cache.array(name), cache.array(f"{name}.ends")

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        """Return the text at an index, or those of a slice."""
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        index = range(len(self))[at]
        start = int(self._ends[index - 1]) if index else 0
        return bytes(self._bytes[start : int(self._ends[index])].tobytes()).decode()


def write_texts(texts: Iterable[str], folder: Path, name: str) -> None:
    """Write ``texts`` into ``folder``, where ``CachedTexts`` maps them."""
    encoded = [text.encode() for text in texts]
    np.save(folder / f"{name}.npy", np.frombuffer(b"".join(encoded), dtype=np.uint8))
    np.save(folder / f"{name}.ends.npy", np.cumsum([len(text) for text in encoded], dtype=int))


def cached(key: str, make: Callable[[Path], Mapping[str, Any]]) -> Cache:
    """Return the cache of ``key``, which ``make`` fills if there is none.

    ``make`` writes arrays as ``NAME.npy`` into a folder, and returns plain data about them. If it
    raises, nothing is cached.
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
                # Another process was faster, or this one cannot write there.
                if not (folder / _ABOUT).is_file():
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Cache(folder, json.loads((folder / _ABOUT).read_text(encoding="utf-8")))


def key_of(fields: Mapping[str, Any], files: Iterable[Path], *, by_content: bool) -> str:
    """Return the cache key of arrays made from ``files`` under ``fields``, plain data.

    ``by_content`` hashes the bytes of files, for those that are soon read; else a changed file is
    one of another path, size or time.

    Raises:
        ValueError: a file cannot be read.
    """
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode())
    for path in files:
        try:
            status = path.stat()
            if by_content:
                check_size(max(1, status.st_size), MAX_TEXT_BYTES)
                with path.open("rb") as handle:
                    digest.update(b"\0" + hashlib.file_digest(handle, "sha256").digest())
            else:
                digest.update(f"\0{path}\0{status.st_size}\0{status.st_mtime_ns}".encode())
        except OSError as error:
            raise ValueError(f"{path} must be readable: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None
    return digest.hexdigest()[:32]


def _sweep(parent: Path) -> None:
    """Remove what processes that were killed left incomplete."""
    for staging in parent.glob(f".*{_STAGING}*"):
        try:
            is_old = time.time() - staging.stat().st_mtime > _STALE_S
        except OSError:
            continue
        if is_old:
            shutil.rmtree(staging, ignore_errors=True)


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/joulenas/tasks``, readable by this user alone."""
    return user_folders.cache_folder("tasks")
