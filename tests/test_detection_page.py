"""What docs/detection.md shows is true: its task files are such, and its artifact finds boxes."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pages import DOCS, blocks
from PIL import Image

from experiments.benchmarks.training.drawn_shapes import CLASSES, write_shapes
from experiments.recipes import detection
from nas.core.files import write_json
from nas.exporting.artifact import load_artifact
from nas.searching.study import check_fits
from nas.tasks.base.checks import check_data
from nas.tasks.registry import get_task
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build

PAGE = DOCS / "detection.md"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    write_shapes(tmp_path, 80, side=64)
    return tmp_path


def tasks(folder):
    """The tasks of the page."""
    for number, text in enumerate(blocks(PAGE, "yaml")):
        path = folder / f"task-{number}.yaml"
        path.write_text(text)
        yield get_task(str(path))


def test_its_task_files_are_of_one_task_in_two_formats(folder):
    coco, yolo = tasks(folder)
    assert not check_data(coco).errors and not check_data(yolo).errors
    for name in ("train", "test"):
        ours, theirs = (task.split(name).targets for task in (coco, yolo))
        assert np.abs(ours - theirs).max() <= 4
    assert coco.labels() == list(CLASSES)
    check_fits(detection("cpu").space, coco.workload(16))


def write_model(folder, task):
    """An untrained network that finds an object at its first patch, as an artifact."""
    workload = task.workload(4)
    layer = LayerSpec(AttentionSpec(2, 2, 8), FfnSpec(32))
    architecture = Architecture(16, (layer,), patch_size=16)
    model = build(architecture, workload, generator_seed=0)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        # A tenth of the width and half of the height, of the second class.
        model.head.bias[[0, 3, 6]] = torch.tensor([9.0, float(np.log(0.1 / 0.9)), 9.0])
    folder.mkdir()
    write_json(folder / ARCHITECTURE, architecture.to_dict())
    write_json(folder / WORKLOAD, workload.to_dict())
    save_weights(model, folder / WEIGHTS)
    for name, text in task.artifact_files().items():
        (folder / name).write_text(text)


def test_its_artifact_finds_boxes_in_the_pixels_of_any_picture(folder, monkeypatch):
    task, _ = tasks(folder)
    write_model(folder / "model", task)
    turned = Image.Exif()
    turned[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 255, (100, 320, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "street.jpg", exif=turned)
    (example,) = blocks(PAGE, "python")
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example, {})
    rows = [line.split() for line in printed.getvalue().splitlines()]
    # Upright it is 100 pixels wide and 320 high; each of 4 x 4 patches finds a box about itself.
    assert {row[0] for row in rows} == {"square"} and len(rows) == 16
    corner = min(rows, key=lambda row: (float(row[3]), float(row[2])))
    ends = [float(end) for end in corner[2:]]
    assert ends == pytest.approx([12.5 - 5, 0.0, 12.5 + 5, 40 + 80], abs=0.1)
    artifact = load_artifact("model")
    found = artifact.detect(["street.jpg", "pictures/0000.png"])
    assert [max(box.right for box in boxes) > 64 for boxes in found] == [True, False]
    with pytest.raises(ValueError, match=r"street.txt must be readable"):
        artifact.detect("street.txt")
    labels = json.loads((folder / "model" / "labels.json").read_text())
    (folder / "model" / "labels.json").write_text(json.dumps(labels | {"max_boxes": -1}))
    with pytest.raises(ValueError, match=r"max_boxes of .* must be in 1..1000, got -1"):
        load_artifact("model")
