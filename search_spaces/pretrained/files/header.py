"""Headers of safetensors files: where each tensor is, checked before anything is allocated.

The format: eight bytes with the header's length, the header as JSON, then the tensors' bytes
without gaps (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_spaces.pretrained.files.config import shown
from search_spaces.pretrained.files.folder import parse_json

# Greatest length of a header in bytes; shards of models with 400 billion parameters have 0.2 MB.
MOST_HEADER = 2**24
_LENGTH_BYTES = 8
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# Sizes in bytes of types that a file may hold beside the weights, such as masks.
_OTHER_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8}
_OTHER_BYTES |= {"U64": 8, "F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a tensor is stored whose bytes are not simply its values in their order.

    Attributes:
        row_bytes: Bytes of a row; rows follow on each other.
        row_values: Values of a row: the last dimension, or 1 of a vector.
        decode: Values of rows of bytes ``(n_rows, row_bytes)``.
        heads: Of each of so many heads the rows of both halves alternate in the file; 0 for none.
    """

    row_bytes: int
    row_values: int
    decode: Callable[[Tensor], Tensor]
    heads: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor in a file.

    ``name`` and ``dtype`` are the file's, ``begin`` is its first byte. Without an ``encoding`` its
    values stand there in their order.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    encoding: Encoding | None = None

    @property
    def n_values(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """The first byte after the tensor."""
        if self.encoding is not None:
            n_rows = self.n_values // self.encoding.row_values
            return self.begin + n_rows * self.encoding.row_bytes
        dtype = DTYPES.get(self.dtype)
        size = _OTHER_BYTES[self.dtype] if dtype is None else dtype.itemsize
        return self.begin + self.n_values * size


def read_header(path: Path) -> dict[str, Entry]:
    """Return the tensors of a safetensors file by name.

    Raises:
        ValueError: the file is truncated, or its header is no description of exactly its bytes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        most = min(MOST_HEADER, size - _LENGTH_BYTES)
        if size < _LENGTH_BYTES or length > most:
            raise ValueError(
                f"{path} must be a safetensors file with a header of at most {max(most, 0)} "
                f"bytes, got {length}; it may be truncated"
            )
        header = parse_json(file.read(length), f"{path}: the header")
    header.pop("__metadata__", None)
    first = _LENGTH_BYTES + length
    entries, spans = {}, []
    for name, data in header.items():
        entries[name], end = _entry(path, name, data, first)
        spans.append((entries[name].begin, end, name))
    position = first
    for begin, end, name in sorted(spans):
        if begin != position:
            raise ValueError(
                f"{path}: {name!r} must begin at byte {position} (no gaps, no overlaps), got "
                f"{begin}"
            )
        position = end
    if position != size:
        raise ValueError(f"{path} must have the header's {position} bytes, got {size}")
    return entries


def _entry(path: Path, name: str, data: Any, first: int) -> tuple[Entry, int]:
    """The tensor that a header describes by ``data``, and the byte after its last."""
    where = f"{path}: {shown(name)}"
    if not isinstance(data, dict) or data.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where} must have exactly the keys dtype, shape and data_offsets")
    dtype, shape, offsets = data["dtype"], data["shape"], data["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES.keys() | _OTHER_BYTES.keys():
        raise ValueError(f"{where}.dtype must be one of {', '.join(DTYPES)}, got {shown(dtype)}")
    for key, value in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(value, list) or not all(type(x) is int and x >= 0 for x in value):
            raise ValueError(f"{where}.{key} must be integers >= 0, got {shown(value)}")
    if len(shape) > 8 or len(offsets) != 2:
        raise ValueError(f"{where} must have at most 8 dimensions and two offsets")
    width = DTYPES[dtype].itemsize if dtype in DTYPES else _OTHER_BYTES[dtype]
    begin, end = offsets
    if end - begin != math.prod(shape) * width:
        raise ValueError(
            f"{where}.data_offsets must span the {math.prod(shape) * width} bytes of its shape, "
            f"got {end - begin}"
        )
    return Entry(path, name, dtype, tuple(shape), first + begin), first + end
