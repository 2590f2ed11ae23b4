"""Cut a checkpoint to an architecture, and write it in the format that it came in."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nas.core.versions import versions
from nas.exporting.artifact import README, ExportError
from nas.exporting.checkpoint_card import render_card
from nas.exporting.export import Exported
from nas.exporting.staging import staged
from nas.exporting.stock import Proof, check_transformers, prove
from search_spaces.architecture import DEFAULT_STYLE, Architecture
from search_spaces.compression.inherit import check_fits_in, inherit
from search_spaces.pretrained import load_checkpoint
from search_spaces.pretrained.writing import check_loadable, write_checkpoint
from search_spaces.pretrained.writing.configuration import kept_layers

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.models.transformer import Transformer
    from search_spaces.pretrained import Checkpoint

# Where the hub's cache has a checkpoint: ``models--owner--name/snapshots/revision``.
_SNAPSHOTS, _CACHED = "snapshots", "models--"


@dataclass(frozen=True, slots=True)
class _Cut:
    """A network of a checkpoint's family with fewer weights, and the parent's sizes."""

    network: Transformer
    parent_params: int


def export_checkpoint(checkpoint: Checkpoint, architecture: Architecture, to: Path) -> Exported:
    """Write ``checkpoint``, cut to ``architecture``, to the new folder ``to``.

    Layers, heads and channels are those of ``inherit``; nothing is trained. A fresh process loads
    the folder by ``transformers`` alone and compares its outputs.

    Args:
        checkpoint: The parent.
        architecture: Of the parent's width and style (an absent style is the parent's), and not
            larger than it.
        to: New or empty.

    Raises:
        ValueError: no stock class can hold the architecture, it does not fit into the parent,
            ``transformers`` is not installed, or ``to`` is not empty; nothing was written.
        ExportError: the folder cannot be loaded, or outputs differ; nothing is left behind.
    """
    if architecture.style == DEFAULT_STYLE:
        architecture = replace(architecture, style=checkpoint.architecture.style)
    try:
        check_loadable(checkpoint, architecture)
    except ValueError as error:
        raise ValueError(f"format huggingface cannot hold this: {error}") from None
    check_fits_in(checkpoint.architecture, architecture)
    check_transformers()
    with staged(to) as staging:
        cut = _cut(checkpoint, architecture)
        changed = _changes(checkpoint.architecture, architecture)
        name, metadata = parent_name(checkpoint), {}
        metadata = {"parent": name, "changed": "; ".join(changed) or "nothing"}
        if checkpoint.license is not None:
            metadata["license"] = checkpoint.license
        files = write_checkpoint(
            checkpoint, cut.network, architecture, staging, metadata=metadata
        )
        proof = _proved(staging, cut.network, architecture)
        card = {
            "parent": {
                "name": name,
                "license": checkpoint.license,
                "model_type": checkpoint.model_type,
                "architecture": checkpoint.architecture.describe(),
                "params": cut.parent_params,
            },
            "architecture": architecture.describe(),
            "params": _n_params(cut.network),
            "changed": changed,
            "files": {each: (staging / each).stat().st_size for each in files},
            "proof": proof.to_dict(),
            "versions": versions(),
        }
        (staging / README).write_text(render_card(card), encoding="utf-8")
    return Exported(to, card)


def parent_name(checkpoint: Checkpoint) -> str:
    """Return the checkpoint's name on the hub where its folder is in the hub's cache, else the
    folder's.
    """
    cache = checkpoint.folder.absolute().parent
    if cache.name == _SNAPSHOTS and cache.parent.name.startswith(_CACHED):
        return cache.parent.name.removeprefix(_CACHED).replace("--", "/")
    return checkpoint.workload.name


def _cut(checkpoint: Checkpoint, architecture: Architecture) -> _Cut:
    parent = checkpoint.build()
    network = inherit(parent, checkpoint.architecture, architecture, checkpoint.workload)
    return _Cut(network.eval(), _n_params(parent))


def _proved(folder: Path, network: Transformer, architecture: Architecture) -> Proof:
    """Read the folder again, by our reader and by ``transformers``.

    Raises:
        ExportError: parameters or outputs differ.
    """
    try:
        written = load_checkpoint(folder)
        read = written.build()
    except ValueError as error:
        raise ExportError(f"the folder cannot be read again: {error}") from None
    is_bf16 = architecture.blocks[0].compression.precision == "bf16"
    values = dict(read.named_parameters())
    for name, parameter in network.named_parameters():
        expected = parameter.detach()
        if is_bf16:
            expected = expected.bfloat16().float()
        if name not in values or not torch.equal(values[name], expected):
            raise ExportError(f"{name} differs in the folder when it is read again")
    return prove(folder, written, read)


def _changes(parent: Architecture, architecture: Architecture) -> list[str]:
    """What differs from the parent, one text a field."""
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
    if after.ffn.compression.precision != "fp32":
        changes.append(f"weights stored as {after.ffn.compression.precision}")
    return changes


def _n_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


