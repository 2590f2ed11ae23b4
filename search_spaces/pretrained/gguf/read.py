"""Read GGUF files as checkpoints: the parts that a Hugging Face folder has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.core.names import printable
from search_spaces.pretrained.files.folder import CONFIG, INDEX, WEIGHTS, Folder
from search_spaces.pretrained.files.header import DTYPES, Encoding, Entry
from search_spaces.pretrained.gguf.configuration import architecture_of, configuration
from search_spaces.pretrained.gguf.header import (
    GgufHeader,
    StoredTensor,
    read_gguf_header,
)
from search_spaces.pretrained.gguf.names import (
    ROTARY_FACTORS,
    check_names,
    interleaved_heads,
    network_name,
)
from search_spaces.pretrained.gguf.package import check_installed, dequantised
from search_spaces.pretrained.gguf.rotary_factors import scaling_of
from search_spaces.pretrained.gguf.tokenizer import tokenizer_files

SUFFIX = ".gguf"
_LICENSE = "general.license"
_MOST_TEXT = 100


@dataclass(frozen=True, slots=True)
class GgufFile:
    """GGUF file as the parts of a checkpoint's folder.

    Attributes:
        path: The file.
        files: Contents of a folder's JSON files by name, ``config.json`` among them.
        entries: Tensors by Hugging Face's names.
        license: Licence that the file names, or ``None``.
    """

    path: Path
    files: Mapping[str, Mapping[str, Any]]
    entries: Mapping[str, Entry] = field(repr=False)
    license: str | None

    @property
    def config(self) -> Mapping[str, Any]:
        """Values of ``config.json``."""
        return self.files[CONFIG]


def gguf_in(path: Path) -> Path | None:
    """Return ``path`` if it is a GGUF file, or the one in a folder without safetensors.

    Raises:
        ValueError: the folder has several, or its file is a link to outside the folder.
    """
    if path.is_file():
        return path if path.suffix == SUFFIX else None
    if not path.is_dir() or any((path / name).exists() for name in (WEIGHTS, INDEX)):
        return None
    names = sorted(each.name for each in path.glob(f"*{SUFFIX}"))
    if len(names) > 1:
        listed = printable(", ".join(names))[:300]
        raise ValueError(f"{path} must contain one GGUF file: name one of {listed}")
    return Folder(path).require(names[0]) if names else None


def read_gguf(path: Path) -> GgufFile:
    """Describe a GGUF file; the values of weights are read later.

    Raises:
        ValueError: the file is not valid or not supported, or the package ``gguf`` is not
            installed; the message names the file and the field.
    """
    check_installed()
    header = read_gguf_header(path)
    architecture = architecture_of(header.metadata, path)
    shapes = {name: tensor.shape for name, tensor in header.tensors.items()}
    values = configuration(header.metadata, path, shapes)
    check_names(
        header.tensors,
        architecture,
        values["num_hidden_layers"],
        is_tied=values["tie_word_embeddings"],
        path=path,
    )
    if ROTARY_FACTORS in header.tensors:
        values["rope_scaling"] = _scaling(header, values)
    tokenizer = tokenizer_files(
        header.metadata, path, values["vocab_size"], values["max_position_embeddings"]
    )
    return GgufFile(
        path,
        {CONFIG: values, **tokenizer},
        _entries(header, architecture, values),
        _short(header.metadata.get(_LICENSE)),
    )


def _scaling(header: GgufHeader, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the ``rope_scaling`` that the file stores as a tensor of factors."""
    tensor, where = header.tensors[ROTARY_FACTORS], f"{header.path}: {ROTARY_FACTORS!r}"
    size = int(values["head_dim"])
    if tensor.kind.name != "F32" or tensor.shape != (size // 2,):
        raise ValueError(
            f"{where} must have {size // 2} values in F32, got {tensor.shape} in "
            f"{tensor.kind.name}"
        )
    if values["rope_scaling"] is not None:
        raise ValueError(f"{where} must be left out beside rope.scaling.type")
    with header.path.open("rb") as file:
        file.seek(tensor.begin)
        factors = np.frombuffer(file.read(tensor.n_bytes), dtype="<f4")
    return scaling_of(factors, size, float(values["rope_theta"]), where)


def _entries(header: GgufHeader, architecture: str, values: Mapping[str, Any]) -> dict[str, Entry]:
    """Return tensors by Hugging Face's names, with the decoders of their rows."""
    entries = {}
    for stored, tensor in header.tensors.items():
        if stored == ROTARY_FACTORS:
            continue
        name = network_name(stored, architecture)
        heads = interleaved_heads(
            name, architecture, values["num_attention_heads"], values["num_key_value_heads"]
        )
        is_plain = tensor.kind.name in DTYPES and heads == 0
        if tensor.kind.name not in DTYPES and len(tensor.shape) < 2:
            raise ValueError(
                f"{header.path}: {stored!r}.type must be one of {', '.join(DTYPES)} (it has one "
                f"dimension), got {tensor.kind.name}"
            )
        encoding = None if is_plain else _encoding(tensor, heads)
        entries[name] = Entry(
            header.path, stored, tensor.kind.name, tensor.shape, tensor.begin, encoding
        )
    return entries


def _encoding(tensor: StoredTensor, heads: int) -> Encoding:
    # A vector is read as rows of one value.
    n_values = tensor.shape[-1] if len(tensor.shape) > 1 else 1
    kind = tensor.kind
    decode = _cast if kind.name in DTYPES else _dequantise
    return Encoding(kind.n_bytes(n_values), n_values, partial(decode, kind=kind.name), heads)


def _cast(rows: Tensor, *, kind: str) -> Tensor:
    # Copied, since values may be unaligned.
    return rows.clone().view(DTYPES[kind])


def _dequantise(rows: Tensor, *, kind: str) -> Tensor:
    return torch.from_numpy(dequantised(rows.numpy(), kind))


def _short(value: Any) -> str | None:
    """Return a text of the metadata in one line, ``None`` for other values."""
    if not isinstance(value, str) or not value.strip():
        return None
    return printable(value.strip())[:_MOST_TEXT]
