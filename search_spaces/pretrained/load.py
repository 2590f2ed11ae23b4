"""Load checkpoints: describe folder or file, compare names and shapes; values are read later."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.core.names import check_name, first_line
from search_spaces.pretrained.checkpoint import Checkpoint
from search_spaces.pretrained.families.family import Blueprint, Family, Head
from search_spaces.pretrained.files.config import Config
from search_spaces.pretrained.files.folder import (
    CONFIG,
    PREPROCESSOR,
    TOKENIZERS,
    Folder,
    read_json,
)
from search_spaces.pretrained.files.header import Entry
from search_spaces.pretrained.files.hub import download, is_hub_name
from search_spaces.pretrained.files.tensors import find_tensors
from search_spaces.pretrained.files.vocabulary import check_vocabulary
from search_spaces.pretrained.gguf.read import SUFFIX, GgufFile, gguf_in, read_gguf
from search_spaces.pretrained.matching import match
from search_spaces.pretrained.registry import FAMILIES
from search_spaces.pretrained.sentences import with_pooling
from search_spaces.pretrained.shapes import empty_network
from search_spaces.workload import SPAN_ENDS, Workload

_MOST_LABELS = 2**20


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Describe the checkpoint in a folder or a GGUF file, or ``owner/name`` on the hub.

    A folder holds ``config.json`` and safetensors, or one GGUF file. Values are read by
    ``Checkpoint.build``. GGUF requires the package ``gguf``, a hub name ``huggingface_hub``; a
    path of that name is preferred.

    Raises:
        ValueError: there is no such checkpoint, it is not supported, or a file is not valid; the
            message names the file and the field.
    """
    path = Path(source)
    try:
        name = path.resolve().name
        if path.suffix == SUFFIX and not path.exists():
            # ``folder/file.gguf`` has the form of a name on the hub.
            raise ValueError(f"checkpoint file {str(path)!r} must exist, and does not")
        if not path.exists() and is_hub_name(source):
            path, name = download(str(source)), str(source).rpartition("/")[2]
        stored = gguf_in(path)
        if stored is not None:
            return _load_gguf(read_gguf(stored), name.removesuffix(stored.suffix))
        return _load_folder(path, name)
    except OSError as error:
        raise ValueError(f"checkpoint {path} must be readable: {first_line(error)}") from None
    except RecursionError:
        raise ValueError(f"checkpoint {path} must not nest values so deeply") from None


def _load_folder(path: Path, name: str) -> Checkpoint:
    folder = Folder(path)
    config = Config(read_json(folder.require(CONFIG)), path / CONFIG)
    checkpoint = _described(path, name, config, lambda: find_tensors(folder), folder)
    tokenizer, vocab_size = folder.tokenizer(), checkpoint.workload.vocab_size
    if tokenizer is not None and vocab_size is not None:
        check_vocabulary(tokenizer, vocab_size)
    return replace(
        checkpoint,
        tokenizer=tokenizer,
        preprocessor=folder.find(PREPROCESSOR),
        license=folder.license(),
    )


def _load_gguf(file: GgufFile, name: str) -> Checkpoint:
    config = Config(file.config, file.path)
    checkpoint = _described(file.path, name, config, lambda: file.entries, None)
    return replace(
        checkpoint,
        tokenizer=file.path if TOKENIZERS[0] in file.files else None,
        license=file.license,
        files=file.files,
    )


def _described(
    path: Path,
    name: str,
    config: Config,
    find: Callable[[], Mapping[str, Entry]],
    folder: Folder | None,
) -> Checkpoint:
    """Describe a checkpoint by its configuration and its tensors; ``folder`` is Hugging Face's."""
    family = family_of(config)
    head = _head_of(config, family)
    config.check_supported()
    entries = find()
    try:
        blueprint = family.read(config, head)
        if folder is not None:
            blueprint = with_pooling(blueprint, head, folder)
        # Before modules are made, whose number is the configuration's word alone.
        if blueprint.architecture.depth > len(entries):
            raise ValueError(
                f"{config.path}: the number of layers must be at most that of stored tensors, "
                f"{len(entries)}, got {blueprint.architecture.depth}"
            )
        labels = _labels(config) if head.kind in _LABELLED else ()
        workload = _workload(_plain(name), head, blueprint, labels)
        workload = _padded(workload, config, family.padding_token)
        network = empty_network(blueprint.architecture, workload)
    except ValueError as error:
        where = "" if str(error).startswith(str(path)) else f"{config.path}: "
        raise ValueError(f"{where}{error}") from None
    names = {**family.names, **head.names, **blueprint.names}
    matched = match(network, family, names, entries, path)
    return Checkpoint(
        folder=path,
        family=family.name,
        model_type=config.take("model_type"),
        architecture=blueprint.architecture,
        workload=workload,
        limit=f"{blueprint.limit} of {config.path.name}",
        match=matched,
        labels=labels,
        unread_keys=config.unread(family.harmless),
        longest=None if workload.is_image else workload.input_shape[0],
        image_size=_image_size(workload),
        resizing=family.resizing,
    )


def _image_size(workload: Workload) -> tuple[int, int] | None:
    if not workload.is_image:
        return None
    _, height, width = workload.input_shape
    return height, width


def family_of(config: Config) -> Family:
    """Return the family of a configuration's ``model_type``.

    Raises:
        ValueError: there is none, or the configuration names code of its own.
    """
    types = {kind: family for family in FAMILIES for kind in family.classes}
    family = config.choice("model_type", types)
    if config.take("auto_map") not in (None, {}):
        raise config.error(
            "auto_map",
            "left out (code of a checkpoint is never run; where the class of transformers gives "
            "the same outputs, delete the key)",
            config.take("auto_map"),
        )
    return family


def _head_of(config: Config, family: Family) -> Head:
    """Return the head of the class that ``architectures`` names."""
    first = family.classes[config.take("model_type")]
    allowed = {f"{first}{rest}": head for rest, head in family.heads.items()}
    names = config.take("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise config.error("architectures", f"a list of one of {', '.join(allowed)}", names)
    if names[0] not in allowed:
        raise config.error("architectures", f"a list of one of {', '.join(allowed)}", names)
    return allowed[names[0]]


_LABELLED = ("image_classification", "text_classification")


def _labels(config: Config) -> tuple[str, ...]:
    """Names of classes: ``id2label``'s, or as many as ``num_labels`` says, 2 by default."""
    names: Any = config.take("id2label")
    if names is None:
        n_labels = config.integer("num_labels", 2, most=_MOST_LABELS)
        return tuple(f"LABEL_{index}" for index in range(n_labels))
    config.require("num_labels", (len(names),) if isinstance(names, dict) else ())
    if not isinstance(names, dict) or names.keys() != {str(i) for i in range(len(names))}:
        raise config.error("id2label", "an object with the keys 0, 1, ...", names)
    if not names:
        raise config.error("id2label", "an object with one name or more", names)
    ordered = [names[str(index)] for index in range(len(names))]
    return tuple(check_name("id2label", str(label)[:100]) for label in ordered)


def _workload(name: str, head: Head, blueprint: Blueprint, labels: tuple[str, ...]) -> Workload:
    return Workload(
        name,
        head.kind,
        blueprint.input_shape,
        n_classes=_n_outputs(head, blueprint, labels),
        batch_size=1,
        vocab_size=blueprint.vocab_size,
    )


def _n_outputs(head: Head, blueprint: Blueprint, labels: tuple[str, ...]) -> int:
    match head.kind:
        case "language_modelling" | "masked_language_modelling":
            assert blueprint.vocab_size is not None
            return blueprint.vocab_size
        case "question_answering":
            return SPAN_ENDS
        case "text_embedding" | "image_embedding":
            return blueprint.architecture.style.n_pooled * blueprint.architecture.d_model
        case _:
            return len(labels)


def _padded(workload: Workload, config: Config, default: int | None) -> Workload:
    """Return the workload with the configuration's padding token, where texts may be padded."""
    token = config.take("pad_token_id")
    if not workload.has_padding or workload.vocab_size is None:
        return workload
    token = default if token is None else token
    if token is not None and type(token) is not int:
        raise config.error("pad_token_id", "an integer or null", token)
    if token is None or not 0 <= token < workload.vocab_size:
        # The number after the last token masks none: all tokens are read.
        token = workload.vocab_size
    return replace(workload, padding_token=token)


def _plain(name: str) -> str:
    """Return a folder's name as a workload's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:100] or "checkpoint"
