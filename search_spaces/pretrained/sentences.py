"""Pooling of checkpoints for embeddings, as sentence-transformers stores it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from search_spaces.architecture.style import Pooling
from search_spaces.pretrained.families.family import Blueprint, Head
from search_spaces.pretrained.files.config import Config, shown
from search_spaces.pretrained.files.folder import Folder, read_json, read_json_list

POOLING, MODULES = "1_Pooling/config.json", "modules.json"
_POOLED = ["Transformer", "Pooling"]
# Files of a folder that sentence-transformers loads, beside those of the network.
SENTENCES, SENTENCE_BERT = "config_sentence_transformers.json", "sentence_bert_config.json"
_MODES: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
# Keys of older files, one for each mode.
_FLAGS: dict[str, Pooling | None] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": None,
    "pooling_mode_mean_sqrt_len_tokens": None,
    "pooling_mode_weightedmean_tokens": None,
}


def is_stored(pooling: Pooling) -> bool:
    """Whether ``1_Pooling`` can express a pooling; a pooler's is computed by the class itself."""
    return pooling in _MODES.values()


def with_pooling(blueprint: Blueprint, head: Head, folder: Folder) -> Blueprint:
    """Return ``blueprint`` with the pooling of ``1_Pooling``, where the folder has it.

    ``modules.json`` says whether vectors are then divided by their lengths.

    Raises:
        ValueError: the pooling or a module is not supported, or vectors have another width.
    """
    path = folder.find(POOLING)
    if head.kind != "text_embedding" or path is None:
        return blueprint
    config, of = Config(read_json(path), path), blueprint.architecture
    for key in ("word_embedding_dimension", "embedding_dimension"):
        config.require(key, (of.d_model,))
    style = replace(of.style, pooling=_pooling(config), has_unit_vectors=_is_normalised(folder))
    return replace(blueprint, architecture=replace(of, style=style))


def _is_normalised(folder: Folder) -> bool:
    """Whether a module divides vectors by their lengths; no other may follow the pooling."""
    path = folder.find(MODULES)
    if path is None:
        return False
    kinds = [module.get("type") if isinstance(module, dict) else None for module in
             read_json_list(path)]  # fmt: skip
    names = [str(kind).rpartition(".")[2] for kind in kinds]
    if names not in (_POOLED, [*_POOLED, "Normalize"]):
        raise ValueError(
            f"{path} must have the modules {', '.join(_POOLED)} and perhaps Normalize, got "
            f"{shown(names)}"
        )
    return names != _POOLED


def _pooling(config: Config) -> Pooling:
    if "pooling_mode" in config:
        return config.choice("pooling_mode", _MODES)
    on: list[Any] = [mode for key, mode in _FLAGS.items() if config.flag(key, False)]
    if len(on) != 1 or on[0] is None:
        supported = ", ".join(key for key, mode in _FLAGS.items() if mode is not None)
        wrong = [key for key in _FLAGS if config.values.get(key)]
        raise config.error("pooling_mode", f"one of {supported}", wrong)
    pooling: Pooling = on[0]
    return pooling
