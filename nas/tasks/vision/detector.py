"""The objective of detection: its loss, and the mean average precision of the boxes it finds.

Shape legend: B batch, M boxes of a picture, N pictures, S figures of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.tasks.vision.box_loss import detection_loss
from nas.tasks.vision.box_score import BoxScore, as_figures
from nas.tasks.vision.boxes import found_boxes, moved_boxes

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]


class Detector:
    """An ``Objective``: figures of a picture are its found and its true boxes."""

    def __init__(self, n_classes: int, max_boxes: int, metric: str) -> None:
        """``metric`` is one of ``box_score.OVERLAPS``.

        Raises:
            ValueError: ``pycocotools`` is not installed.
        """
        self._max_boxes = max_boxes
        self._score = BoxScore(n_classes, max_boxes, metric)

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """See ``box_loss``."""
        return detection_loss(outputs, targets, label_smoothing)

    def outputs(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """See ``Objective.outputs``."""
        return model(inputs)

    def moved(
        self, targets: Tensor, flipped_B: Tensor, shift_B2: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """See ``MovingTargets.moved``."""
        return moved_boxes(targets, flipped_B, shift_B2, size)

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """Found and true boxes of each picture, ``(B, S)``."""
        return as_figures(found_boxes(outputs, self._max_boxes), targets)

    def pooled(self, figures_NS: Floats) -> float:
        """Return the mean average precision over all pictures."""
        return self._score.value(figures_NS)

    def quality(self, figures: Floats) -> Floats:
        """Return that of each picture alone."""
        return self._score.of_each(figures)

    def standard_error(self, figures_NS: Floats) -> float:
        """Return the bootstrap standard error over pictures."""
        return self._score.standard_error(figures_NS)
