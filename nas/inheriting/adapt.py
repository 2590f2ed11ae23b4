"""A checkpoint's network on a user's task: its style, its weights, and perhaps a new head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from search_spaces.architecture import Architecture, BlockStyle
from search_spaces.models.build import build
from search_spaces.models.transformer import Transformer
from search_spaces.pretrained import Checkpoint
from search_spaces.pretrained.families.family import Head
from search_spaces.pretrained.files.config import Config
from search_spaces.pretrained.files.folder import CONFIG
from search_spaces.pretrained.files.tensors import MappedTensors
from search_spaces.pretrained.load import family_of
from search_spaces.pretrained.matching import sources_of
from search_spaces.pretrained.writing.folder import configuration_of
from search_spaces.pretrained.writing.loadable import family_named
from search_spaces.workload import Kind, Workload

# Class of a checkpoint with a head for the kind of a task, by the rest of its name.
_CLASSIFIERS: dict[Kind, str] = {
    "text_classification": "ForSequenceClassification",
    "image_classification": "ForImageClassification",
}
_EMBEDDINGS: dict[Kind, Kind] = {
    "text_classification": "text_embedding",
    "image_classification": "image_embedding",
}


@dataclass(frozen=True)
class Adapted:
    """A checkpoint's network on a task. ``new`` are its parameters with fresh values."""

    network: Transformer
    architecture: Architecture
    new: tuple[str, ...]


def kind_for(checkpoint: Checkpoint, kind: Kind) -> None:
    """Raise ``ValueError`` unless a network of ``checkpoint`` can do a task of ``kind``."""
    own = checkpoint.workload
    name = checkpoint.folder.name
    if kind == "language_modelling":
        if own.kind != kind:
            raise ValueError(
                f"task must be one of text classification for checkpoint {name}, a class for "
                f"{own.kind.replace('_', ' ')}, which does not continue texts"
            )
        return
    if kind == "text_embedding":
        if own.kind != kind:
            raise ValueError(
                f"task must be one of {own.kind.replace('_', ' ')} for checkpoint {name}, whose "
                f"outputs are no vectors of texts"
            )
        return
    if kind not in _CLASSIFIERS:
        raise ValueError(
            f"task must be of kind text_classification, language_modelling, embeddings or images "
            f"with a checkpoint, got {kind}"
        )
    if own.is_image != (kind == "image_classification"):
        reads = "images" if own.is_image else "texts"
        raise ValueError(
            f"task must have {reads}, which checkpoint {name} reads, got {kind.replace('_', ' ')}"
        )
    if own.kind not in (kind, _EMBEDDINGS[kind]) and _classifier(checkpoint, kind) is None:
        raise ValueError(
            f"task must be of the kind of checkpoint {name}, {own.kind}: classes of family "
            f"{checkpoint.family} have no head for {kind}"
        )


def style_for(checkpoint: Checkpoint, kind: Kind, *, loadable: bool = False) -> BlockStyle:
    """Return the style of the checkpoint's network on a task of ``kind``.

    It is the checkpoint's own, pooling included, where that has one vector of each sample, else
    that of its family's classifier; with ``loadable`` always the classifier's.
    """
    own, style = checkpoint.workload, checkpoint.architecture.style
    if own.kind == kind:
        return style
    classifier = _classifier(checkpoint, kind)
    is_pooled = own.kind == _EMBEDDINGS.get(kind) and not loadable
    if classifier is None or is_pooled:
        return replace(style, has_unit_vectors=False)
    return classifier


def _classifier(checkpoint: Checkpoint, kind: Kind) -> BlockStyle | None:
    """Return the style of the family's classifier; ``None`` if it has none."""
    ending = _CLASSIFIERS[kind]
    family = family_named(checkpoint.family)
    head = family.heads.get(ending)
    if head is None or head.kind != kind:
        return None
    first = family.classes[checkpoint.model_type]
    values = {**configuration_of(checkpoint), "architectures": [f"{first}{ending}"]}
    config = Config(values, checkpoint.folder / CONFIG)
    return family_of(config).read(config, head).architecture.style


def padding_token_of(checkpoint: Checkpoint) -> int:
    """Return the padding token of the checkpoint's texts.

    Raises:
        ValueError: the checkpoint names none that is in its vocabulary.
    """
    vocab_size = checkpoint.workload.vocab_size or 0
    token = configuration_of(checkpoint).get("pad_token_id")
    if token is None:
        token = family_named(checkpoint.family).padding_token
    if type(token) is not int or not 0 <= token < vocab_size:
        raise ValueError(
            f"{checkpoint.folder / CONFIG}: pad_token_id must be a token below {vocab_size} for "
            f"a task whose texts are padded, got {token!r}: name one, such as the "
            f"end token's number"
        )
    return token


def adapted(
    checkpoint: Checkpoint,
    architecture: Architecture,
    workload: Workload,
    *,
    labels: Sequence[object] = (),
    seed: int = 0,
) -> Adapted:
    """Build the checkpoint's network of ``architecture`` for ``workload``, with its weights.

    ``architecture`` is the checkpoint's with the style of ``style_for``. A head whose classes are
    not ``labels`` is new. Fresh values are drawn from ``seed``.

    Raises:
        ValueError: the workload's inputs are none of the checkpoint's, or values cannot be read.
    """
    sized = checkpoint.with_input_shape(workload.input_shape)
    parent = sized.build()
    network = build(architecture, workload, generator_seed=seed)
    stored = dict(parent.named_parameters())
    keeps_head = _keeps_head(checkpoint, workload, labels)
    head = _head(checkpoint, workload)
    tensors = MappedTensors(checkpoint.match.entries)
    new = []
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            is_head = name.partition(".")[0] == "head"
            value = stored.get(name)
            if (
                value is not None
                and value.shape == parameter.shape
                and (keeps_head or not is_head)
            ):
                parameter.copy_(value)
            elif is_head or not _read_spare(checkpoint, head, name, parameter, tensors):
                new.append(name)
    return Adapted(network.eval(), architecture, tuple(new))


def check_untuned(parent: Adapted) -> None:
    """Raise ``ValueError`` if ``parent`` has fresh values, which only fine-tuning gives a use."""
    if parent.new:
        raise ValueError(
            f"the checkpoint must be fine-tuned on this task: its {parent.new[0]} has fresh "
            f"values; leave out --no-fine-tune"
        )


def _head(checkpoint: Checkpoint, workload: Workload) -> Head | None:
    ending = _CLASSIFIERS.get(workload.kind)
    return None if ending is None else family_named(checkpoint.family).heads.get(ending)


def _read_spare(
    checkpoint: Checkpoint,
    head: Head | None,
    name: str,
    parameter: torch.Tensor,
    tensors: MappedTensors,
) -> bool:
    """Read a parameter that the checkpoint's own class does not use, such as a pooler's."""
    family, entries = family_named(checkpoint.family), checkpoint.match.entries
    names = {**family.names, **({} if head is None else head.names)}
    module = name.rpartition(".")[0]
    if module not in names and name not in names:
        return False
    (piece, *others) = sources_of(name, names)
    source = piece.source
    for stored in (source.name, source.name.removeprefix(family.prefix)):
        if not others and stored in entries and entries[stored].shape == tuple(parameter.shape):
            tensors.copy(stored, parameter)
            return True
    return False


def _keeps_head(checkpoint: Checkpoint, workload: Workload, labels: Sequence[object]) -> bool:
    """Whether the checkpoint's output layer is one for the task's classes, in their order."""
    own = checkpoint.workload
    if own.kind != workload.kind:
        return False
    if workload.kind not in _CLASSIFIERS:
        return True
    names = [str(label).lower() for label in labels]
    return [label.lower().removeprefix("label_") for label in checkpoint.labels] == names or [
        label.lower() for label in checkpoint.labels
    ] == names
