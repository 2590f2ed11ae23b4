"""Boxes: what outputs stand for, which patches learn them, and how they move with a picture."""

import numpy as np
import pytest
import torch

from nas.tasks.base import IGNORED
from nas.tasks.vision.box_loss import assigned, detection_loss
from nas.tasks.vision.boxes import (
    UNITS,
    FoundBox,
    as_targets,
    decoded,
    found_boxes,
    in_pixels,
    overlap,
)
from nas.tasks.vision.detector import Detector
from nas.training.augment import augment, moved_with
from nas.training.config import TrainingConfig
from nas.training.objective import Classification

SURE = 9.0


def outputs(rows, columns, objects, n_classes=3):
    """Outputs of a picture with an object at some patches: (row, column, class, dx, dy, w, h)."""
    made = torch.full((1, rows, columns, 5 + n_classes), -SURE)
    made[..., 1:5] = 0.0
    for row, column, label, *raw in objects:
        made[0, row, column, 0] = SURE
        made[0, row, column, 1:5] = torch.tensor(raw)
        made[0, row, column, 5 + label] = SURE
    return made


def test_a_box_lies_about_its_patch():
    raw = outputs(4, 8, [(1, 6, 2, 0.0, 0.0, 0.0, float(np.log(1 / 3)))])
    (left, top, right, bottom) = decoded(raw)[0, 1, 6].tolist()
    # The middle of the patch; half of the width, a quarter of the height.
    assert (left + right) / 2 == pytest.approx(6.5 / 8) and right - left == pytest.approx(0.5)
    assert (top + bottom) / 2 == pytest.approx(1.5 / 4) and bottom - top == pytest.approx(0.25)
    far = decoded(outputs(4, 8, [(1, 6, 2, 99.0, -99.0, 0.0, 0.0)]))[0, 1, 6]
    assert (far[0] + far[2]) / 2 == pytest.approx(8.5 / 8)


def test_the_best_of_boxes_that_overlap_stays_and_classes_do_not_suppress_each_other():
    raw = outputs(
        4,
        4,
        [
            (1, 1, 0, 0.0, 0.0, -1.0, -1.0),
            (1, 2, 0, -1.0, 0.0, -1.0, -1.0),
            (2, 1, 1, 0.0, -1.0, -1.0, -1.0),
            (3, 3, 0, 0.0, 0.0, -2.0, -2.0),
        ],
    )
    raw[0, 1, 2, 0] = 1.0
    found = found_boxes(raw, 5)[0]
    assert found[:, 0].tolist() == [0, 1, 0, IGNORED, IGNORED]
    assert (np.diff(found[:3, 1]) <= 0).all() and found[0, 1] > 0.99
    every = found_boxes(raw, 5, most_overlap=1.0)[0]
    assert (every[:, 0] != IGNORED).sum() == 4
    # More boxes than may be found: the best ones.
    assert (found_boxes(raw, 1)[0, :, 0] == 0).all()
    assert (found_boxes(raw, 5, least_score=0.9999)[0, :, 0] == IGNORED).all()


def test_found_boxes_are_in_pixels_of_the_picture():
    found = np.array([[1, 0.5, 0.25, 0.5, 0.75, 1.0], [IGNORED, 0, 0, 0, 0, 0]])
    (box,) = in_pixels(found, ("a", "b"), (40, 100))
    assert box == FoundBox("b", 0.5, 25.0, 20.0, 75.0, 40.0)


def test_overlaps_are_shares_of_the_union():
    ours = np.array([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]])
    theirs = np.array([[0.25, 0.0, 0.75, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.5, 0.5]])
    np.testing.assert_allclose(overlap(ours, theirs), [[1 / 3, 0, 1], [0, 0, 0]])


def test_patches_near_the_centre_learn_a_box_and_the_smaller_one_wins():
    boxes = as_targets([(0, (0.0, 0.0, 1.0, 1.0)), (1, (0.52, 0.52, 0.58, 0.58))])
    targets = torch.from_numpy(boxes)[None]
    at = assigned(targets, 8, 8)[0].reshape(8, 8)
    # Centres of the four middle patches are half a patch from the large box's, as one more ring
    # would be too far; the small box has its own patch, whose centre it contains or not.
    assert at[4, 4] == 1 and at[3, 3] == at[3, 4] == at[4, 3] == 0
    assert set(at[[0, 7], [0, 7]].tolist()) == {-1}
    missing = targets.clone()
    missing[..., 0] = IGNORED
    assert (assigned(missing, 8, 8) == -1).all()


def test_the_loss_is_least_for_right_boxes():
    right = (0.25, 0.25, 0.75, 0.75)
    targets = torch.from_numpy(as_targets([(2, right)]))[None]
    patches = [(r, c) for r in (1, 2) for c in (1, 2)]
    # Patches about the centre are half a patch from it: tanh(raw / 2) of two patches.
    raw = 2 * np.arctanh(0.25)
    good = [
        (r, c, 2, raw if c == 1 else -raw, raw if r == 1 else -raw, 0.0, 0.0) for r, c in patches
    ]
    np.testing.assert_allclose(decoded(outputs(4, 4, good))[0, 1, 1], right, atol=1e-6)
    least = float(detection_loss(outputs(4, 4, good), targets, 0.0))
    assert least < 0.02
    worse = {
        "class": [(r, c, 0, *rest) for r, c, _, *rest in good],
        "size": [(*each[:5], 1.0, each[6]) for each in good],
        "place": [(*each[:3], each[3] + 0.5, *each[4:]) for each in good],
        "missed": [],
        "more": [*good, (0, 0, 2, 0.0, 0.0, 0.0, 0.0)],
    }
    for what, objects in worse.items():
        assert float(detection_loss(outputs(4, 4, objects), targets, 0.0)) > least + 0.1, what
    nothing = torch.full_like(targets, IGNORED)
    assert float(detection_loss(outputs(4, 4, []), nothing, 0.0)) < 1e-3


def test_boxes_stay_on_their_pictures():
    config = TrainingConfig(shift_pixels=3, flip_images=True)
    height, width = 16, 24
    image = torch.zeros(1, 1, height, width)
    image[..., 5:9, 10:14] = 1.0
    box = (10 / width, 5 / height, 14 / width, 9 / height)
    targets = torch.from_numpy(as_targets([(1, box)]))[None].repeat(60, 1, 1)
    shown, versions = augment(image.repeat(60, 1, 1, 1), config, torch.Generator().manual_seed(0))
    moved = moved_with(shown, targets, versions, config, Detector(2, 5, "map"))
    places = set()
    for picture, target in zip(shown[:, 0], moved[:, 0], strict=True):
        label, *ends = target.tolist()
        left, right = (end / UNITS * width for end in ends[::2])
        top, bottom = (end / UNITS * height for end in ends[1::2])
        rows, columns = torch.nonzero(picture, as_tuple=True)
        seen = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        assert label == 1 and seen == pytest.approx([left, top, right, bottom], abs=1e-3)
        places.add(tuple(seen))
    assert len(places) > 20
    # An objective without boxes leaves its targets alone.
    assert moved_with(shown, targets[:, 0, 0], versions, config, Classification()) is not None


def test_a_box_that_leaves_the_picture_is_no_target():
    detector = Detector(2, 5, "map")
    targets = torch.from_numpy(as_targets([(1, (0.0, 0.0, 0.2, 0.2)), (0, (0.4, 0.4, 0.6, 0.6))]))
    still = torch.tensor([False])
    moved = detector.moved(targets[None], still, torch.tensor([[-18, 0]]), (100, 100))[0]
    assert moved[:, 0].tolist() == [IGNORED, 0]
    assert (moved[1, 1:] / UNITS).tolist() == pytest.approx([0.22, 0.4, 0.42, 0.6], abs=1e-5)
    half = detector.moved(targets[None], still, torch.tensor([[-10, 0]]), (100, 100))[0]
    assert half[:, 0].tolist() == [1, 0] and half[0, 1] == 0
