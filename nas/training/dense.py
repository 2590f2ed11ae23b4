"""The objective of segmentation.

Shape legend: B batch, H height, W width, C classes, S = 2 C figures.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas.tasks.vision.segmentation import IGNORED
from nas.training.objective import Objective

Floats = NDArray[np.float64]


class SegmentationObjective(Objective):
    """Cross-entropy of each pixel, and the mean intersection over union of classes.

    ``outputs`` are ``(B, H, W, C)`` logits, targets ``(B, H, W)`` classes; pixels that are
    ``IGNORED`` do not count. The mean is over classes that occur in targets or predictions.
    Intersections and unions are summed over all samples (Everingham et al. 2010), not averaged.
    """

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """The mean over pixels that are not ignored."""
        total = F.cross_entropy(
            outputs.flatten(0, -2),
            targets.flatten(),
            ignore_index=IGNORED,
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        return total / (targets != IGNORED).sum().clamp_min(1)

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """Pixels of the intersection and of the union of each class, ``(B, 2 C)``."""
        n_classes = outputs.shape[-1]
        predicted_BHW = outputs.argmax(dim=-1).numpy()
        counts_B = []
        for predicted, right in zip(predicted_BHW, targets, strict=True):
            counts = right != IGNORED
            pairs = np.bincount(
                right[counts] * n_classes + predicted[counts], minlength=n_classes**2
            ).reshape(n_classes, n_classes)
            shared = np.diag(pairs)
            counts_B.append(np.concatenate([shared, pairs.sum(0) + pairs.sum(1) - shared]))
        return np.array(counts_B, dtype=np.float64)

    def quality(self, figures: Floats) -> Floats:
        """Mean intersection over union; 0 where there is no pixel at all."""
        shared, union = np.split(figures, 2, axis=-1)
        is_there = union > 0
        shares = np.divide(shared, union, out=np.zeros_like(shared), where=is_there)
        found: Floats = shares.sum(axis=-1) / np.maximum(is_there.sum(axis=-1), 1)
        return found
