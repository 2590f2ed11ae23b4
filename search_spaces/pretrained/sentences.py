"""Pooling of checkpoints for embeddings, as sentence-transformers stores it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from search_spaces.architecture.style import Pooling
from search_spaces.pretrained.config import Config
from search_spaces.pretrained.family import Blueprint, Head
from search_spaces.pretrained.folder import Folder, read_json

POOLING = "1_Pooling/config.json"
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


def with_pooling(blueprint: Blueprint, head: Head, folder: Folder) -> Blueprint:
    """Return ``blueprint`` with the pooling of ``1_Pooling/config.json``, where there is one.

    Vectors are those before a ``Normalize`` module, which keeps the angles between them.

    Raises:
        ValueError: the pooling is not supported, or of vectors of another width.
    """
    path = folder.find(POOLING)
    if head.kind != "text_embedding" or path is None:
        return blueprint
    config, of = Config(read_json(path), path), blueprint.architecture
    for key in ("word_embedding_dimension", "embedding_dimension"):
        config.require(key, (of.d_model,))
    return replace(
        blueprint,
        architecture=replace(of, style=replace(of.style, pooling=_pooling(config))),
    )


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
