"""What does a searched detector reach on drawn shapes, beside blobs of colour?

    python -m experiments.benchmarks.training.detection --trials 6 --patch 8

The recipe ``detection`` is searched on pictures of shapes (``drawn_shapes``). Its best network and
the cheapest one within a standard error of it are compared with blobs of colour on the test split.
With ``--assignments`` one architecture is trained with each of two ways to choose the patches that
learn a box: those near its centre, whose boxes are then suppressed where they overlap, or a single
one of least cost (set prediction: Carion et al. 2020, arXiv 2005.12872), without suppression.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import nas
from experiments.benchmarks.training.colour_blobs import THRESHOLDS, ColourBlobs
from experiments.benchmarks.training.drawn_shapes import CLASSES, write_shapes
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.records.config import SearchConfig
from nas.searching.recipes import get_recipe
from nas.store.run import Run
from nas.tasks.base import IGNORED, Split
from nas.tasks.registry import get_task
from nas.tasks.vision.box_loss import assigned_loss
from nas.tasks.vision.box_score import BoxScore, as_figures
from nas.tasks.vision.boxes import MOST_OVERLAP, UNITS, decoded, found_boxes
from nas.tasks.vision.detection import Detection
from nas.tasks.vision.detector import Detector
from nas.training.config import TrainingConfig
from nas.training.loop import train
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.models.build import build
from search_spaces.space.domains import Choice
from search_spaces.workload import BOX_OUTPUTS

_MOST = 100
_BATCH = 64
# Every box is a box of its own.
_ANY_OVERLAP = 1.0

Floats = NDArray[np.float64]


class SetPrediction(Detector):
    """The objective of detection with one patch for each box, the one of least cost."""

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        return assigned_loss(outputs, targets, matched(outputs, targets), label_smoothing)


def matched(outputs_BRCO: Tensor, targets_BM5: Tensor) -> Tensor:
    """Return the index of each patch's target ``(B, P)``, -1 where there is none.

    The cost of a pair is that of DETR without the generalised overlap: five times the distance of
    the ends, less the probability of the class.
    """
    with torch.no_grad():
        flat_BPO = outputs_BRCO.flatten(1, 2).float()
        classes_BPK = flat_BPO[..., BOX_OUTPUTS:].softmax(-1) * flat_BPO[..., :1].sigmoid()
        boxes_BP4 = decoded(outputs_BRCO).flatten(1, 2)
    at_BP = torch.full(flat_BPO.shape[:2], -1)
    for picture, targets in enumerate(targets_BM5):
        (real,) = torch.nonzero(targets[:, 0] != IGNORED, as_tuple=True)
        apart_PM = torch.cdist(boxes_BP4[picture], targets[real, 1:].float() / UNITS, p=1)
        cost_PM = 5 * apart_PM - classes_BPK[picture][:, targets[real, 0]]
        patches, places = linear_sum_assignment(cost_PM.numpy())
        at_BP[picture, torch.from_numpy(patches)] = real[torch.from_numpy(places)]
    return at_BP


def outputs_of(call: Callable[[Tensor], Tensor], split: Split) -> Tensor:
    with torch.inference_mode():
        batches = torch.split(torch.from_numpy(np.asarray(split.inputs)), _BATCH)
        return torch.cat([call(batch).float() for batch in batches])


def scores(found_NF6: Floats, split: Split) -> dict[str, float]:
    """Both metrics of found boxes, with their standard errors."""
    figures = as_figures(found_NF6, split.targets)
    values: dict[str, float] = {}
    for metric in ("map50", "map"):
        score = BoxScore(len(CLASSES), _MOST, metric)
        values[metric] = score.value(figures)
        values[f"{metric}_se"] = score.standard_error(figures)
    return values


def blobs(task: Detection) -> dict[str, float]:
    """Both metrics of colour blobs on the test split, with the best threshold in training."""
    about = task.about()
    scale = about["mean"], about["deviation"]
    best: tuple[float, ColourBlobs] | None = None
    for threshold in THRESHOLDS:
        detector = ColourBlobs(len(CLASSES), _MOST)
        detector.threshold = threshold
        train_split = task.split("train")
        detector.fit(train_split, scale)
        value = scores(detector.found(train_split, scale), train_split)["map"]
        if best is None or value > best[0]:
            best = value, detector
    assert best is not None
    test = task.split("test")
    return scores(best[1].found(test, scale), test)


def searched(run: Run, task: Detection) -> list[dict[str, object]]:
    """The best trial, and the cheapest one within a standard error of it."""
    trials = [t for t in run.trials() if t.state == "complete"]
    best = max(trials, key=lambda t: t.quality or 0.0)
    least = (best.quality or 0.0) - (best.quality_se or 0.0)
    near = [t for t in trials if (t.quality or 0.0) >= least]
    cheap = min(near, key=lambda t: t.energy_j or np.inf)
    rows: list[dict[str, object]] = []
    chosen = {"best trial": best, "cheapest within an error of it": cheap}
    if cheap is best:
        chosen.popitem()
    for what, trial in chosen.items():
        folder = run.weights_path(trial.number).parent
        network = load_trial(trial.architecture, run, folder)
        test = task.split("test")
        found = found_boxes(outputs_of(network, test), _MOST)
        rows.append(
            {
                "detector": f"{what}: {trial.architecture.describe()}",
                **scores(found, test),
                "energy_uj": 1e6 * (trial.energy_j or 0.0),
            }
        )
    return rows


def load_trial(architecture: Architecture, run: Run, folder: Path) -> Callable[[Tensor], Tensor]:
    """Return the call of a trial's network as it was evaluated."""
    from safetensors.torch import load_file

    network = build(architecture, run.workload, generator_seed=0)
    network.load_state_dict(load_file(str(folder / "model.safetensors")))
    return run_eagerly(compress(network.eval(), architecture)).call


def assignments(task: Detection, config: TrainingConfig, seeds: int) -> list[dict[str, object]]:
    """Both metrics of one architecture on the validation split, by how patches are assigned."""
    layer = LayerSpec(AttentionSpec(4, 4, 16), FfnSpec(256))
    architecture = Architecture(64, (layer,) * 3, patch_size=8)
    workload, validation = task.workload(16), task.split("validation")
    rows: list[dict[str, object]] = []
    for name, kind, overlap in (
        ("near the centre", Detector, MOST_OVERLAP),
        ("set prediction", SetPrediction, _ANY_OVERLAP),
    ):
        objective = kind(len(CLASSES), _MOST, "map")
        for seed in range(seeds):
            model = build(architecture, workload, generator_seed=seed)
            train(model, task.split("train"), config, seed=seed, objective=objective)
            outputs = outputs_of(model, validation)
            found = found_boxes(outputs, _MOST, most_overlap=overlap)
            rows.append({"patches": name, "seed": seed, **scores(found, validation)})
            print(rows[-1], file=sys.stderr)
    return rows


def task_of(folder: Path, pictures: int) -> Detection:
    """Draw pictures into ``folder`` and return the task over them."""
    write_shapes(folder, pictures)
    path = folder / "shapes.yaml"
    data = {"images": "pictures", "annotations": "boxes.json"}
    path.write_text(yaml.safe_dump({"name": "shapes", "kind": "detection", "data": data}))
    return cast(Detection, get_task(str(path)))


def config_of(task: Path, patch: int | None, epochs: int | None, trials: int) -> SearchConfig:
    """Return the recipe's search on the task file ``task``."""
    config = get_recipe("detection", task=str(task), epochs=epochs)
    # Mirrored shapes are shapes.
    training = replace(config.training, flip_images=True)
    config = replace(config, trials=trials, training=training)
    if patch is None:
        return config
    only = {"patch_size": Choice((patch,)), "resolution": Choice((None,))}
    return replace(config, space=replace(config.space, domains={**config.space.domains, **only}))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.training.detection",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--patch", type=int, help="the only patch size, of whole pictures")
    parser.add_argument("--run", type=Path, help="a run on such pictures, instead of a new one")
    parser.add_argument(
        "--assignments", action="store_true", help="compare assignments of patches only"
    )
    parser.add_argument("--seeds", type=int, default=1, help="of the table of assignments")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    columns = {
        "mAP@0.5": "{map50:.1%} ± {map50_se:.1%}",
        "mAP@[0.5:0.95]": "{map:.1%} ± {map_se:.1%}",
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.assignments:
            sheet = Sheet(parser, arguments, "detection-assignments")
            task = task_of(folder, arguments.pictures)
            config = config_of(folder / "shapes.yaml", None, arguments.epochs, 1)
            rows = assignments(task, config.training, arguments.seeds)
            heads = {"patches that learn a box": "{patches}", "seed": "{seed}"}
            sheet.show(Table.of("assignments", {**heads, **columns}, rows))
            return 0
        sheet = Sheet(parser, arguments, "detection")
        if arguments.run is None:
            task = task_of(folder, arguments.pictures)
            path = folder / "shapes.yaml"
            config = config_of(path, arguments.patch, arguments.epochs, arguments.trials)
            run = nas.search(config, folder / "run", workers=0)
        else:
            run = nas.load(arguments.run)
            task = cast(Detection, get_task(run.config.task))
        rows = [{"detector": "colour blobs", **blobs(task), "energy_uj": None}]
        rows += searched(run, task)
    heads = {"detector": "{detector}", **columns, "uJ per picture, estimate": "{energy_uj:.1f}"}
    sheet.show(Table.of("detectors", heads, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
