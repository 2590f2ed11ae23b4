"""Files in an object store, with an interface like that of ``pathlib.Path``.

Files are read, written, listed and removed whole. Only this module imports ``pyarrow.fs``. The
store's client looks up credentials on each machine (environment, profile, the machine's role).
Paths never contain credentials, and none are sent to workers.

An object appears when its upload ends, so that readers see the old one, the new one or none.
Stores have no folders: a name may contain slashes.
"""

from __future__ import annotations

import errno
import fnmatch
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from nas.core.retry import AwayError, persist

T = TypeVar("T")

# Allowed keys of a URL's query, by scheme: the store's address, never a credential.
QUERIES = {
    "s3": frozenset({"region", "scheme", "endpoint_override"}),
    "gs": frozenset({"scheme", "endpoint_override", "project_id"}),
}
# Errors by which stores refuse a client; retrying does not help.
_REFUSALS = (
    "ACCESS_DENIED",
    "NO_SUCH_BUCKET",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
    "HTTP status 401",
    "HTTP status 403",
)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BLOCK_BYTES = 32 * 1024 * 1024


class RemoteError(AwayError, RuntimeError):
    """The store refuses the request permanently; the message is one line."""


@dataclass(frozen=True, slots=True)
class RemotePath:
    """Path of an object in a bucket; ``query`` contains the store's address.

    Methods except ``write_from`` retry within ``nas.core.retry.patience``.

    Raises:
        FileNotFoundError: the file is missing.
        OSError: the store is unavailable, busy or broken; a retry may succeed.
        RemoteError: the store refuses: unknown bucket, missing permission or no credentials.
    """

    scheme: str
    bucket: str
    key: str
    query: str = ""

    @classmethod
    def parse(cls, url: str) -> RemotePath:
        """Parse ``s3://bucket/prefix`` or ``gs://...``, with a query of ``QUERIES``.

        Raises:
            ValueError: the URL is invalid, or seems to contain a credential, which the message
                does not repeat.
        """
        try:
            parts = urlsplit(url)
            pairs = parse_qsl(
                parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)
            )
        except ValueError:
            raise ValueError("storage must be a URL such as s3://bucket/prefix") from None
        schemes = " or ".join(f"{scheme}://" for scheme in QUERIES)
        if parts.scheme not in QUERIES:
            raise ValueError(f"storage must begin with {schemes} to keep files in an object store")
        if "@" in parts.netloc or "@" in unquote(parts.query):
            raise ValueError(
                f"storage {parts.scheme}://... must have no credentials in it: they are taken "
                "from the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE) or the machine's role"
            )
        allowed = QUERIES[parts.scheme]
        unknown = sorted(key for key, _ in pairs if key not in allowed)
        if unknown:
            raise ValueError(
                f"storage {parts.scheme}://... must have no query but {', '.join(sorted(allowed))}"
                f" (credentials are taken from the environment), got {', '.join(unknown)}"
            )
        if not _BUCKET.fullmatch(parts.netloc):
            raise ValueError(
                f"storage must name a bucket, as s3://bucket/prefix does, got {url!r}"
            )
        if parts.fragment or not url.isprintable():
            raise ValueError(f"storage must have no # nor unprintable characters, got {url!r}")
        path = cls(parts.scheme, parts.netloc, "", parts.query)
        for name in unquote(parts.path).split("/"):
            if name:
                path = path / name
        return path

    def __truediv__(self, name: str) -> RemotePath:
        """Return the path of ``name`` below this one.

        Raises:
            ValueError: ``name`` is not the plain name of a file or folder.
        """
        if name in ("", ".", "..") or "/" in name or not name.isprintable():
            raise ValueError(f"a name in {self} must be a plain one, got {name!r}")
        key = f"{self.key}/{name}" if self.key else name
        return RemotePath(self.scheme, self.bucket, key, self.query)

    def __str__(self) -> str:
        """Return the URL without its query."""
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """Last component of the path."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        """Path without its last component."""
        return RemotePath(self.scheme, self.bucket, self.key.rpartition("/")[0], self.query)

    def resolve(self) -> RemotePath:
        """Return this path, which is always absolute."""
        return self

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing: a store has no folders."""

    def is_file(self) -> bool:
        """Return whether the file exists."""
        return bool(self._info().is_file)

    def size(self) -> int:
        """Return the file's size in bytes."""
        return int(self._file_info().size)

    def modified_s(self) -> float:
        """Return the time of the last write, in seconds since 1970 by the store's clock."""
        return float(self._file_info().mtime_ns) / 1e9

    def read_bytes(self) -> bytes:
        """Return the content of a short file."""
        return self._persist(lambda store: bytes(_blocks(store, self._at)))

    def copy_to(self, local: Path) -> None:
        """Download to the file ``local``, block by block."""

        def copy(store: Any) -> None:
            with store.open_input_file(self._at) as source, local.open("wb") as target:
                while block := source.read(_BLOCK_BYTES):
                    target.write(block)

        self._persist(copy)

    def write_from(self, local: Path) -> None:
        """Upload ``local`` to this path, without retries."""
        self._try(lambda store: self._upload(store, local))

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the file."""
        try:
            self._persist(lambda store: store.delete_file(self._at))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def glob(self, pattern: str) -> list[RemotePath]:
        """Return the direct children whose name matches ``pattern``."""
        names = self._persist(lambda store: _names(store, self._at))
        return [self / name for name in sorted(names) if fnmatch.fnmatchcase(name, pattern)]

    @property
    def _at(self) -> str:
        return f"{self.bucket}/{self.key}"

    def _info(self) -> Any:
        return self._persist(lambda store: store.get_file_info(self._at))

    def _file_info(self) -> Any:
        info = self._info()
        if not info.is_file:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(self))
        return info

    def _upload(self, store: Any, local: Path) -> None:
        from pyarrow import memory_map, py_buffer

        size = local.stat().st_size
        # In one write: an abandoned stream would leave a partial object that looks complete.
        content = memory_map(str(local)).read_buffer() if size else py_buffer(b"")
        stream = store.open_output_stream(self._at)
        stream.write(content)
        stream.close()
        info = store.get_file_info(self._at)
        if not info.is_file or info.size != size:
            raise OSError(f"upload of {size} bytes was not stored completely")

    def _persist(self, action: Callable[[Any], T]) -> T:
        return persist(lambda: self._try(action), place=self)

    def _try(self, action: Callable[[Any], T]) -> T:
        with self._translated():
            return action(_store(self.scheme, self.bucket, self.query))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate errors of the store's client into the types of this class."""
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(self)) from None
        except OSError as error:
            # Remove the request's number, so that equal errors have equal messages.
            text = re.sub(r" ?\(Request ID:[^)]*\)", "", (str(error).splitlines() or [""])[0])
            refused = next((word for word in _REFUSALS if word in text), None)
            if refused is not None:
                # No file name, so that trials that fail for this reason have equal messages.
                raise RemoteError(
                    f"storage {self.scheme}://{self.bucket} refuses the request "
                    f"({refused}): check the bucket's name, the credentials and their permissions"
                ) from None
            raise OSError(errno.EREMOTEIO, text, str(self)) from None


@lru_cache(maxsize=16)
def _store(scheme: str, bucket: str, query: str) -> Any:
    """Return the client of a store, one per process."""
    from pyarrow import fs

    if scheme == "s3":
        # With this option small files take one request instead of three.
        query = f"{query}&allow_delayed_open=true" if query else "allow_delayed_open=true"
    try:
        store, _ = fs.FileSystem.from_uri(f"{scheme}://{bucket}" + (f"?{query}" if query else ""))
    except (ValueError, NotImplementedError) as error:
        raise RemoteError(f"storage {scheme}://{bucket} cannot be opened: {error}") from None
    return store


def _blocks(store: Any, at: str) -> bytearray:
    content = bytearray()
    with store.open_input_file(at) as source:
        while block := source.read(_BLOCK_BYTES):
            content += block
    return content


def _names(store: Any, at: str) -> set[str]:
    from pyarrow import fs

    infos = store.get_file_info(fs.FileSelector(at, allow_not_found=True))
    return {info.base_name for info in infos} - {""}
