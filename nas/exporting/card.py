"""An artifact's card: what it is, what was measured twice, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nas.core.markdown import code, comment, plain
from nas.core.versions import described, versions
from nas.exporting.formats.form_card import board_of, describe_forms, flags_of
from nas.exporting.verify import Verification
from nas.tasks.base.artifact_files import LABELS, PREPROCESSING, TOKENIZER
from nas.tasks.base.metric import get_metric
from search_spaces.architecture import Architecture
from search_spaces.architecture.simulated import describe_on

if TYPE_CHECKING:
    from nas.records.trial import TrialRecord
    from nas.store.run import Run

SCHEMA_VERSION = 1
_MOST_LABELS = 10


def make_card(
    run: Run,
    record: TrialRecord,
    verification: Verification,
    carried: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Plain data for ``card.json``: the search's figures beside the reloaded artifact's.

    ``formats`` is filled in as further forms are written. ``carried`` are the files that the task
    gives it (``nas.tasks.base.artifact_files``).
    """
    reading, teacher = record.reading, run.teacher()
    labels = json.loads(carried[LABELS])["labels"] if LABELS in carried else None
    return {
        "schema": SCHEMA_VERSION,
        # Its name: the path of a task file is of this machine, and nobody's business.
        "task": run.workload.name,
        "kind": run.workload.kind,
        "metric": run.metric.key,
        "architecture": describe_on(record.architecture, run.config.device),
        "architecture_hash": record.architecture.hash,
        "params": record.params,
        "labels": labels,
        "tokenizer": TOKENIZER if TOKENIZER in carried else None,
        "preprocessing": PREPROCESSING if PREPROCESSING in carried else None,
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
        "training": run.config.training.to_dict(),
        "train_energy_j": record.train_energy_j,
        "start": record.start,
        "qat": record.qat,
        "uncompressed_validation_quality": record.uncompressed_quality,
        "teacher": None if teacher is None else teacher.to_dict(),
        "carbon_g_per_kwh": run.config.carbon_g_per_kwh,
        "formats": {},
    }


def _history(card: dict[str, Any]) -> str:
    """How the weights came about, where it was not plain training."""
    lines, metric = [], get_metric(card["metric"])
    teacher = card["teacher"]
    if teacher is not None:
        name = Architecture.from_dict(teacher["architecture"]).describe()
        lines.append(
            f"It learnt from a teacher, {plain(name)}, of {metric.text(teacher['quality'])} "
            f"({plain(metric.name)}) on validation data"
            + (", and started from its weights." if card["start"] == "teacher" else ".")
        )
    if card["qat"] == "kept":
        lines.append("Its weights were fine-tuned as if quantised.")
    return "\n".join(lines)


def _use(card: dict[str, Any]) -> str:
    """The lines that run it."""
    if card["kind"] == "translation":
        return 'print(artifact.translate(["a sentence of your own"]))'
    if card["tokenizer"] is not None and card["labels"] is None:
        return 'print(artifact.generate("a text to go on with", n_tokens=20))'
    if card["tokenizer"] is not None:
        return 'print(artifact.classify(["a text of your own"]))'
    return (
        f"logits = artifact.call(inputs)  # {comment(card['task'])}: a batch of inputs, as a "
        "torch tensor"
    )


def _outputs(card: dict[str, Any]) -> str:
    inputs = ""
    if card["preprocessing"] is not None:
        inputs = (
            "\nInputs are (value - mean) / deviation, both along `axis` of an input, as "
            "`preprocessing.json`\nsays, which also names what values are made of.\n"
        )
    if card["labels"] is None:
        return inputs
    some, n = card["labels"][:_MOST_LABELS], len(card["labels"])
    more = f" and {n - len(some)} more" if n > len(some) else ""
    files = "`labels.json`" if card["tokenizer"] is None else "`labels.json`, `tokenizer.json`"
    names = ", ".join(map(plain, some))
    return f"{inputs}\nIts outputs, in this order, are {names}{more} ({files}).\n"


def _versions(card: dict[str, Any]) -> str:
    """Which versions of libraries did what, a line for each."""
    searched, verified = card["searched"], card["verified"]
    lines = [("Trained by", one) for one in searched["trained_by"]]
    lines += [("Measured by", searched["measured_by"])] if searched["measured_by"] else []
    lines.append(("Verified by", verified["versions"]))
    return "\n".join(f"- {what} {plain(described(one))}." for what, one in lines)


def _searched_flags(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Lines on the search's own measurement, where it had flags or other limits of the board."""
    lines = []
    if flags_of(before):
        lines.append(f"In the search:{flags_of(before)}")
    if board_of(before) != board_of(after):
        lines.append(f"In the search joules were those of {board_of(before)}.")
    return "\n".join([*lines, ""]) if lines else ""


def render_readme(card: dict[str, Any]) -> str:
    """The card for people."""
    searched, verified = card["searched"], card["verified"]
    before, after = searched["reading"], verified["reading"]
    metric = get_metric(card["metric"])
    quality, workload = plain(metric.name), code(after["workload"])

    def text(share: float | None) -> str:
        return "" if share is None else metric.text(share)

    def joules(reading: dict[str, Any]) -> str:
        return f"{reading['energy_j']:.4g} [{reading['low_j']:.4g}, {reading['high_j']:.4g}]"

    others = "".join(
        f"| joules per {plain(reading['unit'])} | | {joules(reading)} |\n"
        for reading in verified.get("other_phases", ())
    )
    label = "an estimate" if after["is_estimate"] else f"measured by {plain(after['meter'])}"
    return f"""# {plain(card["architecture"])} on {plain(card["task"])}

{card["params"]:,} parameters, found by JouleNAS (run {code(card["run"])}, trial {card["trial"]},
seed {card["seed"]}).

| | in the search | reloaded in a fresh process |
|---|---|---|
| validation {quality} | {text(searched["validation_quality"])} | \
{text(verified["validation_quality"])} |
| test {quality} | {text(searched["test_quality"])} | {text(verified["test_quality"])} |
| joules per {plain(after["unit"])} | {joules(before)} | {joules(after)} |
{others}
Joules: {label} ({plain(after["source"])}) on {plain(board_of(after))},
workload {workload}, protocol {code(after["protocol_hash"])}, 95% interval of the median of
{after["n_repeats"]} repeats.
Measured again they may differ by {verified["joule_tolerance"]:.0%}; they differed by
{verified["joule_ratio"] - 1:+.1%}. Outputs differ by {verified["output_difference"]:.2g} at most
(allowed {verified["output_tolerance"]:g}).{flags_of(after)}
{_searched_flags(before, after)}
The model was chosen by {quality} on validation data; the test split was never used to choose.
{_history(card)}

## Load

```python
from nas.exporting.artifact import load_artifact

artifact = load_artifact("path/to/this/folder")
{_use(card)}
```
{_outputs(card)}
`model.safetensors` holds the trained fp32 weights. Bit-width and sparsity are applied when the
artifact is loaded, by the same deterministic code as in the search. Where anything is compressed,
`compressed.safetensors` holds the network as it runs: `load_artifact(..., small=True)` reads it
alone, with the same outputs to the bit.

{_versions(card)}
{describe_forms(card)}"""
