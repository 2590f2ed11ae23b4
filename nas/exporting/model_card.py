"""A model card in the form of the Hugging Face hub: YAML for machines, then text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from nas.core.markdown import code, plain
from nas.exporting.formats.form_card import flags_of, joules_are
from nas.pareto.lifetime import JOULES_PER_KWH
from nas.tasks.base.metric import get_metric

# A kind of workload -> what the hub calls such a task.
_PIPELINES = {
    "image_classification": "image-classification",
    "image_segmentation": "image-segmentation",
    "text_classification": "text-classification",
    "question_answering": "question-answering",
    "language_modelling": "text-generation",
}
_MANY = 1_000_000


def render_model_card(card: Mapping[str, Any], form: str) -> str:
    """The card of the form called ``form``; ``card`` is that of ``card.make_card``."""
    verified = card["formats"][form]["verified"]
    reading, metric = verified["reading"], get_metric(card["metric"])
    kind = "an estimate" if reading["is_estimate"] else f"measured by {plain(reading['meter'])}"
    task, device = plain(card["task"]), plain(reading["device"])
    grams = reading["energy_j"] * _MANY / JOULES_PER_KWH * card["carbon_g_per_kwh"]
    front = yaml.safe_dump(_front_matter(card, verified), sort_keys=False, allow_unicode=True)
    return f"""---
{front}---

# {plain(card["architecture"])} on {task}

A Transformer of {card["params"]:,} parameters that JouleNAS found by a search for quality
against joules (run {code(card["run"])}, trial {card["trial"]}, seed {card["seed"]}).

| | |
|---|---|
| validation {metric.name} | {metric.text(verified["validation_quality"])} |
| test {metric.name} | \
{metric.text(verified["test_quality"], verified["test_quality_se"])} |
| joules per {plain(reading["unit"])} ({kind}) | {reading["energy_j"]:.4g} \
[{reading["low_j"]:.4g}, {reading["high_j"]:.4g}] |
| carbon of a million of them | {grams:.3g} g CO2e at {card["carbon_g_per_kwh"]:g} g/kWh |

Joules: {joules_are(reading)}, 95% interval of the median of {reading["n_repeats"]} repeats, run by
{plain(verified["runtime"])} ({verified["mode"]}) in a fresh process that reloaded this folder.\
{flags_of(reading)}

{_training(card)}

## Use

```python
from model import load  # model.py of this folder needs torch and safetensors only

network = load()
outputs = network(inputs)  # model.py says what inputs and outputs are; batches of any size
```
{_tokens(card)}
`transformers` has no class for this network: `AutoModel` does not load it, `model.py` does.

## Limits

- The model was chosen by {metric.name} on the validation split of {task}; the test split
  was never used to choose. Nothing is known of other data.
- Inputs must be prepared as in training{_prepared(card)}, and are of one size:
  {card["formats"][form]["inputs"]}.
- Joules are of batches of {reading["batch_size"]} on {device}; on other hardware, in
  other batches and runtimes they differ.
- Bias, fairness and robustness were not examined.
"""


def _front_matter(card: Mapping[str, Any], verified: Mapping[str, Any]) -> dict[str, Any]:
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
    metrics.append(
        {
            "type": "energy",
            "name": f"joules per {reading['unit']} ({label})",
            "value": reading["energy_j"],
        }
    )
    front: dict[str, Any] = {
        "pipeline_tag": pipeline,
        "tags": ["joulenas", "neural-architecture-search", "energy", "safetensors"],
        "metrics": [metric.key],
        "model-index": [
            {
                "name": card["architecture"],
                "results": [
                    {
                        "task": {"type": pipeline},
                        "dataset": {"name": card["task"], "type": card["task"]},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }
    if card["train_energy_j"] is not None:
        front["co2_eq_emissions"] = {
            "emissions": card["train_energy_j"] / JOULES_PER_KWH * card["carbon_g_per_kwh"],
            "source": f"JouleNAS, this network's own training at {card['carbon_g_per_kwh']:g} "
            f"g/kWh, joules by {reading['source']}",
            "training_type": "pre-training" if card["start"] == "random" else "fine-tuning",
            "hardware_used": reading["device"],
        }
    return front


def _training(card: Mapping[str, Any]) -> str:
    training = card["training"]
    task = plain(card["task"])
    text = f"It was trained for {training['epochs']} epochs on the train split of {task}"
    if card["start"] != "random":
        text += f", starting from the weights of a {card['start']}"
    if card["train_energy_j"] is None:
        return text + "."
    return f"{text}, which took {card['train_energy_j']:.3g} J beside the rest of the search."


def _prepared(card: Mapping[str, Any]) -> str:
    return "" if card["preprocessing"] is None else f" (`{card['preprocessing']}`)"


def _tokens(card: Mapping[str, Any]) -> str:
    if card["tokenizer"] is None:
        return ""
    return (
        "\nTokens are those of `tokenizer.json` (the `tokenizers` library), plus `shift` of "
        "`labels.json`,\nwith 0 as padding up to the length of an input.\n"
    )
