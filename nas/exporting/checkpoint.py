"""Prune a checkpoint to an architecture and write it in a format that other programs load."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.files import write_json
from nas.core.names import printable
from nas.core.versions import versions
from nas.exporting.artifact import README
from nas.exporting.checkpoint_card import render_card
from nas.exporting.checkpoint_gguf import GGUF, GGUF_TYPES, About, check_gguf_form, write_gguf_form
from nas.exporting.export import Exported
from nas.exporting.formats.registry import FORMATS, check_supported
from nas.exporting.formats.stock import (
    LoadVerification,
    check_transformers,
    verify_folder,
    verify_written,
)
from nas.exporting.formats.stock_quantised import quantise_and_verify
from nas.exporting.staging import staged
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
from search_spaces.architecture import DEFAULT_STYLE, Architecture
from search_spaces.compression.inherit import check_fits_in, inherit
from search_spaces.pretrained.writing.configuration import kept_layers
from search_spaces.pretrained.writing.folder import copy_files, write_checkpoint
from search_spaces.pretrained.writing.loadable import (
    check_loadable,
    quantised_precision,
    stored_precision,
)

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.models.transformer import Transformer
    from search_spaces.pretrained import Checkpoint

# Where the hub's cache has a checkpoint: ``models--owner--name/snapshots/revision``.
_SNAPSHOTS, _CACHED = "snapshots", "models--"


@dataclass(frozen=True, slots=True)
class _Pruned:
    """A pruned network, and its parent's number of parameters."""

    network: Transformer
    parent_params: int


FORMS = ("huggingface", "python", "gguf")


def export_checkpoint(
    checkpoint: Checkpoint,
    architecture: Architecture,
    to: Path,
    *,
    form: str = FORMS[0],
    gguf_type: str = GGUF_TYPES[0],
) -> Exported:
    """Write ``checkpoint``, pruned to ``architecture``, to the new folder ``to``.

    ``inherit`` chooses layers, heads and channels; nothing is trained. A fresh process loads the
    folder without JouleNAS and compares its outputs.

    Args:
        checkpoint: The parent.
        architecture: One of the parent's width and style, not larger than the parent. The default
            style is replaced by the parent's.
        to: New or empty folder.
        form: ``huggingface``, which stock classes load, ``python``, with a module of its own, or
            ``gguf``, one file for llama.cpp.
        gguf_type: Type of the weights in a ``gguf`` file, one of ``GGUF_TYPES``.

    Raises:
        ValueError: the form does not support the architecture, it does not fit into the parent,
            ``transformers`` is not installed, or ``to`` is not empty; nothing was written.
        ExportError: the folder cannot be loaded, or outputs differ; nothing is left behind.
    """
    if architecture.style == DEFAULT_STYLE:
        architecture = replace(architecture, style=checkpoint.architecture.style)
    workload = checkpoint.workload
    if form == "python":
        check_supported([FORMATS[form]], architecture, workload, "cpu")
        if not _is_fp32(architecture):
            raise ValueError("precision must be fp32 with --format python of a checkpoint")
    elif form == "gguf":
        check_gguf_form(checkpoint, architecture, gguf_type)
    else:
        _check_stock(checkpoint, architecture)
    check_fits_in(checkpoint.architecture, architecture)
    changed = _changes(checkpoint.architecture, architecture)
    if form == "gguf" and gguf_type != GGUF_TYPES[0]:
        changed.append(f"weights stored as {gguf_type}")
    with staged(to) as staging:
        pruned = _prune(checkpoint, architecture)
        if form == "gguf":
            about = About(parent_name(checkpoint), checkpoint.license, tuple(changed))
            files, verification = write_gguf_form(
                staging, checkpoint, architecture, pruned.network, gguf_type, about
            )
        else:
            write = _write_python if form == "python" else _write_stock
            files, verification = write(staging, checkpoint, architecture, pruned.network)
        card = {
            "format": form,
            "parent": {
                "name": parent_name(checkpoint),
                "license": checkpoint.license,
                "model_type": checkpoint.model_type,
                "architecture": checkpoint.architecture.describe(),
                "params": pruned.parent_params,
            },
            "architecture": architecture.describe(),
            "params": _n_params(pruned.network),
            "changed": changed,
            "has_tokenizer": checkpoint.tokenizer is not None,
            "weights": GGUF if form == "gguf" else WEIGHTS,
            "files": {each: (staging / each).stat().st_size for each in files},
            "load_verification": verification.to_dict(),
            "versions": versions(),
        }
        (staging / README).write_text(render_card(card), encoding="utf-8")
    return Exported(to, card)


def _check_stock(checkpoint: Checkpoint, architecture: Architecture) -> None:
    try:
        check_loadable(checkpoint, architecture)
    except ValueError as error:
        refusal = FORMATS["python"].refusal(architecture, checkpoint.workload, "cpu")
        hint = "; format python does" if refusal is None and _is_fp32(architecture) else ""
        raise ValueError(
            f"format huggingface does not support this network: {error}{hint}"
        ) from None
    check_transformers()


def _write_stock(
    folder: Path, checkpoint: Checkpoint, architecture: Architecture, network: Transformer
) -> tuple[tuple[str, ...], LoadVerification]:
    """Write the checkpoint's own format; return names of files, and the verification."""
    changed = _changes(checkpoint.architecture, architecture)
    metadata = {"parent": parent_name(checkpoint), "changed": "; ".join(changed) or "nothing"}
    if checkpoint.license is not None:
        metadata["license"] = checkpoint.license
    files = write_checkpoint(checkpoint, network, architecture, folder, metadata=metadata)
    if quantised_precision(architecture) is None:
        return files, verify_written(folder, network, architecture)
    return files, quantise_and_verify(folder, checkpoint, network, architecture)


def _write_python(
    folder: Path, checkpoint: Checkpoint, architecture: Architecture, network: Transformer
) -> tuple[tuple[str, ...], LoadVerification]:
    """Write an artifact with a module of its own; return the same as ``_write_stock``."""
    python, workload = FORMATS["python"], checkpoint.workload
    write_json(folder / ARCHITECTURE, architecture.to_dict())
    write_json(folder / WORKLOAD, workload.to_dict())
    save_weights(network, folder / WEIGHTS)
    python.write(folder)
    copied = copy_files(checkpoint, folder)
    verification = verify_folder(folder, workload, architecture.style, network, by_stock=False)
    return (ARCHITECTURE, WORKLOAD, WEIGHTS, *python.files, *copied), verification


def parent_name(checkpoint: Checkpoint) -> str:
    """Return the hub's name of a folder in the hub's cache, and any other folder's own name."""
    folder = checkpoint.folder.parent if checkpoint.files else checkpoint.folder
    cache = folder.absolute().parent
    if cache.name == _SNAPSHOTS and cache.parent.name.startswith(_CACHED):
        return printable(cache.parent.name.removeprefix(_CACHED).replace("--", "/"))
    return checkpoint.workload.name


def _prune(checkpoint: Checkpoint, architecture: Architecture) -> _Pruned:
    parent = checkpoint.build()
    network = inherit(parent, checkpoint.architecture, architecture, checkpoint.workload)
    return _Pruned(network.eval(), _n_params(parent))


def _changes(parent: Architecture, architecture: Architecture) -> list[str]:
    """Return the changes to the parent, one text for each field."""
    before, after = parent.layers[0], architecture.layers[0]
    changes = []
    if architecture.depth != parent.depth:
        layers = ", ".join(map(str, kept_layers(parent, architecture)))
        changes.append(f"depth {parent.depth} to {architecture.depth} (layers {layers})")
    old, new = {**asdict(before.attention), "d_ff": before.ffn.d_ff}, asdict(after.attention)
    new["d_ff"] = after.ffn.d_ff
    for field in ("n_heads", "n_kv_heads", "d_ff"):
        if old[field] != new[field]:
            changes.append(f"{field} {old[field]} to {new[field]}")
    quantised, stored = quantised_precision(architecture), stored_precision(architecture)
    if quantised is not None:
        n_blocks = sum(b.compression.precision == quantised for b in architecture.blocks)
        changes.append(f"{n_blocks} of {len(architecture.blocks)} blocks quantised to {quantised}")
    if stored != "fp32":
        changes.append(f"{'other ' if quantised else ''}weights stored as {stored}")
    return changes


def _is_fp32(architecture: Architecture) -> bool:
    return all(block.compression.precision == "fp32" for block in architecture.blocks)


def _n_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
