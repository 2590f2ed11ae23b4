"""Write a pruned checkpoint as one GGUF file, reload it and compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nas.exporting.formats.base import ExportError
from nas.exporting.formats.stock import (
    LoadVerification,
    check_transformers_for_gguf,
    verify_folder,
)
from search_spaces.pretrained import load_checkpoint
from search_spaces.pretrained.gguf.package import WRITABLE, check_installed
from search_spaces.pretrained.writing.folder import copy_files
from search_spaces.pretrained.writing.gguf import check_gguf, rounded, write_gguf

if TYPE_CHECKING:
    from search_spaces.architecture import Architecture
    from search_spaces.models.transformer import Transformer
    from search_spaces.pretrained import Checkpoint

GGUF, GGUF_TYPES = "model.gguf", WRITABLE
_LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")


@dataclass(frozen=True, slots=True)
class About:
    """Name and licence of the parent, and the changes to it, one text for each field."""

    parent: str
    license: str | None
    changed: tuple[str, ...]


def check_gguf_form(checkpoint: Checkpoint, architecture: Architecture, kind: str) -> None:
    """Raise ``ValueError`` unless GGUF supports ``architecture`` with weights in ``kind``.

    The packages that write and verify the file must be installed.
    """
    check_installed()
    check_transformers_for_gguf()
    try:
        check_gguf(checkpoint, architecture, kind)
    except ValueError as error:
        raise ValueError(f"format gguf does not support this network: {error}") from None


def write_gguf_form(
    folder: Path,
    checkpoint: Checkpoint,
    architecture: Architecture,
    network: Transformer,
    kind: str,
    about: About,
) -> tuple[tuple[str, ...], LoadVerification]:
    """Write the file and the parent's licence; return their names, and the file's verification.

    Args:
        folder: Existing and empty.
        checkpoint: The parent.
        architecture: One that ``check_gguf_form`` allows.
        network: The dense fp32 network of ``architecture``.
        kind: Type of the weights.
        about: The parent and the changes, for the metadata.

    Raises:
        ExportError: parameters or outputs of the reloaded file differ.
    """
    changes = "; ".join(about.changed) or "nothing changed"
    metadata: dict[str, Any] = {
        "general.name": f"{about.parent}, exported by JouleNAS" if about.changed else about.parent,
        "general.description": f"Exported by JouleNAS: {changes}",
        "general.base_model.count": 1,
        "general.base_model.0.name": about.parent,
    }
    if about.license is not None:
        metadata["general.license"] = about.license
    path = folder / GGUF
    write_gguf(checkpoint, network, architecture, path, kind=kind, metadata=metadata)
    copied = copy_files(checkpoint, folder, _LICENCES)
    return (GGUF, *copied), _verify_file(path, network, kind)


def _verify_file(path: Path, network: Transformer, kind: str) -> LoadVerification:
    """Reload a file, by our reader and by ``transformers``, and compare.

    Raises:
        ExportError: a parameter has other values than ``kind`` rounds it to, or outputs differ.
    """
    try:
        written = load_checkpoint(path)
        read = written.build()
    except ValueError as error:
        raise ExportError(f"the file cannot be reloaded: {error}") from None
    values = dict(read.named_parameters())
    for name, parameter in network.named_parameters():
        if name not in values or not torch.equal(values[name], rounded(parameter, kind)):
            raise ExportError(f"{name} differs in the reloaded file")
    style, workload = written.architecture.style, written.workload
    return verify_folder(path.parent, workload, style, read, by_stock=True, gguf_file=path.name)
