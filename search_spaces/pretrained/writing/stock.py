"""Find stock classes of ``transformers`` for networks without a parent, and configure them.

A class computes one style for each kind of workload. A family's ``write`` makes a configuration of
an architecture. The class computes the style if ``read`` returns it from that configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from search_spaces.architecture import (
    STYLES,
    TRANSFORMER,
    Architecture,
    AttentionSpec,
    BlockStyle,
    FfnSpec,
    LayerSpec,
)
from search_spaces.pretrained.families.family import Blueprint, Family, Head
from search_spaces.pretrained.files.config import Config
from search_spaces.pretrained.files.folder import CONFIG
from search_spaces.pretrained.registry import FAMILIES
from search_spaces.pretrained.sentences import is_stored
from search_spaces.pretrained.writing.loadable import layer_refusals, stored_precision
from search_spaces.workload import Workload

_LABELLED = ("image_classification", "text_classification")
_LAYER = LayerSpec(AttentionSpec(1, 1, 2), FfnSpec(2))


@dataclass(frozen=True)
class StockClass:
    """A class of ``transformers``: its family, and the ending of its name, such as ``Model``."""

    family: Family
    ending: str

    @property
    def head(self) -> Head:
        """Head of the class, after its layers."""
        return self.family.heads[self.ending]

    def config(
        self, architecture: Architecture, workload: Workload, labels: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return the values of ``config.json``, with sizes of the first layer.

        ``labels`` are the names of classes; their numbers by default.
        """
        write, sizes = self.family.write, self.family.sizes
        assert write is not None
        values, layer = write(architecture, workload), architecture.layers[0]
        attention, d_ff = layer.attention, layer.ffn.d_ff
        if sizes.ffn_value is not None:
            d_ff = sizes.ffn_value(d_ff, architecture.d_model, architecture.style.is_gated) or d_ff
        values |= {sizes.depth: architecture.depth, sizes.heads: attention.n_heads}
        values[sizes.d_ff] = d_ff
        for key, size in (
            (sizes.kv_heads, attention.n_kv_heads),
            (sizes.d_head, attention.d_head),
        ):
            if key is not None:
                values[key] = size
        if workload.has_padding:
            values["pad_token_id"] = workload.padding_token
        if workload.kind in _LABELLED:
            names = list(labels) or [f"LABEL_{index}" for index in range(workload.n_classes)]
            values["id2label"] = {str(index): name for index, name in enumerate(names)}
            values["label2id"] = {name: index for index, name in enumerate(names)}
        values["dtype"] = "bfloat16" if stored_precision(architecture) == "bf16" else "float32"
        return {"architectures": [f"{self.classes(values)}{self.ending}"], **values}

    def classes(self, values: dict[str, Any]) -> str:
        """Return the first part of the names of the classes of a configuration."""
        return self.family.classes[values["model_type"]]

    def read(self, values: dict[str, Any]) -> Blueprint:
        """Describe a configuration by the family's own reader.

        Raises:
            ValueError: a value is not allowed.
        """
        return self.family.read(Config(values, Path(CONFIG)), self.head)


@lru_cache(maxsize=256)
def stock_class(style: BlockStyle, workload: Workload) -> StockClass | None:
    """Return the class that computes networks of ``style``, ``None`` if there is none."""
    for family in FAMILIES:
        for ending, head in family.heads.items():
            if family.write is not None and head.kind == workload.kind:
                stock = StockClass(family, ending)
                if _computes(stock, style, workload):
                    return stock
    return None


def _computes(stock: StockClass, style: BlockStyle, workload: Workload) -> bool:
    architecture = Architecture(2, (_LAYER,), style=style)
    try:
        read = stock.read(stock.config(architecture, workload))
    except ValueError:
        return False
    is_whole = not workload.predicts_tokens or workload.n_classes == workload.vocab_size
    computed = read.architecture.style
    if workload.kind == "text_embedding" and is_stored(style.pooling):
        # The pooling is stored beside the class, which gives the stream.
        computed = replace(
            computed, pooling=style.pooling, has_unit_vectors=style.has_unit_vectors
        )
    return (
        is_whole
        and read.input_shape == workload.input_shape
        and read.vocab_size == workload.vocab_size
        and in_use(computed, workload) == in_use(style, workload)
    )


def in_use(style: BlockStyle, workload: Workload) -> BlockStyle:
    """Return ``style`` with the default of each choice that no output depends on."""
    return replace(
        style,
        pooling=style.pooling if workload.is_pooled else "mean",
        is_head_tied=workload.has_tied_head(style),
        has_head_transform=workload.has_head_transform(style),
        has_unit_vectors=workload.is_embedding and style.has_unit_vectors,
        is_causal=workload.reads_past_only(style),
    )


def loadable_blocks(workload: Workload) -> tuple[str, ...]:
    """Return the names of ``STYLES`` that a stock class computes."""
    return tuple(name for name, style in STYLES.items() if stock_class(style, workload))


def stock_refusals(architecture: Architecture, workload: Workload) -> tuple[str, ...]:
    """Return the reasons why no stock class supports ``architecture``, empty if one does.

    Each names the field, and in layers the layer.
    """
    if architecture.family != TRANSFORMER or architecture.decoder is not None:
        return (f"the network must be a single stack of the family {TRANSFORMER}",)
    stock = stock_class(architecture.style, workload)
    if stock is None:
        able = ", ".join(loadable_blocks(workload)) or "none"
        return (
            f"blocks {architecture.style.describe()} are computed by no class of transformers for "
            f"{workload.kind} (blocks that are: {able})",
        )
    values = stock.config(architecture, workload)
    reasons = list(layer_refusals(architecture, stock.family, stock.classes(values)))
    if architecture.resolution is not None:
        reasons.insert(
            0, f"resolution is {architecture.resolution}, and stock classes read whole samples"
        )
    try:
        stock.read(values)
    except ValueError as error:
        reasons.append(str(error))
    return tuple(reasons)
