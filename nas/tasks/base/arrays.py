"""Read arrays: NumPy's ``.npy`` and ``.npz``, and IDX, MNIST's format, gzipped or not.

IDX (http://yann.lecun.com/exdb/mnist, LeCun et al. 1998): two zero bytes, one for the type, one
for the number of axes, their lengths as big-endian 32-bit numbers, then the values. No pickle.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.core.names import first_line
from nas.tasks.base.limits import check_unpacked
from nas.tasks.base.problems import named

Read = TypeVar("Read")

# By version; each returns the shape, order and type in a file's header.
_NPY_HEADS: Mapping[tuple[int, int], Callable[[IO[bytes]], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_array(path: Path) -> NDArray[Any]:
    """Read a ``.npy`` file or an IDX file, which may end in ``.gz``.

    Raises:
        ValueError: the file is missing, empty, damaged, or holds Python objects; the message
            names it.
    """
    return _guarded(path, _read_npy if path.suffix.lower() == ".npy" else _read_idx)


def read_named_arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Read the arrays called ``names`` from a ``.npz`` file.

    Raises:
        ValueError: as ``read_array``, or an array is missing.
    """

    def read(path: Path) -> dict[str, NDArray[Any]]:
        with zipfile.ZipFile(path) as packed:
            arrays = [m.removesuffix(".npy") for m in packed.namelist() if m.endswith(".npy")]
            missing = [name for name in names if name not in arrays]
            if missing:
                raise ValueError(f"must hold an array {missing[0]!r}, got {named(arrays)}")
            return {name: _read_member(packed, f"{name}.npy") for name in names}

    return _guarded(path, read)


def _read_member(packed: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read the array called ``name`` after checking its header."""
    # ``np.load`` would prefer another entry, without the ending, to the one that was checked.
    entry = packed.getinfo(name)
    _check_member(packed, entry)
    with packed.open(entry) as handle:
        array: NDArray[Any] = np.lib.format.read_array(handle, allow_pickle=False)
    return array


def _check_member(packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Refuse an array whose header claims more values than its file has."""
    name = entry.filename
    check_unpacked(entry.file_size, entry.compress_size)
    with packed.open(entry) as handle:
        version = np.lib.format.read_magic(handle)
        if version not in _NPY_HEADS:
            raise ValueError(f"must be of the NPY format 1.0 or 2.0, got {version} in {name}")
        shape, _, dtype = _NPY_HEADS[version](handle)
        _check_width(dtype)
        claimed = math.prod(shape) * dtype.itemsize
        left = entry.file_size - handle.tell()
    if not dtype.hasobject and claimed != left:
        raise ValueError(
            f"must hold {claimed:,} bytes of values in {name}, as its head says, and has {left:,}"
        )


def _check_width(dtype: np.dtype[Any]) -> None:
    # Any number of values without a width takes no byte.
    if dtype.itemsize == 0:
        raise ValueError(f"must hold values of a byte or more, got {dtype}")


def _guarded(path: Path, read: Callable[[Path], Read]) -> Read:
    try:
        if path.stat().st_size == 0:
            raise ValueError("must hold an array, and is empty")
        return read(path)
    except OSError as error:
        # gzip raises one without strerror for damaged files.
        raise ValueError(f"{path} must be readable: {error.strerror or error}") from None
    except MemoryError:
        size = path.stat().st_size
        raise ValueError(f"{path} must fit into memory, and its {size:,} bytes do not") from None
    except ValueError as error:
        raise ValueError(f"{path} {_cause(error)}") from None
    except Exception as error:
        # Headers, checksums and compression raise a dozen types.
        raise ValueError(f"{path} must be a whole file of arrays: {first_line(error)}") from None


def _cause(error: ValueError) -> str:
    text = str(error).strip().splitlines()[0]
    if text.startswith("must "):
        return text
    if "allow_pickle" in text or "Python objects" in text:
        return "must hold numbers or texts, got Python objects"
    return f"must be a whole file of arrays: {text}"


def _read_npy(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    _check_width(array.dtype)
    return array


def _read_idx(path: Path) -> NDArray[Any]:
    is_packed = path.suffix.lower() == ".gz"
    with path.open("rb") as plain, gzip.open(plain) as unpacked:
        handle: IO[bytes] = unpacked if is_packed else plain  # type: ignore[assignment]
        zeros, kind, n_axes = struct.unpack(">HBB", handle.read(4))
        if zeros != 0 or kind not in _IDX_TYPES or not 1 <= n_axes <= 8:
            raise ValueError("must be .npy, .npz or IDX, which begins with two zero bytes")
        shape = struct.unpack(f">{n_axes}I", handle.read(4 * n_axes))
        dtype = np.dtype(_IDX_TYPES[kind])
        size = math.prod(shape) * dtype.itemsize
        stored = path.stat().st_size
        if is_packed:
            check_unpacked(size, stored)
        elif size > stored:
            raise ValueError(
                f"must hold {size:,} bytes of values, as its head says, and has {stored:,} in all"
            )
        raw = handle.read(size + 1)
    if len(raw) != size:
        raise ValueError(f"must hold {size} bytes of values as its head says, got another number")
    return np.frombuffer(raw, dtype).reshape(shape).astype(dtype.newbyteorder("="))
