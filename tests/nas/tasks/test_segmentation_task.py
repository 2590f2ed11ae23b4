"""Pictures and masks: read, learnt pixel by pixel, and judged by intersection over union."""

import numpy as np
import pytest
import torch
from media_fakes import png, task_file, write_scenes
from PIL import Image

from nas.tasks.base import IGNORED, SPLITS
from nas.tasks.base.checks import check_data
from nas.tasks.base.problems import DataError
from nas.tasks.registry import get_task
from nas.training.augment import augment, moved_targets
from nas.training.config import TrainingConfig
from nas.training.fit import Setting, fit
from nas.training.objective import SegmentationObjective
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.workload import Workload

LAYER = LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(32))
SMALL = Architecture(16, (LAYER,), patch_size=4)
PIXELS = Workload("pixels", "image_segmentation", (3, 16, 24), 4, 2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def scenes(folder, **options):
    options = {
        "name": "scenes",
        "kind": "segmentation",
        "data": {"images": "pictures", "masks": "masks"},
        "classes": ["ground", "bright", "red"],
        **options,
    }
    return get_task(task_file(folder / "task.yaml", **options))


@pytest.mark.parametrize("resolution", [None, 8])
def test_masks_are_learnt(tmp_path, resolution):
    task = scenes(write_scenes(tmp_path, 80))
    workload = task.workload(16)
    assert workload.kind == "image_segmentation" and workload.input_shape == (3, 12, 12)
    assert [task.split(name).targets.shape[1:] for name in SPLITS] == [(12, 12)] * 3
    config = TrainingConfig(epochs=15, batch_size=16, learning_rate=1e-2, flip_images=True)
    architecture = Architecture(16, (LAYER,), 4, resolution)
    fitted = fit(architecture, Setting(task, workload, seed=0), config)
    # All ground is right for half of the pixels, and 0.17 of mean IoU.
    assert fitted.validation.value > (0.75 if resolution is None else 0.5)
    assert 0 < fitted.validation.standard_error < 0.1


def test_masks_stay_on_their_pictures(tmp_path):
    config = TrainingConfig(shift_pixels=2, flip_images=True)
    images = torch.arange(60.0).reshape(1, 1, 6, 10).repeat(50, 1, 1, 1)
    shown, versions = augment(images, config, torch.Generator().manual_seed(0))
    targets = images[:, 0].long()
    moved = moved_targets(targets, versions, config)
    assert moved.dtype == torch.int64 and torch.equal(moved, shown[:, 0].long())
    assert len({row.numpy().tobytes() for row in moved}) > 10
    classes = torch.arange(50)
    assert moved_targets(classes, versions, config) is classes


def test_ignored_pixels_palettes_and_sizes(tmp_path):
    write_scenes(tmp_path, 12)
    path = tmp_path / "masks" / "003.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[:6] = 255
    palette = Image.fromarray(mask, "P")
    palette.putpalette([0] * 768)
    palette.save(path)
    with pytest.raises(DataError, match=r"003.png has the mask .*must hold 0..2, got 255"):
        scenes(tmp_path).workload(1)
    task = scenes(tmp_path, ignored=255, size=[6, 8])
    assert task.workload(1).input_shape == (3, 6, 8)
    targets = np.concatenate([task.split(name).targets for name in SPLITS])
    assert (targets == IGNORED).sum() == 3 * 8 and targets.max() == 2
    for name, pixels in task.about()["pixels_of_classes"].items():
        assert sum(pixels) == (task.split(name).targets >= 0).sum()


def test_classes_that_are_rare_in_pixels_are_warned_of(tmp_path):
    write_scenes(tmp_path, 30, side=24)
    for path in (tmp_path / "masks").iterdir():
        mask = np.asarray(Image.open(path)).copy()
        mask[mask == 2] = 0
        path.write_bytes(png(mask))
    found = check_data(scenes(tmp_path))
    assert not found.errors and "classes" not in found.splits["train"]
    for name in SPLITS:
        assert f"rare: no {name} pixel is 'red'" in found.warnings
        uneven = [line for line in found.warnings if line.startswith("uneven") and name in line]
        assert len(uneven) == 1 and uneven[0].endswith(f"of the {name} pixels are 'ground'")


def test_mean_intersection_over_union():
    objective = SegmentationObjective()
    right = np.array([[[0, 0], [1, IGNORED]], [[1, 1], [1, 2]]])
    given = np.array([[[0, 1], [1, 2]], [[1, 1], [0, 2]]])
    outputs = torch.nn.functional.one_hot(torch.from_numpy(given), 4).float()
    figures = objective.figures(outputs, right, None)
    # Class 0: 1 of 3, class 1: 3 of 5, class 2: 1 of 1; class 3 is nowhere.
    assert objective.quality(figures.sum(0)) == pytest.approx((1 / 3 + 3 / 5 + 1) / 3)
    assert objective.quality(figures)[0] == pytest.approx((1 / 2 + 1 / 2) / 2)
    logits = torch.zeros(2, 2, 2, 4)
    logits[0, 1, 1] = torch.tensor([9.0, 0, 0, 0])
    loss = objective.loss(logits, torch.from_numpy(right), 0.0)
    assert float(loss) == pytest.approx(np.log(4))
    nothing = objective.loss(logits, torch.full((2, 2, 2), IGNORED), 0.0)
    assert float(nothing) == 0.0


def lonely_picture(folder):
    (folder / "masks" / "000.png").unlink()
    (folder / "pictures" / "001.png").unlink()


def empty_mask(folder):
    (folder / "masks" / "002.png").write_bytes(b"")


def colours(folder):
    (folder / "masks" / "002.png").write_bytes(png(np.zeros((12, 12, 3), np.uint8)))


def other_size(folder):
    (folder / "masks" / "002.png").write_bytes(png(np.zeros((9, 12), np.uint8)))


def one_class(folder):
    for path in (folder / "masks").iterdir():
        path.write_bytes(png(np.ones((12, 12), np.uint8)))


@pytest.mark.parametrize(
    ("break_it", "options", "message"),
    [
        (lonely_picture, {}, r"pictures/000.png must have a mask .*\(and 1 more\)"),
        (empty_mask, {}, r"002.png has the mask .*002.png, which must have 1 to"),
        (colours, {}, r"which must be grey or have a palette of classes, got mode RGB"),
        (other_size, {}, r"which must be of the picture's \(12, 12\) pixels, got \(9, 12\)"),
        (
            one_class,
            {},
            r"masks of the training split \(.*\) must hold two classes or more, got bright",
        ),
        (None, {"classes": ["one"]}, "classes must be two distinct names or more"),
        (None, {"classes": "one"}, "classes must be a list of names"),
        (None, {"ignored": 2}, r"ignored must be in 3..255, got 2"),
        (None, {"data": "pictures"}, r"must be given as {images: FOLDER, masks: FOLDER}"),
        (None, {"data": {"images": "pictures", "masks": "no"}}, "no must be readable"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, break_it, options, message):
    write_scenes(tmp_path, 40)
    if break_it is not None:
        break_it(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        scenes(tmp_path, **options).workload(1)
    assert "\n" not in str(caught.value)
