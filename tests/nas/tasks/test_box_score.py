"""Mean average precision: that of pycocotools, with an error over pictures."""

import contextlib
import io
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nas.tasks.base import IGNORED
from nas.tasks.vision.box_score import BoxScore, as_figures
from nas.tasks.vision.boxes import UNITS, as_targets

MOST, CLASSES = 12, 3


def pictures(n, seed, noise=0.04):
    """Random true boxes, and found ones that are near some of them."""
    rng = np.random.default_rng(seed)
    found = np.zeros((n, MOST, 6))
    found[..., 0] = IGNORED
    targets = np.zeros((n, 5, 5), dtype=np.int64)
    targets[..., 0] = IGNORED
    for picture in range(n):
        true = []
        for _ in range(rng.integers(0, 5)):
            low = rng.uniform(0, 0.6, 2)
            true.append((int(rng.integers(CLASSES)), (*low, *(low + rng.uniform(0.1, 0.4, 2)))))
        targets[picture, : len(true)] = as_targets(true)
        boxes = [(label, ends) for label, ends in true if rng.random() < 0.8]
        boxes += [(int(rng.integers(CLASSES)), (0.1, 0.1, 0.5, 0.5))] * int(rng.integers(0, 3))
        for place, (label, ends) in enumerate(boxes):
            moved = np.clip(np.array(ends) + rng.normal(0, noise, 4), 0, 1)
            moved[2:] = np.maximum(moved[2:], moved[:2] + 0.01)
            found[picture, place] = [label, rng.choice([0.2, 0.5, rng.random()]), *moved]
    return found, targets


def by_pycocotools(found, targets):
    """Both metrics, by the whole of pycocotools."""
    truth, guesses = [], []
    for picture, (boxes, true) in enumerate(zip(found, targets, strict=True)):
        for label, *ends in true[true[:, 0] != IGNORED].tolist():
            left, top, right, bottom = (100 * end / UNITS for end in ends)
            box = [left, top, right - left, bottom - top]
            truth.append({"id": len(truth) + 1, "image_id": picture, "category_id": label + 1})
            truth[-1] |= {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for label, score, *ends in boxes[boxes[:, 0] != IGNORED].tolist():
            left, top, right, bottom = (100 * end for end in ends)
            box = [left, top, right - left, bottom - top]
            guesses.append({"image_id": picture, "category_id": int(label) + 1, "bbox": box})
            guesses[-1]["score"] = score
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": picture} for picture in range(len(found))],
        "annotations": truth,
        "categories": [{"id": label + 1} for label in range(CLASSES)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(guesses), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return {"map": judged.stats[0], "map50": judged.stats[1]}


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_figure_of_pycocotools(seed):
    found, targets = pictures(30, seed)
    right = by_pycocotools(found, targets)
    figures = as_figures(found, targets)
    for metric, value in right.items():
        assert BoxScore(CLASSES, MOST, metric).value(figures) == pytest.approx(value, abs=1e-9)
        assert 0.05 < value < 0.95


def test_a_picture_that_counts_twice_is_two_pictures():
    found, targets = pictures(20, 7)
    # The order of boxes of equal scores may differ.
    found[..., 1] += np.random.default_rng(1).uniform(0, 1e-3, found.shape[:2])
    figures = as_figures(found, targets)
    score = BoxScore(CLASSES, MOST, "map")
    weights = np.random.default_rng(0).integers(0, 4, (1, 20)).astype(float)
    repeated = np.repeat(figures, weights[0].astype(int), axis=0)
    matched = np.nanmean([m.precision(weights) for m in score._matches(figures)])
    assert matched == pytest.approx(score.value(repeated), abs=1e-9)


def test_its_error_is_that_of_other_pictures():
    score = BoxScore(CLASSES, MOST, "map")
    every = as_figures(*pictures(1500, 3))
    values = [score.value(part) for part in np.split(every, 30)]
    errors = [score.standard_error(part) for part in np.split(every, 30)[:4]]
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.5)
    assert score.standard_error(every[:1]) == math.inf


def test_a_perfect_score_is_not_certain():
    targets = np.stack([as_targets([(0, (0.1, 0.1, 0.5, 0.6))])] * 30)
    found = np.zeros((30, MOST, 6))
    found[..., 0] = IGNORED
    found[:, 0] = [0, 0.9, 0.1, 0.1, 0.5, 0.6]
    score = BoxScore(1, MOST, "map")
    figures = as_figures(found, targets)
    assert score.value(figures) == pytest.approx(1)
    assert 0.005 < score.standard_error(figures) < 0.1


def test_pictures_alone():
    score = BoxScore(CLASSES, MOST, "map50")
    box = (0.1, 0.1, 0.5, 0.6)
    targets = np.full((4, 1, 5), IGNORED)
    targets[:2] = as_targets([(1, box)])
    found = np.zeros((4, MOST, 6))
    found[..., 0] = IGNORED
    found[0, 0] = [1, 0.9, *box]
    found[1, 0] = [2, 0.9, *box]
    found[2, 0] = [0, 0.7, *box]
    # Right, of another class, found where there is none, and rightly empty.
    assert score.of_each(as_figures(found, targets)).tolist() == pytest.approx([1, 0, 0.3, 1])
    nothing = as_figures(found[2:], targets[2:])
    assert score.value(nothing) == 0
