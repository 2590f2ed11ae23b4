"""Read headers of GGUF files: metadata and positions of tensors, checked before allocation.

The format: four bytes ``GGUF``, a version, two counts, then keys with values, then descriptions of
tensors, and after padding the tensors' bytes (https://github.com/ggml-org/ggml/blob/master/docs/
gguf.md). The ``gguf`` package's own reader trusts counts and lengths, so it is not used here.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.core.names import printable
from search_spaces.pretrained.files.config import shown
from search_spaces.pretrained.gguf.package import READABLE, TensorType, types_by_code

MAGIC = b"GGUF"
# Maximum length of a header in bytes; one with a vocabulary of 256,000 tokens has some 12 MB.
MOST_HEADER = 2**25
_VERSIONS = (2, 3)
_MOST_KEY, _MOST_NAME, _MOST_DIMENSIONS, _MOST_ALIGNMENT = 200, 200, 4, 2**16
_ALIGNMENT, _DEFAULT_ALIGNMENT = "general.alignment", 32
# ``struct`` formats of scalar values by the number of their type.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_FLOAT32, _BOOL, _TEXT, _ARRAY = 6, 7, 8, 9


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor: its type, its shape in torch's order, and its first byte in the file."""

    name: str
    kind: TensorType
    shape: tuple[int, ...]
    begin: int

    @property
    def n_bytes(self) -> int:
        """Number of bytes of all values."""
        return math.prod(self.shape[:-1]) * self.kind.n_bytes(self.shape[-1])


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Header of a file: metadata by key, and tensors by name.

    Values are texts, numbers and booleans; arrays are lists of texts or ``numpy`` arrays.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]


def read_gguf_header(path: Path) -> GgufHeader:
    """Return the metadata and tensors of a GGUF file.

    Raises:
        ValueError: the file is truncated, its header does not describe exactly its bytes, or a
            tensor's type is not supported; the message names the file and the field.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        cursor = _Cursor(path, file.read(min(size, MOST_HEADER)), size)
    if cursor.take(4, "the first four bytes") != MAGIC:
        raise ValueError(f"{path} must be a GGUF file, which begins with the letters GGUF")
    version = cursor.number("I", "the version")
    if version not in _VERSIONS:
        allowed = " or ".join(map(str, _VERSIONS))
        raise ValueError(f"{path} must be GGUF of version {allowed}, little-endian, got {version}")
    n_tensors, n_values = (cursor.number("Q", "the counts") for _ in range(2))
    metadata = _metadata(cursor, n_values)
    found = _tensors(cursor, n_tensors)
    begin = _aligned(cursor.position, _alignment(path, metadata))
    return GgufHeader(path, metadata, _placed(path, found, begin, size, metadata))


class _Cursor:
    """Read a header's bytes in order, none beyond its end."""

    def __init__(self, path: Path, data: bytes, size: int) -> None:
        self.path, self._data, self._size, self.position = path, data, size, 0

    @property
    def n_left(self) -> int:
        """Number of bytes that are left."""
        return len(self._data) - self.position

    def take(self, count: int, what: str) -> bytes:
        """Return the next ``count`` bytes."""
        if count > self.n_left:
            if len(self._data) < self._size:
                raise ValueError(f"{self.path} must have a header of at most {MOST_HEADER} bytes")
            raise ValueError(
                f"{self.path}: {what} must be inside the file, and needs {count} bytes where "
                f"{self.n_left} are left; it may be truncated"
            )
        begin, self.position = self.position, self.position + count
        return self._data[begin : self.position]

    def number(self, form: str, what: str) -> Any:
        """Return a number of the ``struct`` format ``form``."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}"), what))[0]

    def text(self, what: str, most: int = MOST_HEADER) -> str:
        """Return a text of at most ``most`` bytes."""
        length = self.number("Q", what)
        if length > most:
            raise ValueError(f"{self.path}: {what} must have at most {most} bytes, got {length}")
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            raise ValueError(f"{self.path}: {what} must be UTF-8 text") from None


def _metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for _ in range(count):
        key = printable(cursor.text(f"a key after {len(values)} others", _MOST_KEY))
        if key in values:
            raise ValueError(f"{cursor.path}: the key {key!r} must appear once, and appears twice")
        values[key] = _value(cursor, cursor.number("I", key), key)
    return values


def _value(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind == _TEXT:
        return cursor.text(key)
    if kind == _ARRAY:
        return _array(cursor, key)
    if kind == _BOOL:
        return _flag(cursor.number("B", key), cursor.path, key)
    if kind not in _SCALARS:
        raise ValueError(f"{cursor.path}: {key} must have a type in 0..12, got {kind}")
    value = cursor.number(_SCALARS[kind], key)
    # The shortest number of the same 32 bits: 1e-05 rather than 9.999999747378752e-06.
    return float(str(np.float32(value))) if kind == _FLOAT32 else value


def _array(cursor: _Cursor, key: str) -> Any:
    kind, count = cursor.number("I", key), cursor.number("Q", key)
    if kind == _TEXT:
        # Each text takes some bytes, so reading a wrong count stops at the end of the file.
        return [cursor.text(key) for _ in range(count)]
    form = "B" if kind == _BOOL else _SCALARS.get(kind)
    if form is None:
        raise ValueError(f"{cursor.path}: {key} must be an array of texts or numbers")
    data = cursor.take(count * struct.calcsize(f"<{form}"), key)
    return np.frombuffer(data, dtype=np.dtype(f"<{np.dtype(form).str[1:]}"))


def _flag(value: int, path: Path, key: str) -> bool:
    if value not in (0, 1):
        raise ValueError(f"{path}: {key} must be true or false, got {value}")
    return bool(value)


def _alignment(path: Path, metadata: dict[str, Any]) -> int:
    value = metadata.get(_ALIGNMENT, _DEFAULT_ALIGNMENT)
    is_power = isinstance(value, int) and 0 < value <= _MOST_ALIGNMENT and value.bit_count() == 1
    if not is_power:
        raise ValueError(
            f"{path}: {_ALIGNMENT} must be a power of two up to {_MOST_ALIGNMENT}, got "
            f"{shown(value)}"
        )
    return int(value)


def _tensors(cursor: _Cursor, count: int) -> list[StoredTensor]:
    """Return descriptions of tensors, whose ``begin`` is relative to the first tensor's."""
    found: list[StoredTensor] = []
    names: set[str] = set()
    for _ in range(count):
        name = cursor.text(f"the name of tensor {len(found)}", _MOST_NAME)
        where = f"{cursor.path}: {name!r}"
        if name in names:
            raise ValueError(f"{where} must appear once, and appears twice")
        names.add(name)
        n_dimensions = cursor.number("I", f"{name!r}.dimensions")
        if not 1 <= n_dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"{where} must have 1..{_MOST_DIMENSIONS} dimensions")
        sizes = [cursor.number("Q", f"{name!r}.shape") for _ in range(n_dimensions)]
        if not all(sizes):
            raise ValueError(f"{where}.shape must have sizes >= 1, got {shown(sizes)}")
        kind = _kind(cursor.number("I", f"{name!r}.type"), where)
        if sizes[0] % kind.block_values:
            raise ValueError(
                f"{where} must have rows of a multiple of {kind.block_values} values "
                f"({kind.name}), got {sizes[0]}"
            )
        begin = cursor.number("Q", f"{name!r}.offset")
        found.append(StoredTensor(name, kind, tuple(reversed(sizes)), begin))
    return found


def _kind(code: int, where: str) -> TensorType:
    kind = types_by_code().get(code)
    if kind is None or kind.name not in READABLE:
        name = f"an unknown type, {code}" if kind is None else kind.name
        raise ValueError(f"{where}.type must be one of {', '.join(READABLE)}, got {name}")
    return kind


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _placed(
    path: Path, found: list[StoredTensor], first: int, size: int, metadata: dict[str, Any]
) -> dict[str, StoredTensor]:
    """Return tensors by name with their positions in the file.

    Tensors must not overlap, and padding is the only gap allowed between them.
    """
    alignment, position = _alignment(path, metadata), 0
    placed = {}
    for each in sorted(found, key=lambda tensor: tensor.begin):
        if each.begin != position:
            raise ValueError(
                f"{path}: {each.name!r} must begin at byte {position} of the values (no gaps, no "
                f"overlaps), got {each.begin}"
            )
        if first + position + each.n_bytes > size:
            raise ValueError(
                f"{path}: {each.name!r} must be inside the file, and needs {each.n_bytes} bytes "
                f"at {first + position} of {size}; it may be truncated"
            )
        placed[each.name] = StoredTensor(each.name, each.kind, each.shape, first + position)
        position = _aligned(position + each.n_bytes, alignment)
    if size > first + position:
        raise ValueError(f"{path} must have the header's {first + position} bytes, got {size}")
    return {tensor.name: placed[tensor.name] for tensor in found}
