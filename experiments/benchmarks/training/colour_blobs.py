"""A simple detector: connected pixels of another colour than the ground.

The ground is the median colour of the picture's border. Pixels further from it than a threshold
form blobs. A blob's class is the one whose share of filled box, and of that in the upper half, are
nearest; both are means of the training boxes. Touching shapes become one blob.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nas.tasks.base import IGNORED, Split
from nas.tasks.vision.boxes import FOUND, UNITS

# Thresholds to choose from on training data, of the distance of colours.
THRESHOLDS = (40.0, 55.0, 70.0, 90.0)
_LEAST_PIXELS = 20

Floats = NDArray[np.float64]


class ColourBlobs:
    """Blobs of pixels by their distance from the ground; ``fit`` learns what classes look like."""

    def __init__(self, n_classes: int, max_boxes: int) -> None:
        self._n_classes, self._max_boxes = n_classes, max_boxes
        self._means = np.zeros((n_classes, 2))
        self.threshold = THRESHOLDS[0]

    def fit(self, split: Split, scale: tuple[Sequence[float], Sequence[float]]) -> None:
        """Learn the mean looks of each class inside its true boxes, at the current threshold."""
        looks: list[list[tuple[float, float]]] = [[] for _ in range(self._n_classes)]
        for values, targets in zip(split.inputs, split.targets, strict=True):
            mask = self._mask(_pixels(values, scale))
            height, width = mask.shape
            for label, *ends in targets[targets[:, 0] != IGNORED].tolist():
                left, right = (round(ends[i] / UNITS * width) for i in (0, 2))
                top, bottom = (round(ends[i] / UNITS * height) for i in (1, 3))
                looks[label].append(_look(mask[top:bottom, left:right]))
        self._means = np.array([np.mean(each, axis=0) for each in looks])

    def found(self, split: Split, scale: tuple[Sequence[float], Sequence[float]]) -> Floats:
        """Return found boxes of each picture as ``boxes.found_boxes`` does."""
        found = np.zeros((len(split), self._max_boxes, FOUND))
        found[..., 0] = IGNORED
        for picture, values in enumerate(split.inputs):
            mask = self._mask(_pixels(values, scale))
            rows = self._blobs(mask)[: self._max_boxes]
            if rows:
                found[picture, : len(rows)] = rows
        return found

    def _mask(self, pixels_CHW: Floats) -> NDArray[np.bool_]:
        border = np.concatenate(
            [pixels_CHW[:, 0], pixels_CHW[:, -1], pixels_CHW[:, :, 0], pixels_CHW[:, :, -1]],
            axis=1,
        )
        apart = pixels_CHW - np.median(border, axis=1)[:, None, None]
        distance = np.sqrt((apart**2).mean(axis=0))
        smooth: Floats = ndimage.uniform_filter(distance, 3)
        mask: NDArray[np.bool_] = smooth > self.threshold
        return mask

    def _blobs(self, mask: NDArray[np.bool_]) -> list[list[float]]:
        height, width = mask.shape
        numbered, _ = ndimage.label(mask)
        rows = []
        for number, place in enumerate(ndimage.find_objects(numbered), start=1):
            blob = numbered[place] == number
            if blob.sum() < _LEAST_PIXELS:
                continue
            apart = np.abs(self._means - _look(blob)).sum(axis=1)
            label = int(apart.argmin())
            ends = [place[1].start / width, place[0].start / height]
            ends += [place[1].stop / width, place[0].stop / height]
            rows.append([label, float(np.exp(-4 * apart[label])), *ends])
        return sorted(rows, key=lambda row: -row[1])


def _look(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of a box that is filled, and share of its upper half."""
    return float(mask.mean()), float(mask[: max(1, len(mask) // 2)].mean())


def _pixels(values_CHW: Floats, scale: tuple[Sequence[float], Sequence[float]]) -> Floats:
    mean, deviation = (np.reshape(values, (-1, 1, 1)) for values in scale)
    return values_CHW * deviation + mean
