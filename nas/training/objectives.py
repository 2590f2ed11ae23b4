"""The objective of each kind of task.

Shape legend: B batch, T tokens, H height, W width, C classes, S figures of a sample.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas.tasks.base import IGNORED, Task
from nas.training.objective import Classification, Floats, Objective, ratio
from search_spaces.workload import Kind, Workload


class LanguageModelling(Objective):
    """Cross-entropy of the next token, and bits per byte ``b`` as the quality ``2**-b``.

    ``outputs`` are ``(B, T, C)`` logits, targets ``(B, T)`` tokens. Sizes are the bytes of text
    that a sample's targets encode, so that results of different tokenisers are comparable. The
    jackknife underestimates the standard error: neighbouring samples of a text are correlated.
    """

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """See ``Objective.loss``."""
        return F.cross_entropy(
            outputs.flatten(0, -2), targets.flatten(), label_smoothing=label_smoothing
        )

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """Return the bits and the bytes of each sample's targets, ``(B, 2)``.

        Raises:
            ValueError: there are no sizes.
        """
        if sizes_B is None:
            raise ValueError("sizes of a language modelling split must be its samples' bytes")
        nats_BT = F.cross_entropy(
            outputs.transpose(1, 2), torch.from_numpy(targets), reduction="none"
        )
        bits_B = nats_BT.sum(dim=1).double().numpy() / math.log(2)
        return np.stack([bits_B, sizes_B.astype(float)], axis=1)

    def quality(self, figures: Floats) -> Floats:
        """Return ``2**-b`` for ``b`` bits per byte."""
        quality: Floats = np.exp2(-ratio(figures))
        return quality


class SegmentationObjective(Objective):
    """Cross-entropy of each pixel, and the mean intersection over union of classes.

    ``outputs`` are ``(B, H, W, C)`` logits, targets ``(B, H, W)`` classes; pixels that are
    ``IGNORED`` do not count. The mean is over classes present in targets or predictions.
    Intersections and unions are summed over all samples (Everingham et al. 2010), not averaged.
    """

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the mean cross-entropy over pixels that are not ignored."""
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
        """Count pixels in the intersection and in the union of each class, ``(B, 2 C)``."""
        n_classes = outputs.shape[-1]
        predicted_BHW = outputs.argmax(dim=-1).numpy()
        counts_B = []
        for predicted, target in zip(predicted_BHW, targets, strict=True):
            is_valid = target != IGNORED
            pairs = np.bincount(
                target[is_valid] * n_classes + predicted[is_valid], minlength=n_classes**2
            ).reshape(n_classes, n_classes)
            shared = np.diag(pairs)
            counts_B.append(np.concatenate([shared, pairs.sum(0) + pairs.sum(1) - shared]))
        return np.array(counts_B, dtype=np.float64)

    def quality(self, figures: Floats) -> Floats:
        """Return the mean intersection over union; 0 if no pixel counts."""
        shared, union = np.split(figures, 2, axis=-1)
        is_present = union > 0
        shares = np.divide(shared, union, out=np.zeros_like(shared), where=is_present)
        mean: Floats = shares.sum(axis=-1) / np.maximum(is_present.sum(axis=-1), 1)
        return mean


# A task whose metric needs more than arrays, such as the text of answers, has its own objective.
OBJECTIVES: dict[Kind, Objective] = {
    "image_classification": Classification(),
    "text_classification": Classification(),
    "language_modelling": LanguageModelling(),
    "image_segmentation": SegmentationObjective(),
}


def objective_of(task: Task, workload: Workload) -> Objective:
    """Return the task's own ``objective``, or the default one of its kind.

    Raises:
        ValueError: the task has none and its kind has no default.
    """
    own: Objective | None = task.objective
    if own is not None:
        return own
    if workload.kind not in OBJECTIVES:
        raise ValueError(
            f"objective of task {task.name} must be its own: {workload.kind} has none"
        )
    return OBJECTIVES[workload.kind]
