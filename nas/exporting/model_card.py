"""The model card of a folder that stock classes of ``transformers`` load (Hugging Face hub)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from nas.core.markdown import code, plain
from nas.exporting.card import Card
from nas.exporting.card_text import card_body, inputs_and_outputs, place_text
from nas.pareto.lifetime import JOULES_PER_KWH
from nas.tasks.base.metric import get_metric

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
    notes = f"{inputs_and_outputs(card, tokens, 'config.json')}\n{describe_load(verification)}"
    joules = f"{plain(verified['runtime'])} ({verified['mode']}) ran it for these joules."
    return f"---\n{front}---\n\n{card_body(card, verified, joules, use, notes)}"


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
            "hardware_used": place_text(reading),
        }
    return front
