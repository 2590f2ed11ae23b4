"""Wrap the ``gguf`` package: types of tensors, quantisation, names of tensors, and its writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.core.names import first_line

# Types that are read, and those that are written.
READABLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
WRITABLE = ("F32", "F16", "Q8_0")
_VERSION_OF_QUANTISATION = "general.quantization_version"


@dataclass(frozen=True, slots=True)
class TensorType:
    """Type of stored values: ``block_values`` neighbours in a row take ``block_bytes`` bytes."""

    name: str
    block_values: int
    block_bytes: int

    def n_bytes(self, n_values: int) -> int:
        """Return the bytes of a row of ``n_values``, a multiple of the block's."""
        return n_values // self.block_values * self.block_bytes


@dataclass(frozen=True, slots=True)
class Written:
    """Tensor to be written: its name, its type, and its values in fp32."""

    name: str
    kind: str
    values: NDArray[np.float32]


def check_installed() -> None:
    """Raise ``ValueError`` unless the package is installed."""
    _gguf()


def _gguf() -> ModuleType:
    try:
        import gguf
    except ImportError:
        raise ValueError("GGUF needs the package gguf: pip install 'joulenas[gguf]'") from None
    module: ModuleType = gguf
    return module


@cache
def types_by_code() -> Mapping[int, TensorType]:
    """Return every type of the format by its number in files."""
    gguf = _gguf()
    return {
        int(kind): TensorType(kind.name, *gguf.GGML_QUANT_SIZES[kind])
        for kind in gguf.GGMLQuantizationType
    }


def type_named(name: str) -> TensorType:
    """Return the type called ``name``."""
    return next(kind for kind in types_by_code().values() if kind.name == name)


def file_type(name: str) -> int:
    """Return the number of ``general.file_type`` for files with weights of the type ``name``."""
    kinds = _gguf().LlamaFileType
    return int(kinds.ALL_F32 if name == "F32" else kinds[f"MOSTLY_{name}"])


def dequantised(rows: NDArray[np.uint8], kind: str) -> NDArray[np.float32]:
    """Return the values of rows of bytes ``(n_rows, n_bytes)``."""
    gguf = _gguf()
    # Scales of NaN give values of NaN, which callers refuse.
    with np.errstate(all="ignore"):
        values: NDArray[np.float32] = gguf.dequantize(rows, gguf.GGMLQuantizationType[kind])
    return values


def quantised(values: NDArray[np.float32], kind: str) -> NDArray[Any]:
    """Return rows of values in the type ``kind``, as the package rounds them."""
    gguf = _gguf()
    with np.errstate(all="ignore"):
        rows: NDArray[Any] = gguf.quantize(values, gguf.GGMLQuantizationType[kind])
    return rows


def tensor_name(architecture: str, module: str) -> str | None:
    """Return GGUF's name of a module of ``transformers``, ``None`` if it has none.

    ``{i}`` in a name is the number of a layer.
    """
    names = _names(architecture)
    name: str | None = names.get_name(module.replace("{i}", "0"))
    return None if name is None else name.replace("blk.0.", "blk.{i}.")


@cache
def _names(architecture: str) -> Any:
    gguf = _gguf()
    (number,) = (key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    return gguf.get_tensor_name_map(number, 1)


def write_file(
    path: Path, architecture: str, metadata: Mapping[str, Any], tensors: Iterable[Written]
) -> None:
    """Write a file, with one encoded tensor in memory at a time.

    Values of ``metadata`` are texts, booleans, integers (``uint32``), floats (``float32``) and
    lists of texts, integers (``int32``) or floats.

    Raises:
        ValueError: a value is not finite in its type; the message names the tensor.
        OSError: the file cannot be written.
    """
    gguf, listed = _gguf(), tuple(tensors)
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        _add(writer, key, value)
    writer.add_uint32(_VERSION_OF_QUANTISATION, gguf.GGML_QUANT_VERSION)
    for each in listed:
        kind, values = gguf.GGMLQuantizationType[each.kind], each.values
        n_rows, n_values = values.size // values.shape[-1], values.shape[-1]
        n_bytes = n_rows * type_named(each.kind).n_bytes(n_values)
        writer.add_tensor_info(each.name, values.shape, values.dtype, n_bytes, raw_dtype=kind)
    try:
        with closing(writer):
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for each in listed:
                writer.write_tensor_data(_encoded(each))
    except OSError as error:
        raise OSError(f"{path.name} could not be written: {first_line(error)}") from None


def _encoded(tensor: Written) -> NDArray[Any]:
    rows = quantised(tensor.values, tensor.kind)
    if tensor.kind != "F32":
        # Values and scales may overflow 16 bits.
        again = dequantised(rows.view(np.uint8), tensor.kind)
        if not np.isfinite(again).all():
            raise ValueError(
                f"{tensor.name} must hold values that are finite in {tensor.kind}, and has "
                f"{np.abs(tensor.values).max():g}"
            )
    return rows


def _add(writer: Any, key: str, value: Any) -> None:
    """Add one value of the metadata."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, list(value))
