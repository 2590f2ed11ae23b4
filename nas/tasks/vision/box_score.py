"""Mean average precision of found boxes, as COCO defines it (Lin et al. 2014, arXiv 1405.0312).

``pycocotools`` matches found to true boxes at each least overlap. The average over 101 recalls is
computed here from its matches, for all pictures or for resampled ones, and equals that of
``COCOeval`` (a test compares them). Standard errors are by the bootstrap over pictures.

Only this module imports ``pycocotools``.

Shape legend: N pictures, F found boxes, M true boxes, D found boxes of all pictures, T least
overlaps, R resamples, C recalls.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base import IGNORED
from nas.tasks.vision.boxes import FOUND, TARGET, UNITS

Floats = NDArray[np.float64]

# By metric: the least overlaps of a found and a true box at which the precision is averaged.
OVERLAPS = {"map": tuple(0.5 + 0.05 * step for step in range(10)), "map50": (0.5,)}
_RECALLS = np.linspace(0, 1, 101)
_RESAMPLES = 100
# Sides of pictures for `pycocotools`, whose least area is 0: overlaps do not depend on them.
_SIDE = 1000.0
_EVERY_AREA = (0.0, 1e10)
# Most values of the arrays of some resamples.
_AT_A_TIME = 2_000_000


def check_installed() -> None:
    """Raise ``ValueError`` unless ``pycocotools`` is installed."""
    if find_spec("pycocotools") is None:
        raise ValueError("kind detection needs pycocotools: pip install 'joulenas[detection]'")


def as_figures(found_BF6: Floats, targets_BM5: NDArray[np.int64]) -> Floats:
    """Return the found and the true boxes of each picture in a row, ``(B, S)``."""
    n, true_BM5 = len(found_BF6), targets_BM5.astype(np.float64)
    true_BM5[..., 1:] /= UNITS
    return np.concatenate([found_BF6.reshape(n, -1), true_BM5.reshape(n, -1)], axis=1)


@dataclass(frozen=True, slots=True)
class ClassMatches:
    """Boxes of one class, found ones by falling score.

    ``is_right``, ``(T, D)``, says whether a found box matches a true one; ``pictures``, ``(D,)``,
    is its picture, ``n_true``, ``(N,)``, the number of true boxes of each picture.
    """

    is_right: NDArray[np.bool_]
    pictures: NDArray[np.int64]
    n_true: NDArray[np.int64]

    def precision(self, weights_RN: Floats) -> Floats:
        """Return the average precision ``(R, T)``, NaN without true boxes.

        A picture counts as often as its weight says.
        """
        n_true_R = weights_RN @ self.n_true
        weights_RD = weights_RN[:, self.pictures]
        right = np.cumsum(self.is_right * weights_RD[:, None], axis=-1)
        all_RD = np.cumsum(weights_RD, axis=-1)
        recall = right / np.maximum(n_true_R, 1)[:, None, None]
        precision = right / (all_RD + np.spacing(1))[:, None]
        best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
        # Recalls that are never reached have the precision 0.
        best = np.concatenate([best, np.zeros((*best.shape[:2], 1))], axis=-1)
        averages = np.empty(best.shape[:2])
        for at in np.ndindex(*averages.shape):
            places = np.searchsorted(recall[at], _RECALLS, side="left")
            averages[at] = best[at][places].mean()
        averages[n_true_R == 0] = np.nan
        return averages


class BoxScore:
    """Mean average precision over classes and over the least overlaps of a metric."""

    def __init__(self, n_classes: int, max_boxes: int, metric: str) -> None:
        """``metric`` is one of ``OVERLAPS``; rows of figures have ``max_boxes`` found boxes.

        Raises:
            ValueError: ``pycocotools`` is not installed.
        """
        check_installed()
        self._n_classes, self._max_boxes = n_classes, max_boxes
        self._overlaps = OVERLAPS[metric]

    def value(self, figures_NS: Floats) -> float:
        """Return the metric over all pictures; 0 if there is no true box."""
        return float(_means(self._matches(figures_NS), np.ones((1, len(figures_NS))))[0])

    def of_each(self, figures_NS: Floats) -> Floats:
        """Return the metric of each picture alone, ``(N,)``.

        That of a picture without true boxes is 1 less the best score of a box found in it.
        """
        found_NF6, targets_NM5 = self._split(figures_NS)
        is_empty_N = (targets_NM5[..., 0] == IGNORED).all(axis=1)
        best_N = np.where(found_NF6[..., 0] == IGNORED, 0, found_NF6[..., 1]).max(axis=1)
        alone_N = [self.value(row[None]) for row in figures_NS]
        return np.where(is_empty_N, 1 - best_N, alone_N)

    def standard_error(self, figures_NS: Floats) -> float:
        """Return the bootstrap standard error over pictures; infinite for a single one.

        One picture with a box that is found and one with a box that is missed are added, so that a
        perfect score is not certain, as in ``nas.training.objective.Classification``.
        """
        if len(figures_NS) < 2:
            return math.inf
        added = self._right_and_wrong(figures_NS.shape[1])
        figures_NS = np.concatenate([figures_NS, added])
        n, rng = len(figures_NS), np.random.default_rng(0)
        drawn_RN = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(np.float64)
        return float(_means(self._matches(figures_NS), drawn_RN).std(ddof=1))

    def _right_and_wrong(self, width: int) -> Floats:
        """Return figures of two pictures, with a box that is found and with one that is missed."""
        rows = np.zeros((2, width))
        found, targets = self._split(rows)
        found[..., 0] = targets[..., 0] = IGNORED
        whole, corner = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.1, 0.1]
        targets[:, 0] = np.array([0.0, *whole])
        found[:, 0] = np.array([[0.0, 1.0, *whole], [0.0, 1.0, *corner]])
        return rows

    def _split(self, figures_NS: Floats) -> tuple[Floats, Floats]:
        """Return views of the found boxes ``(N, F, 6)`` and of the true ones ``(N, M, 5)``."""
        end, n = self._max_boxes * FOUND, len(figures_NS)
        return (
            figures_NS[:, :end].reshape(n, -1, FOUND),
            figures_NS[:, end:].reshape(n, -1, TARGET),
        )

    def _matches(self, figures_NS: Floats) -> list[ClassMatches]:
        """Match found and true boxes of each class by ``pycocotools``."""
        from pycocotools.cocoeval import COCOeval

        found_NF6, true_NM5 = self._split(figures_NS)
        matcher = COCOeval(iouType="bbox")
        params = matcher.params
        params.iouThrs = np.array(self._overlaps)
        params.maxDets = [self._max_boxes]
        # It fills these lists from files; they have no public way in.
        matcher._gts, matcher._dts = _entries(true_NM5, 1), _entries(found_NF6, 2)
        matches = []
        for label in range(self._n_classes):
            parts: list[tuple[int, Any]] = []
            for picture in range(len(figures_NS)):
                key = picture, label
                matcher.ious = {key: matcher.computeIoU(*key)}
                part = matcher.evaluateImg(*key, _EVERY_AREA, self._max_boxes)
                if part is not None:
                    parts.append((picture, part))
            matches.append(_of_class(parts, len(figures_NS), len(self._overlaps)))
        return matches


def _entries(
    boxes_NXY: Floats, first_end: int
) -> defaultdict[tuple[int, int], list[dict[str, Any]]]:
    """Return boxes by picture and class as ``pycocotools`` keeps them.

    ``first_end`` is the column of a box's left end.
    """
    entries: defaultdict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for picture, rows in enumerate(boxes_NXY.tolist()):
        for row in rows:
            if row[0] == IGNORED:
                continue
            left, top, right, bottom = (_SIDE * end for end in row[first_end:])
            box = [left, top, right - left, bottom - top]
            listed = entries[picture, int(row[0])]
            # The number 0 would mean that a box has no match.
            listed.append(
                {
                    "id": len(listed) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "score": row[1],
                    "iscrowd": 0,
                    "ignore": 0,
                }
            )
    return entries


def _of_class(parts: Sequence[tuple[int, Any]], n: int, n_overlaps: int) -> ClassMatches:
    """Join the matches of one class in ``n`` pictures, by falling score."""
    n_true_N = np.zeros(n, dtype=np.int64)
    if not parts:
        nothing = np.zeros((n_overlaps, 0), dtype=bool)
        return ClassMatches(nothing, np.zeros(0, dtype=np.int64), n_true_N)
    scores_D = np.concatenate([part["dtScores"] for _, part in parts])
    order_D = np.argsort(-scores_D, kind="stable")
    is_right = np.concatenate([part["dtMatches"] > 0 for _, part in parts], axis=1)
    picture_D = np.repeat([p for p, _ in parts], [len(part["dtScores"]) for _, part in parts])
    for picture, part in parts:
        n_true_N[picture] = len(part["gtIds"])
    return ClassMatches(is_right[:, order_D], picture_D[order_D], n_true_N)


def _means(matches: Sequence[ClassMatches], weights_RN: Floats) -> Floats:
    """Return the mean precision over classes with true boxes and over overlaps, ``(R,)``."""
    sums_R, counts_R = np.zeros(len(weights_RN)), np.zeros(len(weights_RN))
    for each in matches:
        at_once = max(1, _AT_A_TIME // max(1, each.is_right.size))
        for start in range(0, len(weights_RN), at_once):
            rows = slice(start, start + at_once)
            mean = each.precision(weights_RN[rows]).mean(axis=1)
            sums_R[rows] += np.nan_to_num(mean)
            counts_R[rows] += ~np.isnan(mean)
    return sums_R / np.maximum(counts_R, 1)
