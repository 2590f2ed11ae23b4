"""Write a network without a parent as a folder that a stock class loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from search_spaces.architecture import Architecture
from search_spaces.pretrained.checkpoint import Checkpoint
from search_spaces.pretrained.files.folder import CONFIG
from search_spaces.pretrained.files.header import Entry
from search_spaces.pretrained.matching import Match, sources_of
from search_spaces.pretrained.writing.folder import cast, write_files
from search_spaces.pretrained.writing.sentences import write_sentence_files
from search_spaces.pretrained.writing.stock import stock_class, stock_refusals
from search_spaces.pretrained.writing.tensors import stored_tensors
from search_spaces.workload import Workload


def write_new(
    network: nn.Module,
    architecture: Architecture,
    workload: Workload,
    to: Path,
    *,
    labels: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    prompts: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Write ``network`` to the existing folder ``to``; return the files' names.

    For embeddings of texts these include the files of ``sentences``.

    Weights are fp32, or bf16 if ``stored_precision`` is. Blocks to be quantised are written
    unquantised.

    Args:
        network: The dense network of ``architecture``.
        architecture: One that ``stock_refusals`` allows.
        workload: The network's.
        to: An existing folder.
        labels: Names of classes; their numbers by default.
        metadata: Further texts for the header of the weights.
        prompts: For embeddings, texts by name; the first is put before each text.

    Raises:
        ValueError: no stock class supports the architecture; nothing was written.
        OSError: the folder cannot be written.
    """
    reasons = stock_refusals(architecture, workload)
    if reasons:
        raise ValueError(reasons[0])
    tensors = stored_tensors(described_by(network, architecture, workload), network)
    stock = stock_class(architecture.style, workload)
    assert stock is not None
    values = stock.config(architecture, workload, labels)
    files = write_files(to, values, cast(tensors, getattr(torch, values["dtype"])), metadata)
    if workload.kind != "text_embedding":
        return files
    return (*files, *write_sentence_files(architecture, workload, to, prompts or {}))


def described_by(network: nn.Module, architecture: Architecture, workload: Workload) -> Checkpoint:
    """Describe ``network`` as a checkpoint of its stock class, with shapes but no values.

    Args:
        network: The dense network of ``architecture``.
        architecture: One that ``stock_refusals`` allows.
        workload: The network's.
    """
    stock = stock_class(architecture.style, workload)
    assert stock is not None
    family, values = stock.family, stock.config(architecture, workload)
    blueprint = stock.read(values)
    names = {**family.names, **stock.head.names, **blueprint.names}
    flat = {} if family.flat_shapes is None else family.flat_shapes(architecture, workload)
    sources, shapes, entries = {}, {}, {}
    for parameter, value in network.named_parameters():
        sources[parameter] = sources_of(parameter, names)
        shapes[parameter] = tuple(value.shape)
        for piece in sources[parameter]:
            stored = piece.source.shape_of(piece.shape_in(shapes[parameter]))
            name = piece.source.name
            entries[name] = Entry(Path(CONFIG), name, "F32", flat.get(name, stored), 0)
    return Checkpoint(
        folder=Path(),
        family=family.name,
        model_type=values["model_type"],
        architecture=architecture,
        workload=workload,
        limit=blueprint.limit,
        match=Match(sources, shapes, (), entries),
    )
