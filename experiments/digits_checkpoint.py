"""A small ViT trained on the digits, as a folder of transformers.

    python -m experiments.digits_checkpoint TO

``TO`` gets ``digits.yaml`` with the pictures of its three splits, and ``vit/``, a folder that
``AutoModelForImageClassification`` loads. It is a parent for searches of an image model that need
no download; the splits are those of the task ``digits``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nas.core.files import write_json, write_text
from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import PREPROCESSING
from nas.tasks.embedded import Digits
from nas.tasks.registry import get_task
from nas.training.config import TrainingConfig
from nas.training.evaluate import evaluate
from nas.training.loop import train
from search_spaces.architecture import STYLES, Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build
from search_spaces.pretrained.files.folder import PREPROCESSOR
from search_spaces.pretrained.writing.new import write_new

_WIDTH, _DEPTH, _HEADS, _PATCH = 64, 6, 4, 2
_RECIPE = TrainingConfig(epochs=40, batch_size=64, learning_rate=2e-3, weight_decay=0.1)
# Ink of the digits is 0 to 16, pixels of pictures 0 to 255.
_INK, _LARGEST = 16.0, 255.0


def write_pictures(to: Path) -> Path:
    """Write the digits as arrays of pixels, and their task file; return its path."""
    task = Digits()
    scale = json.loads(task.artifact_files()[PREPROCESSING])
    mean, deviation = scale["mean"][0], scale["deviation"][0]
    lines = ["name: digits-pictures", "kind: images", "channels: 1"]
    for split in SPLITS:
        part = task.split(split)
        ink = part.inputs[:, 0] * deviation + mean
        pixels = np.clip(np.round(ink / _INK * _LARGEST), 0, _LARGEST).astype(np.uint8)
        np.savez(to / f"{split}.npz", images=pixels, labels=part.targets)
        lines.append(f"{split}: {split}.npz")
    write_text(to / "digits.yaml", "\n".join(lines) + "\n")
    return to / "digits.yaml"


def trained_vit(path: Path, to: Path, recipe: TrainingConfig = _RECIPE) -> float:
    """Train a ViT on the task file at ``path`` and write it to ``to``; return its quality."""
    task = get_task(str(path))
    workload = task.workload(128)
    layer = LayerSpec(AttentionSpec(_HEADS, _HEADS, _WIDTH // _HEADS), FfnSpec(4 * _WIDTH))
    architecture = Architecture(_WIDTH, (layer,) * _DEPTH, _PATCH, style=STYLES["vit"])
    network = build(architecture, workload, generator_seed=0)
    train(network, task.split("train"), recipe, seed=0)
    quality = evaluate(network.eval(), task.split("validation"), batch_size=128).value
    to.mkdir()
    write_new(network, architecture, workload, to, labels=[str(digit) for digit in range(10)])
    scale = json.loads(task.artifact_files()[PREPROCESSING])
    write_json(
        to / PREPROCESSOR,
        {
            "rescale_factor": 1 / _LARGEST,
            "image_mean": [value / _LARGEST for value in scale["mean"]],
            "image_std": [value / _LARGEST for value in scale["deviation"]],
        },
    )
    return quality


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.digits_checkpoint", description=__doc__.splitlines()[0]
    )
    parser.add_argument("to", type=Path, help="new folder")
    arguments = parser.parse_args(argv)
    if arguments.to.exists():
        parser.error(f"TO must be a new folder, got {arguments.to}")
    torch.set_num_threads(1)
    arguments.to.mkdir(parents=True)
    task = write_pictures(arguments.to)
    quality = trained_vit(task, arguments.to / "vit")
    print(f"{arguments.to / 'vit'}: {quality:.2%} of the validation split; task file {task}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
