"""What every card of an artifact says: figures, conditions, training, limits and versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.core.estimate import Estimate
from nas.core.markdown import code, plain
from nas.core.names import TORCH, place_of
from nas.core.units import format_interval
from nas.core.versions import described
from nas.exporting.card import Card
from nas.pareto.lifetime import JOULES_PER_KWH
from nas.tasks.base.metric import get_metric
from predictors.meters.board import Board, describe_limits
from predictors.meters.flags import NOT_CONVERGED, describe_flags
from search_spaces.architecture import Architecture

_MOST_LABELS = 10
_MANY = 1_000_000

_PREPROCESSING_NOTE = """Inputs are (value - mean) / deviation, both along `axis` of an input;
`preprocessing.json` contains them and describes the values."""

_DETECTION_NOTE = """Each patch has the logit of an object, four values of its box, and a logit of
each class, in this order: {}. `artifact.detect` makes
boxes of them, in the picture's own pixels, and drops those that overlap a better one."""


def inside_interval(verified: Mapping[str, Any]) -> str:
    """Return whether joules that were measured again lie inside the search's interval.

    Empty in cards from before this was noted.
    """
    is_inside = verified.get("is_inside_interval")
    if is_inside is None:
        return ""
    return f", {'inside' if is_inside else 'outside'} the 95% interval of the search"


def card_body(card: Card, verified: Mapping[str, Any], joules: str, use: str, notes: str) -> str:
    """Return the text that both cards share; ``joules`` is a note on how they were measured."""
    searched, metric = card["searched"], get_metric(card["metric"])
    before, after = searched["reading"], verified["reading"]
    quality, task, unit = plain(metric.name), plain(card["task"]), plain(after["unit"])
    place = plain(place_text(after))
    rows = []
    for split in ("validation", "test"):
        key = f"{split}_quality"
        se = verified["test_quality_se"] if split == "test" else None
        in_search = "" if searched[key] is None else metric.text(searched[key])
        rows.append(f"| {split} {quality} | {in_search} | {metric.text(verified[key], se)} |")
    rows.append(f"| joules per {unit} | {interval(before)} | {interval(after)} |")
    # Cards of earlier versions have neither.
    if card.get("sample_name") is not None:
        of_sample = [interval(reading, card["units_per_sample"]) for reading in (before, after)]
        rows.append(f"| joules per {card['sample_name']} | {of_sample[0]} | {of_sample[1]} |")
    for other in verified["other_phases"]:
        rows.append(f"| joules per {plain(other['unit'])} | | {interval(other)} |")
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

Joules: {conditions(after)},
workload {code(after["workload"])}, 95% interval of the median of {after["n_repeats"]} \
repeats.{flags_sentence(after)}
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
- Joules were determined for batches of {after["batch_size"]} on {place}; on other
  hardware, in other batches and runtimes they differ.
- Bias, fairness and robustness were not examined.

{_version_list(card)}
"""


def inputs_and_outputs(card: Card, tokenizer_note: str, labels_in: str) -> str:
    """Return sentences on what a network reads and returns; ``labels_in`` is a file."""
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


def interval(reading: Mapping[str, Any], factor: float = 1) -> str:
    """Return the joules per unit of a reading with their interval, times ``factor``."""
    energy_j, low_j, high_j = (factor * reading[key] for key in ("energy_j", "low_j", "high_j"))
    return format_interval(Estimate(energy_j, low_j, high_j, reading["source"]))


def board_text(reading: Mapping[str, Any]) -> str:
    """Return the device and the power or clock limits of its board, if known."""
    board = reading["board"]
    limits = "" if board is None else describe_limits(Board.from_dict(board).limits)
    place = place_text(reading)
    return f"{place} limited to {limits}" if limits else place


def place_text(reading: Mapping[str, Any]) -> str:
    """Return the device, with its runtime where that is not torch."""
    return place_of(str(reading["device"]), str(reading.get("runtime", TORCH)))


def conditions(reading: Mapping[str, Any]) -> str:
    """Return by what, where and how joules were determined."""
    label = "an estimate" if reading["is_estimate"] else f"measured by {plain(reading['meter'])}"
    return (
        f"{label} ({plain(reading['source'])}) on {plain(board_text(reading))}, batch "
        f"{reading['batch_size']}, protocol {code(reading['protocol_hash'])}"
    )


def flags_sentence(reading: Mapping[str, Any]) -> str:
    """Return a sentence on the flags of a measurement, or an empty text if it has none."""
    flags = [*reading["flags"], *([] if reading["converged"] else [NOT_CONVERGED])]
    return f" Flags of these joules: {describe_flags(flags)}." if flags else ""


def outputs_differ(verified: Mapping[str, Any]) -> str:
    """Return by how much outputs differ from those of the search's network."""
    text = f"outputs differ by {verified['output_difference']:.2g} at most"
    tolerance = verified["output_tolerance"]
    return text if tolerance is None else f"{text} (allowed {tolerance:.2g})"


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


def _version_list(card: Card) -> str:
    """Return one line per set of package versions that trained, measured or verified."""
    searched = card["searched"]
    lines = [("Trained by", one) for one in searched["trained_by"]]
    lines += [("Measured by", searched["measured_by"])] if searched["measured_by"] else []
    lines.append(("Verified by", card["verified"]["versions"]))
    return "\n".join(f"- {what} {plain(described(one))}." for what, one in lines)
