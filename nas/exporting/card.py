"""Cards of an artifact: data, ``README.md``, and a model card of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from nas.core.estimate import Estimate
from nas.core.markdown import code, comment, plain
from nas.core.names import TORCH, place_of
from nas.core.plain import to_plain
from nas.core.units import format_interval
from nas.core.versions import described, versions
from nas.exporting.verify import Verification
from nas.pareto.lifetime import JOULES_PER_KWH
from nas.tasks.base.artifact_files import LABELS, PREPROCESSING, TOKENIZER
from nas.tasks.base.metric import get_metric
from predictors.meters.board import Board, describe_limits
from predictors.meters.flags import NOT_CONVERGED, describe_flags
from search_spaces.architecture import Architecture
from search_spaces.architecture.simulated import describe_on

if TYPE_CHECKING:
    from nas.records.trial import Trial
    from nas.store.run import Run

SCHEMA_VERSION = 2
_MOST_LABELS = 10
_MANY = 1_000_000
# Workload kind -> the hub's name of the task.
_PIPELINES = {
    "image_classification": "image-classification",
    "image_segmentation": "image-segmentation",
    "object_detection": "object-detection",
    "text_classification": "text-classification",
    "question_answering": "question-answering",
    "language_modelling": "text-generation",
    "translation": "translation",
    "summarisation": "summarization",
    "transcription": "automatic-speech-recognition",
    "masked_language_modelling": "fill-mask",
    "text_embedding": "feature-extraction",
    "image_embedding": "image-feature-extraction",
}

# Workload kind -> the call of an artifact that makes texts or vectors of raw inputs.
_CALLS = {
    "translation": 'translate(["a sentence of your own"])',
    "summarisation": 'summarise(["a document of your own"])',
    "transcription": 'transcribe(["a recording of your own.wav"])',
    "text_embedding": 'embed(["a text of your own"])',
}

Card = Mapping[str, Any]


def make_card(
    run: Run,
    record: Trial,
    verification: Verification,
    task_files: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return plain data for ``card.json``: figures of the search and of the verification.

    ``formats`` is empty until further formats are written. ``task_files`` are the contents of the
    task's files by name (``nas.tasks.base.artifact_files``).
    """
    reading, teacher = record.reading, run.teacher()
    labels = json.loads(task_files[LABELS])["labels"] if LABELS in task_files else None
    return {
        "schema": SCHEMA_VERSION,
        # The task's name, not the path of its file: cards are published.
        "task": run.workload.name,
        "kind": run.workload.kind,
        "sample_name": run.workload.sample_name,
        "units_per_sample": run.workload.units_per_sample,
        "metric": run.metric.key,
        "architecture": describe_on(record.architecture, run.config.device),
        "architecture_hash": record.architecture.hash,
        "params": record.params,
        "labels": labels,
        "tokenizer": TOKENIZER if TOKENIZER in task_files else None,
        "preprocessing": PREPROCESSING if PREPROCESSING in task_files else None,
        "run": run.name,
        "trial": record.number,
        "seed": run.config.seed,
        "searched": {
            "validation_quality": record.quality,
            "validation_quality_se": record.quality_se,
            "test_quality": record.test_quality,
            "reading": None if reading is None else replace(reading, host=None).to_dict(),
            "trained_by": [dict(one) for one in record.trained_by],
            "measured_by": dict(record.measured_by),
        },
        "verified": verification.to_dict() | {"versions": versions()},
        "training": to_plain(run.config.training),
        "train_energy_j": record.train_energy_j,
        "start": record.start,
        "qat": record.qat,
        "uncompressed_validation_quality": record.uncompressed_quality,
        "teacher": None if teacher is None else to_plain(teacher),
        "carbon_g_per_kwh": run.config.carbon_g_per_kwh,
        "formats": {},
    }


def render_readme(card: Card) -> str:
    """Return ``README.md``: the artifact's figures, followed by those of further formats."""
    verified, before = card["verified"], card["searched"]["reading"]
    joules = (
        f"Measured again, they differ by {verified['joule_ratio'] - 1:+.1%} (allowed "
        f"{verified['joule_tolerance']:.0%}){inside_interval(verified)};\n"
        f"{_outputs_differ(verified)}."
    )
    use = f"""from nas.exporting.artifact import load_artifact

artifact = load_artifact("path/to/this/folder")
{_use(card)}"""
    is_embedding = card["kind"] == "text_embedding"
    tokens = _EMBEDDING_NOTE if is_embedding else _TOKENIZER_NOTE
    notes = f"""{_inputs_and_outputs(card, tokens, LABELS)}
`model.safetensors` contains the trained fp32 weights. Bit-width and sparsity are
applied on loading, by the same deterministic code as in the search. If anything is compressed,
`compressed.safetensors` contains the network in its compressed size:
`load_artifact(..., small=True)` reads this file only, with bit-identical outputs."""
    flags = _searched_flags(before, verified["reading"])
    return f"{_body(card, verified, joules + flags, use, notes)}{render_formats(card)}"


def inside_interval(verified: Mapping[str, Any]) -> str:
    """Return whether joules that were measured again lie inside the search's interval.

    Empty in cards from before this was noted.
    """
    is_inside = verified.get("is_inside_interval")
    if is_inside is None:
        return ""
    return f", {'inside' if is_inside else 'outside'} the 95% interval of the search"


def render_model_card(card: Card, name: str) -> str:
    """Return the hub's model card of the format ``name``: YAML, then the card of this format.

    The format is one that stock classes of ``transformers`` load.
    """
    verified = card["formats"][name]["verified"]
    verification = card["formats"][name]["load_verification"]
    front = yaml.safe_dump(_front_matter(card, name), sort_keys=False, allow_unicode=True)
    auto_class = verification["auto_class"]
    use = f"""from transformers import {auto_class}

network = {auto_class}.from_pretrained("path/to/this/folder")"""
    if _is_of_sentences(card, name):
        use = f"""from sentence_transformers import SentenceTransformer

network = SentenceTransformer("path/to/this/folder")
vectors = network.encode(["a text of your own"])

# The stream of the tokens, whose pooling is in 1_Pooling and modules.json:
{use}"""
    tokens = "Tokens are those of this folder's `AutoTokenizer`."
    notes = f"{_inputs_and_outputs(card, tokens, 'config.json')}\n{describe_load(verification)}"
    joules = f"{plain(verified['runtime'])} ({verified['mode']}) ran it for these joules."
    return f"---\n{front}---\n\n{_body(card, verified, joules, use, notes)}"


def describe_load(verification: Mapping[str, Any]) -> str:
    """Return sentences on a ``formats.stock.LoadVerification``."""
    exact = verification["n_exact"]
    outputs = "Its outputs" if exact else "In fp32 its outputs"
    return (
        f"A fresh process loaded this folder as {code(verification['stock_class'])} by "
        f"{plain(verification['version'])}, without JouleNAS. {outputs} "
        f"differ from JouleNAS's network by {verification['output_difference']:.2g} at most "
        f"(allowed {verification['output_tolerance']:.2g})."
    ) + (f" Its {exact} quantised weights are the same to the bit." if exact else "")


def _body(card: Card, verified: Mapping[str, Any], joules: str, use: str, notes: str) -> str:
    """Return the text that both cards share; ``joules`` is a note on how they were measured."""
    searched, metric = card["searched"], get_metric(card["metric"])
    before, after = searched["reading"], verified["reading"]
    quality, task, unit = plain(metric.name), plain(card["task"]), plain(after["unit"])
    rows = []
    for split in ("validation", "test"):
        key = f"{split}_quality"
        se = verified["test_quality_se"] if split == "test" else None
        in_search = "" if searched[key] is None else metric.text(searched[key])
        rows.append(f"| {split} {quality} | {in_search} | {metric.text(verified[key], se)} |")
    rows.append(f"| joules per {unit} | {_interval(before)} | {_interval(after)} |")
    # Cards of earlier versions have neither.
    if card.get("sample_name") is not None:
        of_sample = [_interval(reading, card["units_per_sample"]) for reading in (before, after)]
        rows.append(f"| joules per {card['sample_name']} | {of_sample[0]} | {of_sample[1]} |")
    for other in verified["other_phases"]:
        rows.append(f"| joules per {plain(other['unit'])} | | {_interval(other)} |")
    grams = after["energy_j"] * _MANY / JOULES_PER_KWH * card["carbon_g_per_kwh"]
    rows.append(
        f"| CO2e of a million, at {card['carbon_g_per_kwh']:g} g/kWh | | {grams:.3g} g CO2e |"
    )
    table = "\n".join(rows)
    return f"""# {plain(card["architecture"])} on {task}

{card["params"]:,} parameters, found by JouleNAS (run {code(card["run"])}, trial {card["trial"]},
seed {card["seed"]}).

| | in the search | reloaded in a fresh process |
|---|---|---|
{table}

Joules: {_conditions(after)},
workload {code(after["workload"])}, 95% interval of the median of {after["n_repeats"]} \
repeats.{_flags(after)}
{joules}

{_training(card)}

## Use

```python
{use}
```
{notes}

## Limits

- The model was chosen by {quality} on the validation split of {task}; the test split was never
  used to choose. Other data were not tested.
- Joules were determined for batches of {after["batch_size"]} on {plain(_place(after))}; on other
  hardware, in other batches and runtimes they differ.
- Bias, fairness and robustness were not examined.

{_version_list(card)}
"""


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
            f"{_interval(verified['reading'])} |"
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


def _is_of_sentences(card: Card, name: str) -> bool:
    """Whether sentence-transformers loads the format ``name``."""
    return any(file.endswith("/modules.json") for file in card["formats"][name]["files"])


def _front_matter(card: Card, name: str) -> dict[str, Any]:
    verified, is_of_sentences = card["formats"][name]["verified"], _is_of_sentences(card, name)
    reading, metric = verified["reading"], get_metric(card["metric"])
    pipeline = _PIPELINES[card["kind"]]
    label = "estimate" if reading["is_estimate"] else reading["meter"]
    metrics = [
        {
            "type": metric.key,
            "name": f"{split} {metric.name}",
            "value": metric.score(verified[f"{split}_quality"]),
        }
        for split in ("validation", "test")
    ]
    joules = f"joules per {reading['unit']} ({label})"
    metrics.append({"type": "energy", "name": joules, "value": reading["energy_j"]})
    result = {
        "task": {"type": pipeline},
        "dataset": {"name": card["task"], "type": card["task"]},
        "metrics": metrics,
    }
    front: dict[str, Any] = {
        "pipeline_tag": pipeline,
        "library_name": "sentence-transformers" if is_of_sentences else "transformers",
        "tags": ["joulenas", "neural-architecture-search", "energy", "safetensors"],
        "metrics": [metric.key],
        "model-index": [{"name": card["architecture"], "results": [result]}],
    }
    if card["train_energy_j"] is not None:
        front["co2_eq_emissions"] = {
            "emissions": card["train_energy_j"] / JOULES_PER_KWH * card["carbon_g_per_kwh"],
            "source": f"JouleNAS, this network's own training at {card['carbon_g_per_kwh']:g} "
            f"g/kWh, joules by {reading['source']}",
            "training_type": "pre-training" if card["start"] == "random" else "fine-tuning",
            "hardware_used": _place(reading),
        }
    return front


def _interval(reading: Mapping[str, Any], factor: float = 1) -> str:
    energy_j, low_j, high_j = (factor * reading[key] for key in ("energy_j", "low_j", "high_j"))
    return format_interval(Estimate(energy_j, low_j, high_j, reading["source"]))


def _board(reading: Mapping[str, Any]) -> str:
    """Return the device and the power or clock limits of its board, if known."""
    board = reading["board"]
    limits = "" if board is None else describe_limits(Board.from_dict(board).limits)
    place = _place(reading)
    return f"{place} limited to {limits}" if limits else place


def _place(reading: Mapping[str, Any]) -> str:
    """Return the device, with its runtime where that is not torch."""
    return place_of(str(reading["device"]), str(reading.get("runtime", TORCH)))


def _conditions(reading: Mapping[str, Any]) -> str:
    label = "an estimate" if reading["is_estimate"] else f"measured by {plain(reading['meter'])}"
    return (
        f"{label} ({plain(reading['source'])}) on {plain(_board(reading))}, batch "
        f"{reading['batch_size']}, protocol {code(reading['protocol_hash'])}"
    )


def _flags(reading: Mapping[str, Any]) -> str:
    """Return a sentence on the flags of a measurement, or an empty text if it has none."""
    flags = [*reading["flags"], *([] if reading["converged"] else [NOT_CONVERGED])]
    return f" Flags of these joules: {describe_flags(flags)}." if flags else ""


def _searched_flags(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return the flags of the search's measurement, and its board's limits if they differed."""
    text = f"\nIn the search:{_flags(before)}" if _flags(before) else ""
    if _board(before) != _board(after):
        text += f"\nIn the search joules were those of {_board(before)}."
    return text


def _outputs_differ(verified: Mapping[str, Any]) -> str:
    text = f"outputs differ by {verified['output_difference']:.2g} at most"
    tolerance = verified["output_tolerance"]
    return text if tolerance is None else f"{text} (allowed {tolerance:.2g})"


def _format_note(stored: Mapping[str, Any], metric: str, kind: str) -> str:
    verified = stored["verified"]
    judged = _outputs_differ(verified)
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
        f"{_conditions(verified['reading'])}.{_flags(verified['reading'])}"
    )


def _training(card: Card) -> str:
    """Return sentences on training, distillation and quantisation-aware training."""
    metric, teacher = get_metric(card["metric"]), card["teacher"]
    text = f"It was trained for {card['training']['epochs']} epochs on the train split"
    if card["start"] != "random":
        text += f", starting from the weights of a {card['start']}"
    if card["train_energy_j"] is not None:
        text += f", which took {card['train_energy_j']:.3g} J, without the rest of the search"
    lines = [f"{text}."]
    if teacher is not None:
        name = Architecture.from_dict(teacher["architecture"]).describe()
        lines.append(
            f"It was distilled from a teacher, {plain(name)}, of "
            f"{metric.text(teacher['quality'])} ({plain(metric.name)}) on validation data."
        )
    if card["qat"] == "kept":
        lines.append("Its weights were fine-tuned with simulated quantisation.")
    return "\n".join(lines)


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


_PREPROCESSING_NOTE = """Inputs are (value - mean) / deviation, both along `axis` of an input;
`preprocessing.json` contains them and describes the values."""
_DETECTION_NOTE = """Each patch has the logit of an object, four values of its box, and a logit of
each class, in this order: {}. `artifact.detect` makes
boxes of them, in the picture's own pixels, and drops those that overlap a better one."""
_EMBEDDING_NOTE = """Tokens are those of `tokenizer.json` (the `tokenizers` library), of a text
after the prefix of `prompt.json`, if there is one. Vectors are compared by their cosines."""
_TOKENIZER_NOTE = """Tokens are those of `tokenizer.json` (the `tokenizers` library), plus `shift`
of `labels.json`, with 0 as padding up to the length of an input."""


def _inputs_and_outputs(card: Card, tokenizer_note: str, labels_in: str) -> str:
    lines = [] if card["preprocessing"] is None else [_PREPROCESSING_NOTE]
    lines += [] if card["tokenizer"] is None else [tokenizer_note]
    if card["labels"] is not None:
        some, n = card["labels"][:_MOST_LABELS], len(card["labels"])
        more = f" and {n - len(some)} more" if n > len(some) else ""
        names = f"{', '.join(map(plain, some))}{more} (`{labels_in}`)"
        is_detector = card["kind"] == "object_detection"
        sentence = _DETECTION_NOTE if is_detector else "Its outputs, in this order, are {}."
        lines.append(sentence.format(names))
    return "\n".join(["", *lines, ""]) if lines else ""


def _version_list(card: Card) -> str:
    """Return one line per set of package versions that trained, measured or verified."""
    searched = card["searched"]
    lines = [("Trained by", one) for one in searched["trained_by"]]
    lines += [("Measured by", searched["measured_by"])] if searched["measured_by"] else []
    lines.append(("Verified by", card["verified"]["versions"]))
    return "\n".join(f"- {what} {plain(described(one))}." for what, one in lines)
