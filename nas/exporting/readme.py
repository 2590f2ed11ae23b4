"""``README.md`` of an artifact, and its table of further formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.core.markdown import comment, plain
from nas.exporting.card import Card
from nas.exporting.card_text import (
    board_text,
    card_body,
    conditions,
    flags_sentence,
    inputs_and_outputs,
    inside_interval,
    interval,
    outputs_differ,
)
from nas.tasks.base.artifact_files import LABELS
from nas.tasks.base.metric import get_metric

# Workload kind -> the call of an artifact that makes texts or vectors of raw inputs.
_CALLS = {
    "translation": 'translate(["a sentence of your own"])',
    "summarisation": 'summarise(["a document of your own"])',
    "transcription": 'transcribe(["a recording of your own.wav"])',
    "text_embedding": 'embed(["a text of your own"])',
}

_EMBEDDING_NOTE = """Tokens are those of `tokenizer.json` (the `tokenizers` library), of a text
after the prefix of `prompt.json`, if there is one. Vectors are compared by their cosines."""

_TOKENIZER_NOTE = """Tokens are those of `tokenizer.json` (the `tokenizers` library), plus `shift`
of `labels.json`, with 0 as padding up to the length of an input."""


def render_readme(card: Card) -> str:
    """Return ``README.md``: the artifact's figures, followed by those of further formats."""
    verified, before = card["verified"], card["searched"]["reading"]
    joules = (
        f"Measured again, they differ by {verified['joule_ratio'] - 1:+.1%} (allowed "
        f"{verified['joule_tolerance']:.0%}){inside_interval(verified)};\n"
        f"{outputs_differ(verified)}."
    )
    use = f"""from nas.exporting.artifact import load_artifact

artifact = load_artifact("path/to/this/folder")
{_use(card)}"""
    is_embedding = card["kind"] == "text_embedding"
    tokens = _EMBEDDING_NOTE if is_embedding else _TOKENIZER_NOTE
    notes = f"""{inputs_and_outputs(card, tokens, LABELS)}
`model.safetensors` contains the trained fp32 weights. Bit-width and sparsity are
applied on loading, by the same deterministic code as in the search. If anything is compressed,
`compressed.safetensors` contains the network in its compressed size:
`load_artifact(..., small=True)` reads this file only, with bit-identical outputs."""
    flags = _searched_flags(before, verified["reading"])
    return f"{card_body(card, verified, joules + flags, use, notes)}{render_formats(card)}"


def render_formats(card: Card) -> str:
    """Return the README's table of further formats with notes; empty if there are none."""
    if not card["formats"]:
        return ""
    metric = get_metric(card["metric"])
    rows, notes = [], []
    for name, stored in card["formats"].items():
        verified = stored["verified"]
        rows.append(
            f"| {name} ({stored['title']}) | "
            f"{', '.join(f'`{file}`' for file in stored['files'])} | "
            f"{sum(stored['files'].values()):,} | {metric.text(verified['validation_quality'])} | "
            f"{metric.text(verified['test_quality'], verified['test_quality_se'])} | "
            f"{interval(verified['reading'])} |"
        )
        notes.append(f"- {name}: {_format_note(stored, metric.name, card['kind'])}")
    unit = next(iter(card["formats"].values()))["verified"]["reading"]["unit"]
    table = "\n".join(rows)
    listed = "\n".join(notes)
    return f"""
## Other formats

| format | files | bytes | validation {metric.name} | test {metric.name} | \
joules per {plain(unit)} |
|---|---|---|---|---|---|
{table}

A fresh process reloaded each format and determined outputs, quality and joules again. Joules are
those of the named runtime, not of the search's.

{listed}
"""


def _searched_flags(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return the flags of the search's measurement, and its board's limits if they differed."""
    text = f"\nIn the search:{flags_sentence(before)}" if flags_sentence(before) else ""
    if board_text(before) != board_text(after):
        text += f"\nIn the search joules were those of {board_text(before)}."
    return text


def _format_note(stored: Mapping[str, Any], metric: str, kind: str) -> str:
    verified = stored["verified"]
    judged = outputs_differ(verified)
    if verified["output_tolerance"] is None:
        judged = (
            f"judged by {metric} on validation data, with an allowed loss of "
            f"{verified['quality_tolerance']:g}; {judged}"
        )
    opset = f"opset {stored['opset']}, " if "opset" in stored else ""
    needs = f"needs {' and '.join(stored['needs'])}; " if "needs" in stored else ""
    if kind == "object_detection":
        needs += (
            "outputs of patches, not boxes: `nas.tasks.vision.boxes.found_boxes` makes these; "
        )
    shape = ", ".join(["batch", *map(str, stored["inputs"])])
    return (
        f"{opset}inputs ({shape}) with a batch of any size; {judged}; {needs}run by "
        f"{plain(verified['runtime'])} ({verified['mode']}); joules: "
        f"{conditions(verified['reading'])}.{flags_sentence(verified['reading'])}"
    )


def _use(card: Card) -> str:
    """Return the line of code that runs the artifact."""
    if card["kind"] in _CALLS:
        return f"print(artifact.{_CALLS[card['kind']]})"
    if card["kind"] == "object_detection":
        return 'print(artifact.detect(["a picture of your own.jpg"]))'
    is_generator = card["kind"] == "language_modelling"
    if card["tokenizer"] is None or (card["labels"] is None and not is_generator):
        return (
            f"logits = artifact.call(inputs)  # {comment(card['task'])}: a batch of inputs, as a "
            "torch tensor"
        )
    if card["labels"] is None:
        return 'print(artifact.generate("a prompt of your own", n_tokens=20))'
    return 'print(artifact.classify(["a text of your own"]))'
