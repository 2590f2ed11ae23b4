"""Which networks each runtime's converter refuses, by family and use.

    python -m experiments.benchmarks.serving.refusals

Small networks with random weights are converted, loaded and compared with torch. A cell is yes, or
the reason.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch

from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Column, Table
from search_spaces.architecture import (
    STYLES,
    Architecture,
    AttentionSpec,
    Compression,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
    Precision,
)
from search_spaces.models.build import build
from search_spaces.runtimes.base import Converter, RuntimeRefusal, Setting
from search_spaces.runtimes.registry import CONVERTERS
from search_spaces.workload import Workload

_BATCH = 4
_IMAGE = Workload("image", "image_classification", (3, 16, 16), 10, _BATCH)
_TEXT = Workload("text", "text_classification", (16,), 3, _BATCH, vocab_size=64)
_WORDS = Workload("words", "language_modelling", (16,), 64, _BATCH, vocab_size=64)
_MASKED = Workload("masked", "masked_language_modelling", (16,), 64, _BATCH, vocab_size=64)
_ANSWERS = Workload("answers", "question_answering", (16,), 2, _BATCH, vocab_size=64)
_VECTOR = Workload("vector", "text_embedding", (16,), 64, _BATCH, vocab_size=64)
_SPEECH = Workload("speech", "transcription", (1, 16, 32), 20, _BATCH, duration_s=1.0)
_SCENE = Workload("scene", "image_segmentation", (3, 16, 16), 4, _BATCH)
_BOXES = Workload("boxes", "object_detection", (3, 16, 16), 4, _BATCH)
_PAIRS = Workload("pairs", "translation", (16,), 64, _BATCH, vocab_size=64, target_length=8)


def network_of(blocks: str, workload: Workload, precision: Precision = "fp32") -> Architecture:
    """Return two layers with these blocks, in one precision."""
    compression = Compression(precision)
    attention = AttentionSpec(4, 4, 16, None, compression)
    layer = LayerSpec(attention, FfnSpec(128, None, compression))
    patch_size = 4 if workload.is_image else 1
    return Architecture(64, (layer, layer), patch_size=patch_size, style=STYLES[blocks])


def with_decoder(precision: Precision) -> Architecture:
    """Return an encoder-decoder."""
    plain = AttentionSpec(4, 4, 16)
    decoder = DecoderSpec(64, (DecoderLayerSpec(plain, plain, FfnSpec(128)),))
    layer = LayerSpec(plain, FfnSpec(128))
    return Architecture(64, (layer,), patch_size=1, decoder=decoder)


def subjects() -> Iterator[tuple[str, str, Workload]]:
    """Yield blocks, what they do and the workload."""
    yield "default", "image classification", _IMAGE
    yield "default", "segmentation", _SCENE
    yield "default", "detection", _BOXES
    yield "default", "speech to text (padded frames)", _SPEECH
    yield "vit", "image classification (class token)", _IMAGE
    yield "bert", "text classification (padded)", _TEXT
    yield "bert", "question answering", _ANSWERS
    yield "bert", "masked language modelling", _MASKED
    yield "bert", "text embedding", _VECTOR
    for blocks in ("gpt2", "llama", "qwen2", "qwen3"):
        yield blocks, "language modelling, whole context", _WORDS
        if blocks == "qwen2":
            # Its caches are those of llama.
            continue
        yield blocks, "prefill (writes a cache)", _WORDS.with_phase("prefill")
        yield blocks, "generating (reads a cache)", _WORDS.with_phase("generate")
    yield "encoder-decoder", "translation", _PAIRS


def verdict(
    runtime: Converter, blocks: str, workload: Workload, precisions: Sequence[Precision]
) -> str:
    """Return *yes*, or what the runtime refuses, with the precision if not all are."""
    refused: dict[Precision, str] = {}
    for precision in precisions:
        if blocks == "encoder-decoder":
            architecture = with_decoder(precision)
        else:
            architecture = network_of(blocks, workload, precision)
        why = runtime.refusal(architecture, workload, "cpu")
        if why is None:
            try:
                network = build(architecture, workload, generator_seed=0).eval()
                runtime.run(network, architecture, workload, _inputs(workload), Setting())
            except RuntimeRefusal as error:
                why = str(error)
        if why is not None:
            refused[precision] = why
    if not refused:
        return "yes"
    causes = set(refused.values())
    if len(refused) == len(precisions) and len(causes) == 1:
        return _cell(causes.pop())
    return "; ".join(f"{precision}: {_cell(why)}" for precision, why in refused.items())


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:160]


def _inputs(workload: Workload) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (workload.batch_size, *workload.input_shape)
    if workload.is_image:
        return torch.randn(shape, generator=generator)
    tokens = torch.randint(1, workload.vocab_size or 2, shape, generator=generator)
    if workload.has_padding:
        tokens[0, 10:] = workload.padding_token
    return tokens


def main(argv: Sequence[str] | None = None) -> int:
    """Convert all, print the table, and keep it where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.serving.refusals",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--runtime", nargs="+", choices=CONVERTERS, default=list(CONVERTERS))
    families = list(dict.fromkeys(blocks for blocks, _, _ in subjects()))
    parser.add_argument("--family", nargs="+", choices=families, default=families)
    parser.add_argument(
        "--precision", nargs="+", choices=("fp32", "bf16", "int8"), default=["fp32"]
    )
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    runtimes = [CONVERTERS[name] for name in arguments.runtime]
    for runtime in runtimes:
        if (missing := runtime.missing()) is not None:
            parser.error(missing)
    sheet = Sheet(parser, arguments, "runtime-refusals")
    rows = []
    for blocks, use, workload in subjects():
        if blocks not in arguments.family:
            continue
        row = {"blocks": blocks, "use": use}
        for runtime in runtimes:
            precisions = [p for p in arguments.precision if p in runtime.precisions]
            row[runtime.name] = verdict(runtime, blocks, workload, precisions)
        print(f"{blocks}, {use}", file=sys.stderr)
        rows.append(row)
    columns = (Column("blocks", "{blocks}"), Column("use", "{use}"))
    cells = tuple(Column(name, f"{{{name}}}") for name in arguments.runtime)
    versions = ", ".join(f"{n} {v}" for r in runtimes for n, v in r.versions().items())
    note = f"converted, loaded and compared in {', '.join(arguments.precision)}"
    sheet.show(Table("refusals", (*columns, *cells), tuple(rows), note=f"{note}; {versions}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
