"""Tabulate the blocks and genes that each export format supports, for ``docs/export.md``.

``python -m experiments.forms`` rewrites the tables from the formats' own refusals, and a test
compares them. Networks are small and have random weights; a refusal depends on neither.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from nas.exporting.formats.registry import ARTIFACT, FORMATS
from search_spaces.architecture import (
    STYLES,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
    Precision,
    Sparsity,
)
from search_spaces.models.build import build_network
from search_spaces.pretrained.writing.gguf import gguf_refusals
from search_spaces.pretrained.writing.new import described_by
from search_spaces.pretrained.writing.stock import stock_class, stock_refusals
from search_spaces.workload import Workload

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
BEGIN, END = "<!-- forms -->\n", "<!-- end of forms -->\n"
GGUF = "gguf"
COLUMNS = (ARTIFACT, *FORMATS, GGUF)

_TEXT = Workload("text", "text_classification", (16,), 3, 4, vocab_size=64)
_IMAGE = Workload("image", "image_classification", (3, 8, 8), 10, 4)
_WORDS = Workload("words", "language_modelling", (16,), 64, 4, vocab_size=64)
# Workloads of named styles; others are language models.
WORKLOADS: Mapping[str, Workload] = {"default": _IMAGE, "vit": _IMAGE, "bert": _TEXT}
# Size of heads, where GGUF supports only one.
_HEAD_SIZES = {"qwen3": 128}
Change = Callable[[LayerSpec], LayerSpec]


def workload_of(blocks: str) -> Workload:
    """Return the workload of networks with these blocks."""
    return WORKLOADS.get(blocks, _WORDS)


def network_of(blocks: str) -> Architecture:
    """Return a network with these blocks, of two equal, dense layers in fp32."""
    patch_size = 2 if workload_of(blocks).is_image else 1
    layer = LayerSpec(AttentionSpec(4, 4, _HEAD_SIZES.get(blocks, 16)), FfnSpec(128))
    return Architecture(64, (layer, layer), patch_size=patch_size, style=STYLES[blocks])


def _heads(n_heads: int, n_kv_heads: int) -> Change:
    return lambda layer: replace(
        layer, attention=replace(layer.attention, n_heads=n_heads, n_kv_heads=n_kv_heads)
    )


def _ffn(d_ff: int, rank: int | None = None, precision: Precision = "fp32") -> Change:
    return lambda layer: replace(layer, ffn=FfnSpec(d_ff, rank, Compression(precision)))


def _compressed(precision: Precision, sparsity: Sparsity = "dense") -> Change:
    compression = Compression(precision, sparsity)
    return lambda layer: LayerSpec(
        replace(layer.attention, compression=compression),
        replace(layer.ffn, compression=compression),
    )


# Properties beside blocks: a change, and whether it is made to all layers or the second only.
GENES: Mapping[str, tuple[Change, bool]] = {
    "feed-forward widths that differ": (_ffn(64), False),
    "numbers of heads that differ": (_heads(2, 2), False),
    "fewer heads than the width has": (_heads(2, 2), True),
    "fewer key-value heads": (_heads(4, 2), True),
    "a rank": (_ffn(128, rank=16), False),
    "2:4 without a kernel": (_compressed("fp32", "2:4"), True),
    "bf16": (_compressed("bf16"), True),
    "int8": (_compressed("int8"), True),
    "int8 in some blocks": (_ffn(128, precision="int8"), False),
    "int8wo": (_compressed("int8wo"), True),
    "int4wo": (_compressed("int4wo"), True),
    "fp8": (_compressed("fp8"), True),
}


def changed(architecture: Architecture, change: Change, *, is_of_all: bool) -> Architecture:
    """Return the network with its second layer changed, or with both."""
    first, second = architecture.layers
    return replace(architecture, layers=(change(first) if is_of_all else first, change(second)))


def is_supported(form: str, architecture: Architecture, blocks: str) -> bool:
    """Return whether a format supports a network with these blocks on a CPU."""
    workload = workload_of(blocks)
    if form == ARTIFACT:
        return True
    if form in FORMATS:
        return FORMATS[form].refusal(architecture, workload, "cpu") is None
    stock = stock_class(architecture.style, workload)
    if stock is None or stock_refusals(architecture, workload):
        return False
    described = described_by(build_network(architecture, workload), architecture, workload)
    return not gguf_refusals(described, architecture, "F32")


def supported_blocks(form: str) -> tuple[str, ...]:
    """Return the named blocks that a format supports in equal, dense layers."""
    return tuple(blocks for blocks in STYLES if is_supported(form, network_of(blocks), blocks))


def _cell(form: str, change: Change, *, is_of_all: bool) -> str:
    """Return the blocks, among those that a format supports, that it supports changed."""
    able = supported_blocks(form)
    found = [
        blocks
        for blocks in able
        if is_supported(form, changed(network_of(blocks), change, is_of_all=is_of_all), blocks)
    ]
    if len(found) == len(able):
        return "yes"
    return ", ".join(f"`{blocks}`" for blocks in found) or "no"


def tables() -> str:
    """Return both tables in Markdown, between their comments."""
    head = ["| blocks | `model_type` | " + " | ".join(f"`{c}`" for c in COLUMNS) + " |"]
    head.append("|---" * (len(COLUMNS) + 2) + "|")
    rows = []
    able = {form: supported_blocks(form) for form in COLUMNS}
    for blocks in STYLES:
        cells = ["yes" if blocks in able[form] else "no" for form in COLUMNS]
        rows.append(f"| `{blocks}` | {_type(blocks)} | {' | '.join(cells)} |")
    genes = ["| what a network has | " + " | ".join(f"`{c}`" for c in COLUMNS) + " |"]
    genes.append("|---" * (len(COLUMNS) + 1) + "|")
    for name, (change, is_of_all) in GENES.items():
        cells = [_cell(form, change, is_of_all=is_of_all) for form in COLUMNS]
        genes.append(f"| {name} | {' | '.join(cells)} |")
    return BEGIN + "\n".join([*head, *rows, "", *genes]) + "\n" + END


def _type(blocks: str) -> str:
    """Return the ``model_type`` of checkpoints with these blocks, empty if there is none."""
    stock = stock_class(STYLES[blocks], workload_of(blocks))
    if stock is None:
        return ""
    return f"`{stock.config(network_of(blocks), workload_of(blocks))['model_type']}`"


def with_tables(page: str) -> str:
    """Return the text of a page with its tables replaced."""
    before, _, rest = page.partition(BEGIN)
    return before + tables() + rest.partition(END)[2]


def main() -> int:
    """Rewrite the tables in the page."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
