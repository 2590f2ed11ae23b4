"""Quantise a checkpoint's folder by ``transformers`` and torchao, as stock classes read it."""

from __future__ import annotations

import tempfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from nas.core.files import read_json, write_json
from nas.exporting.formats.base import ExportError
from nas.exporting.formats.stock import (
    CLASSES,
    LoadVerification,
    reload,
    run,
    verify_folder,
)
from search_spaces.architecture import Architecture
from search_spaces.compression.apply import compress
from search_spaces.compression.quantize import (
    dequantised_weight,
    is_quantized,
    torchao_description,
)
from search_spaces.models.build import build_network
from search_spaces.pretrained import Checkpoint
from search_spaces.pretrained.files.folder import CONFIG, WEIGHTS
from search_spaces.pretrained.files.header import read_header
from search_spaces.pretrained.writing.folder import save_tensors
from search_spaces.pretrained.writing.loadable import (
    QUANTISED_PRECISIONS,
    quantised_precision,
    stored_precision,
)
from search_spaces.pretrained.writing.tensors import stored_tensors

if TYPE_CHECKING:
    from search_spaces.models.transformer import Transformer

_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
_KEY = "quantization_config"


def quantise_and_verify(
    folder: Path, checkpoint: Checkpoint, network: nn.Module, architecture: Architecture
) -> LoadVerification:
    """Quantise a folder's blocks in place; verify by ``transformers`` in a fresh process.

    ``config.json`` gains a ``quantization_config``, and the header of the weights torchao's types.
    Each quantised weight must be that of ``compress`` to the bit.

    Args:
        folder: Folder with dense weights, of ``write_checkpoint`` or ``write_new``.
        checkpoint: The parent, or the description of a network without one.
        network: The dense network of ``architecture``.
        architecture: One with a precision of ``QUANTISED_PRECISIONS``.

    Raises:
        ExportError: ``transformers`` cannot quantise or load it, or weights or outputs differ.
    """
    read, written = reload(folder, network, architecture)
    compressed = compress(read, architecture)
    names = _quantise(folder, checkpoint, architecture)
    exact = _dequantised(checkpoint, compressed, architecture)
    return verify_folder(
        folder,
        written.workload,
        written.architecture.style,
        compressed,
        by_stock=True,
        weights={names[name]: weight for name, weight in exact.items()},
    )


def _quantise(
    folder: Path, checkpoint: Checkpoint, architecture: Architecture
) -> Mapping[str, str]:
    """Quantise the folder; return the class's parameter of each quantised tensor, by its name."""
    precision = quantised_precision(architecture)
    assert precision is not None
    tensors = read_header(folder / WEIGHTS)
    with tempfile.TemporaryDirectory(prefix="nas-quantised-", dir=folder) as scratch:
        done = run(
            {
                "folder": str(folder),
                "to": scratch,
                "class": CLASSES[checkpoint.workload.kind],
                "dtype": _DTYPES[stored_precision(architecture)],
                "quantised": sorted(_quantised(checkpoint, architecture, tensors)),
                "by": {"quant_type": {"default": torchao_description(precision)}},
            }
        )
        quantised = Path(scratch) / WEIGHTS
        _check_plain(folder / WEIGHTS, quantised, done["names"])
        header = _metadata(folder / WEIGHTS) | _metadata(quantised)
        save_tensors(load_file(quantised), folder / WEIGHTS, header)
        quantisation = read_json(Path(scratch) / CONFIG)[_KEY]
    # All other values stay as the parent has them.
    write_json(folder / CONFIG, read_json(folder / CONFIG) | {_KEY: quantisation})
    names: dict[str, str] = done["names"]
    return names


def _check_plain(dense: Path, quantised: Path, names: Container[str]) -> None:
    """Raise ``ExportError`` unless tensors other than ``names`` are in both files, to the bit.

    Outputs of quantised networks differ by more than an error in a norm or a bias may.
    """
    before, after = load_file(dense), load_file(quantised)
    for name in filter(lambda name: name not in names, sorted(before)):
        same = after.get(name)
        if same is None or before[name].dtype != same.dtype or not torch.equal(before[name], same):
            raise ExportError(f"{name}, which is not quantised, differs when it is written again")


def _dequantised(
    checkpoint: Checkpoint, network: Transformer, architecture: Architecture
) -> dict[str, Tensor]:
    """Return the dequantised weights of ``network``'s quantised ones, by their stored names."""
    plain = build_network(architecture, checkpoint.workload)
    values: dict[str, Tensor] = dict(network.named_parameters())
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and is_quantized(module):
            values[f"{name}.weight"] = dequantised_weight(module)
    plain.load_state_dict({name: values[name] for name in plain.state_dict()})
    tensors = stored_tensors(checkpoint, plain, is_rounded=True)
    return {name: tensors[name] for name in _quantised(checkpoint, architecture, tensors)}


def _quantised(
    checkpoint: Checkpoint, architecture: Architecture, tensors: Mapping[str, Any]
) -> set[str]:
    """Return the names in ``tensors`` of the matrices of quantised blocks."""
    blocks = tuple(
        f"{placed.path}."
        for placed in architecture.placed_blocks
        if placed.spec.compression.precision in QUANTISED_PRECISIONS
    )
    names = {
        piece.source.name
        for name, pieces in checkpoint.match.sources.items()
        if name.startswith(blocks)
        for piece in pieces
    }
    return {name for name in names & tensors.keys() if len(tensors[name].shape) > 1}


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})
