"""Files in an object store, by paths that are used as those of a disk are.

Only what a search needs: whole files, written once they are whole, read, listed, removed. The one
file that imports ``pyarrow.fs``. Credentials are what the store's own client finds on each machine
(environment, profile, the machine's role); no path holds any, and none are sent to workers.

An object appears under its name when its upload has ended and not before, so that readers find
the old one, the new one or none. Stores have no folders: a name may have slashes.
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

# By scheme, what may stand in a URL's query: where the store is, never who asks.
QUERIES = {
    "s3": frozenset({"region", "scheme", "endpoint_override"}),
    "gs": frozenset({"scheme", "endpoint_override", "project_id"}),
}
# What stores say to whom they do not serve; time mends none of it.
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
    """The store refuses what is asked of it, and will go on doing so; one line says why."""


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A name in the bucket of a store; ``query`` says how to reach the store.

    Methods wait where ``nas.core.retry`` is in force, except for ``write_from``, and are those of
    ``pathlib.Path``.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the store is away, busy or broken, so that it may be tried again.
        RemoteError: the store refuses: no such bucket, no right to it, no credentials.
    """

    scheme: str
    bucket: str
    key: str
    query: str = ""

    @classmethod
    def parse(cls, url: str) -> RemotePath:
        """The path of ``s3://bucket/prefix`` or ``gs://...``, with what ``QUERIES`` has.

        Raises:
            ValueError: it is none, or holds what looks like a credential, which is not repeated.
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
        """The path of ``name`` below this one.

        Raises:
            ValueError: it is not the plain name of a file or folder.
        """
        if name in ("", ".", "..") or "/" in name or not name.isprintable():
            raise ValueError(f"a name in {self} must be a plain one, got {name!r}")
        key = f"{self.key}/{name}" if self.key else name
        return RemotePath(self.scheme, self.bucket, key, self.query)

    def __str__(self) -> str:
        """The URL, without its query."""
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        """The path without its last part."""
        return RemotePath(self.scheme, self.bucket, self.key.rpartition("/")[0], self.query)

    def resolve(self) -> RemotePath:
        """Itself: it is the same from everywhere."""
        return self

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing: a store has no folders."""

    def is_file(self) -> bool:
        """Whether there is such a file."""
        return bool(self._info().is_file)

    def size(self) -> int:
        """Its length in bytes."""
        found = self._info()
        if not found.is_file:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(self))
        return int(found.size)

    def modified_s(self) -> float:
        """When it was written, in seconds since 1970 by the store's clock."""
        found = self._info()
        if not found.is_file:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(self))
        return float(found.mtime_ns) / 1e9

    def read_bytes(self) -> bytes:
        """All of it, for files that are short."""
        return self._persist(lambda store: bytes(_blocks(store, self._at)))

    def copy_to(self, local: Path) -> None:
        """Write all of it to the file ``local``, block by block."""

        def copy(store: Any) -> None:
            with store.open_input_file(self._at) as source, local.open("wb") as target:
                while block := source.read(_BLOCK_BYTES):
                    target.write(block)

        self._persist(copy)

    def write_from(self, local: Path) -> None:
        """Have the file under this name be what is in ``local``; not tried again."""
        self._try(lambda store: self._upload(store, local))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove it."""
        try:
            self._persist(lambda store: store.delete_file(self._at))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def glob(self, pattern: str) -> list[RemotePath]:
        """What lies directly below and has a name like ``pattern``; nothing where nothing does."""
        names = self._persist(lambda store: _names(store, self._at))
        return [self / name for name in sorted(names) if fnmatch.fnmatchcase(name, pattern)]

    @property
    def _at(self) -> str:
        return f"{self.bucket}/{self.key}"

    def _info(self) -> Any:
        return self._persist(lambda store: store.get_file_info(self._at))

    def _upload(self, store: Any, local: Path) -> None:
        from pyarrow import memory_map, py_buffer

        size = local.stat().st_size
        # Whole, at once: a stream that is left half-way ends what was written as if it were all.
        content = memory_map(str(local)).read_buffer() if size else py_buffer(b"")
        stream = store.open_output_stream(self._at)
        stream.write(content)
        stream.close()
        found = store.get_file_info(self._at)
        if not found.is_file or found.size != size:
            raise OSError(f"{size} bytes were written and are not there")

    def _persist(self, action: Callable[[Any], T]) -> T:
        return persist(lambda: self._try(action), place=self)

    def _try(self, action: Callable[[Any], T]) -> T:
        with self._told():
            return action(_store(self.scheme, self.bucket, self.query))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what the store's client says in the words and types of this class."""
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(self)) from None
        except OSError as error:
            # Without the number of the request, by which no two of them would be alike.
            text = re.sub(r" ?\(Request ID:[^)]*\)", "", (str(error).splitlines() or [""])[0])
            refused = next((word for word in _REFUSALS if word in text), None)
            if refused is not None:
                # The same for all files, so that trials that fail by it fail alike.
                raise RemoteError(
                    f"storage {self.scheme}://{self.bucket} refuses what is asked of it "
                    f"({refused}): look at the bucket's name, the credentials and their rights"
                ) from None
            raise OSError(errno.EREMOTEIO, text, str(self)) from None


@lru_cache(maxsize=16)
def _store(scheme: str, bucket: str, query: str) -> Any:
    """The client of a store, once in each process."""
    from pyarrow import fs

    if scheme == "s3":
        # Small files then take one request instead of three.
        query = f"{query}&allow_delayed_open=true" if query else "allow_delayed_open=true"
    try:
        store, _ = fs.FileSystem.from_uri(f"{scheme}://{bucket}" + (f"?{query}" if query else ""))
    except (ValueError, NotImplementedError) as error:
        raise RemoteError(f"storage {scheme}://{bucket} cannot be opened: {error}") from None
    return store


def _blocks(store: Any, at: str) -> bytearray:
    found = bytearray()
    with store.open_input_file(at) as source:
        while block := source.read(_BLOCK_BYTES):
            found += block
    return found


def _names(store: Any, at: str) -> set[str]:
    from pyarrow import fs

    found = store.get_file_info(fs.FileSelector(at, allow_not_found=True))
    return {info.base_name for info in found} - {""}
