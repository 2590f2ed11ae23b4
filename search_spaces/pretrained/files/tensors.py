"""Weights of a checkpoint: safetensors in one file or in shards, mapped into memory.

Values are copied from the mapping in chunks, and each chunk's pages are given back to the
operating system: memory holds the network and one chunk of the file.
"""

from __future__ import annotations

import math
import mmap
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_spaces.pretrained.files.config import shown
from search_spaces.pretrained.files.folder import INDEX, WEIGHTS, Folder, read_json
from search_spaces.pretrained.files.header import DTYPES, Encoding, Entry, read_header

_CHUNK_BYTES = 2**23
_CONVERT = (
    "only safetensors are read, as pickles can run code; convert where you trust it: "
    "load it by the class of `transformers` that config.json names, then save_pretrained"
)
_MOST_INDEX = 2**26
_SHARD = re.compile(r"[\w.-]{1,200}\.safetensors", re.A)


def find_tensors(folder: Folder) -> dict[str, Entry]:
    """Return every tensor of a checkpoint by name, without reading values.

    Raises:
        ValueError: there are no safetensors, or a file, its header or the index is not valid.
    """
    single = folder.find(WEIGHTS)
    if single is not None:
        return read_header(single)
    index = folder.find(INDEX)
    if index is not None:
        return _sharded(folder, index)
    pickled = folder.pickle()
    if pickled is not None:
        raise ValueError(f"{folder.path / pickled} is not read: {_CONVERT}")
    raise ValueError(f"{folder.path} must hold {WEIGHTS} or {INDEX}, and holds neither")


def _sharded(folder: Folder, index: Path) -> dict[str, Entry]:
    places: Any = read_json(index, most=_MOST_INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index}: weight_map must be an object with files of tensors")
    for name, shard in places.items():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise ValueError(
                f"{index}: weight_map.{shown(name)} must be the name of a .safetensors file "
                f"beside the index, got {shown(shard)}"
            )
    entries: dict[str, Entry] = {}
    for shard in sorted(set(places.values())):
        for name, entry in read_header(folder.require(shard)).items():
            if places.get(name) != shard:
                raise ValueError(
                    f"{entry.path}: {shown(name)} must be where {index.name} says, "
                    f"{shown(places.get(name))}"
                )
            entries[name] = entry
    absent = min(places.keys() - entries.keys(), default=None)
    if absent is not None:
        raise ValueError(
            f"{folder.path / places[absent]} must hold {shown(absent)}, as {index.name} says"
        )
    return entries


class MappedTensors:
    """Values of a checkpoint's tensors from mappings of their files."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        """Map every file once.

        Raises:
            ValueError: a file can no longer be mapped, or is shorter than its header says.
        """
        self._entries = entries
        self._maps: dict[Path, mmap.mmap] = {}
        for entry in entries.values():
            if entry.path not in self._maps:
                self._maps[entry.path] = _map(entry.path)
            if entry.end > len(self._maps[entry.path]):
                raise ValueError(
                    f"{entry.path}: {entry.name!r} must be inside the file, which has become "
                    f"shorter since its header was read"
                )

    def view(self, name: str) -> Tensor:
        """Return a tensor as the file has it; its pages are read when its values are.

        An encoded one is decoded.
        """
        entry = self._entries[name]
        if entry.encoding is not None:
            decoded = torch.empty(entry.shape, dtype=DTYPES.get(entry.dtype, torch.float32))
            self._decode(entry, entry.encoding, decoded)
            return decoded
        dtype, buffer = DTYPES[entry.dtype], self._maps[entry.path]
        if not entry.n_values:
            return torch.empty(entry.shape, dtype=dtype)
        if entry.begin % dtype.itemsize:
            # Values at odd addresses are copied first, as kernels may require aligned ones.
            count = entry.n_values * dtype.itemsize
            raw = torch.frombuffer(buffer, dtype=torch.uint8, count=count, offset=entry.begin)
            return raw.clone().view(dtype).reshape(entry.shape)
        flat = torch.frombuffer(buffer, dtype=dtype, count=entry.n_values, offset=entry.begin)
        return flat.reshape(entry.shape)

    def copy(
        self, name: str, target: Tensor, change: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Write a tensor, or ``change`` of it, to ``target`` of its shape, in chunks of rows.

        Raises:
            ValueError: a value is not finite.
        """
        entry = self._entries[name]
        if entry.encoding is not None and change is None:
            self._decode(entry, entry.encoding, target)
        else:
            self._copy(self.view(name) if change is None else change(self.view(name)), target)
        # One pass without temporary tensors; NaN is both the least and the greatest.
        if not all(math.isfinite(value) for value in target.aminmax()):
            kind = str(target.dtype).removeprefix("torch.")
            raise ValueError(
                f"{entry.path}: {entry.name!r} must hold values that are finite in {kind}, got "
                f"NaN or infinity"
            )

    def _copy(self, source: Tensor, target: Tensor) -> None:
        for rows in _chunks(source):
            target[rows].copy_(source[rows])
            # Each row of a transposed tensor is on all of its pages.
            if source.is_contiguous():
                self.release()
        self.release()

    def _decode(self, entry: Entry, encoding: Encoding, target: Tensor) -> None:
        """Write the values of an encoded tensor, in chunks of rows."""
        count = entry.n_values // encoding.row_values * encoding.row_bytes
        buffer = self._maps[entry.path]
        raw = torch.frombuffer(buffer, dtype=torch.uint8, count=count, offset=entry.begin)
        stored = raw.reshape(-1, encoding.row_bytes)
        into = target.view(len(stored), encoding.row_values)
        order = None if encoding.heads == 0 else interleaved_rows(len(stored), encoding.heads)
        # Decoders take some four times the memory of their values in fp32.
        step = max(1, _CHUNK_BYTES // (4 * encoding.row_values * torch.float32.itemsize))
        for start in range(0, len(stored), step):
            rows = slice(start, start + step)
            values = encoding.decode(stored[rows])
            if order is None:
                into[rows].copy_(values)
            else:
                into[order[rows]] = values.to(into.dtype)
            self.release()

    def are_equal(self, one: str, other: str) -> bool:
        """Whether two tensors of one shape hold the same values."""
        first, second = self.view(one), self.view(other)
        for rows in _chunks(first):
            if not torch.equal(first[rows], second[rows].to(first.dtype)):
                return False
            self.release()
        return True

    def release(self) -> None:
        """Give pages back; they are read again from the file when needed."""
        if sys.platform == "linux":
            for mapped in self._maps.values():
                mapped.madvise(mmap.MADV_DONTNEED)


def interleaved_rows(n_rows: int, heads: int) -> Tensor:
    """Return for each row of a file its row in the network, where rows of halves alternate.

    ``n_rows`` must be an even multiple of ``heads``.
    """
    return torch.arange(n_rows).reshape(heads, 2, -1).transpose(1, 2).flatten()


def _chunks(tensor: Tensor) -> Iterator[slice]:
    """Slices of rows of ``_CHUNK_BYTES``, or of one row."""
    step = max(1, _CHUNK_BYTES * len(tensor) // max(1, tensor.nbytes))
    for start in range(0, len(tensor), step):
        yield slice(start, start + step)


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            # Private to this process: nothing written here reaches the file.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be readable: {error}") from None
