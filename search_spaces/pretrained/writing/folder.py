"""Write a checkpoint's folder: configuration, weights, and the parent's other files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from nas.core.files import write_json
from nas.core.names import first_line
from search_spaces.architecture import Architecture
from search_spaces.pretrained.checkpoint import Checkpoint
from search_spaces.pretrained.files.folder import COMPANIONS, CONFIG, WEIGHTS, Folder, read_json
from search_spaces.pretrained.writing.configuration import changed_values, with_dtype
from search_spaces.pretrained.writing.loadable import (
    check_loadable,
    quantised_precision,
    stored_precision,
)
from search_spaces.pretrained.writing.tensors import in_parents_types, stored_tensors


def write_checkpoint(
    checkpoint: Checkpoint,
    network: nn.Module,
    architecture: Architecture,
    to: Path,
    *,
    metadata: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Write ``network`` to the folder ``to`` in its checkpoint's format; return the files' names.

    Weights are bf16 if ``stored_precision`` is, and beside int8 blocks fp32; otherwise they have
    the parent's types if these represent every value, else fp32. Blocks to be quantised are
    written unquantised. Every parameter that is read back is the same to the bit, in bf16
    rounded to it. An unchanged network's tensors are the parent's to the bit, without tied ones
    that the parent repeats.

    Args:
        checkpoint: The parent.
        network: The dense network of ``architecture``.
        architecture: One that ``check_loadable`` allows.
        to: An existing folder.
        metadata: Further texts for the header of the weights.

    Raises:
        ValueError: no stock class supports the architecture, or values cannot be stored; nothing
            was written.
        OSError: the folder cannot be written.
    """
    check_loadable(checkpoint, architecture)
    values = changed_values(checkpoint, architecture, configuration_of(checkpoint))
    stored, is_quantised = (
        stored_precision(architecture),
        quantised_precision(architecture) is not None,
    )
    is_rounded = stored == "bf16" or is_quantised
    tensors = stored_tensors(checkpoint, network, is_rounded=is_rounded)
    of_parent = in_parents_types(checkpoint, tensors)
    if stored == "bf16":
        tensors = cast(tensors, torch.bfloat16)
        values = with_dtype(values, "bfloat16")
    elif of_parent is not None and not is_quantised:
        tensors = of_parent
    else:
        tensors = cast(tensors, torch.float32)
        values = with_dtype(values, "float32")
    return (*write_files(to, values, tensors, metadata), *copy_files(checkpoint, to))


def write_files(
    to: Path,
    values: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Write a configuration and weights to the folder ``to``; return the files' names.

    Raises:
        OSError: the folder cannot be written.
    """
    write_json(to / CONFIG, values)
    save_tensors(tensors, to / WEIGHTS, {**(metadata or {}), "format": "pt"})
    return CONFIG, WEIGHTS


def configuration_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the values of the checkpoint's ``config.json``, for a GGUF file from its metadata."""
    if checkpoint.files:
        return checkpoint.files[CONFIG]
    return read_json(Folder(checkpoint.folder).require(CONFIG))


def copy_files(
    checkpoint: Checkpoint, to: Path, names: Sequence[str] = COMPANIONS
) -> tuple[str, ...]:
    """Copy the checkpoint's files among ``names`` to the folder ``to``; return their names.

    For a GGUF file they are written from its metadata.
    """
    if checkpoint.files:
        made = [name for name in names if name in checkpoint.files]
        for name in made:
            write_json(to / name, checkpoint.files[name])
        return tuple(made)
    source, copied = Folder(checkpoint.folder), []
    for name in names:
        path = source.find(name)
        if path is not None:
            (to / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, to / name)
            copied.append(name)
    return tuple(copied)


def cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return ``tensors`` with floating-point values in ``dtype``."""
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write safetensors.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        save_file({n: t.contiguous() for n, t in tensors.items()}, path, dict(metadata or {}))
    except SafetensorError as error:
        # safetensors raises its own type even for a full disk.
        raise OSError(f"{path.name} could not be written: {first_line(error)}") from None
