"""Objectives: loss and quality of a task's networks, one for each kind of task.

An ``Objective`` computes additive figures of each sample (right or wrong; bits and bytes; a
confusion matrix), and the quality as a function of their sums. The standard error is that of the
jackknife (Efron & Stein 1981) unless it has a closed form.

Shape legend: B batch, N samples of a split, S figures of a sample, C classes, T tokens, H height,
W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas.tasks.base import IGNORED, Task
from search_spaces.workload import Kind, Workload

Floats = NDArray[np.float64]


class Objective(Protocol):
    """Loss and quality of a task; subclasses inherit ``outputs`` and ``standard_error``."""

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the mean loss of a batch, on its device."""

    def outputs(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Return the outputs of ``model`` to evaluate: its logits for ``inputs`` by default."""
        return model(inputs)

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """Return the figures of each sample, ``(B, S)``.

        ``outputs`` are on the CPU and finite; ``sizes_B`` are the split's, if it has any.
        """

    def quality(self, figures: Floats) -> Floats:
        """Return the quality in [0, 1] for summed figures ``(..., S)``, of shape ``(...)``."""

    def standard_error(self, figures_NS: Floats) -> float:
        """Return the standard error of the quality over ``N`` samples, by default a jackknife."""
        return jackknife(figures_NS, self.quality)


@runtime_checkable
class TeacherForcing(Protocol):
    """An ``Objective`` whose networks read the targets while they train (teacher forcing)."""

    def forced(self, model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return logits of each target, conditioned on ``inputs`` and the preceding targets."""


@runtime_checkable
class Ranking(Protocol):
    """An ``Objective`` that ranks what it found in all samples: figures are no sums."""

    def pooled(self, figures_NS: Floats) -> float:
        """Return the quality of all ``N`` samples together; ``quality`` is that of each alone."""


@runtime_checkable
class ScoringLoss(Protocol):
    """An ``Objective`` with a loss of its own for Taylor scores.

    A loss that is least at the scored network itself has no gradients there.
    """

    def scoring_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over samples of what gradients are taken of."""


@runtime_checkable
class MovingTargets(Protocol):
    """An ``Objective`` whose targets have positions, which move with augmented images."""

    def moved(
        self, targets: Tensor, flipped_B: Tensor, shift_B2: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Return targets of images that were mirrored, then shifted by pixels (right, down).

        ``size`` is the height and width of the images.
        """


def quality_of(objective: Objective, figures_NS: Floats) -> float:
    """Return the quality of ``N`` samples together."""
    if isinstance(objective, Ranking):
        return objective.pooled(figures_NS)
    return float(objective.quality(figures_NS.sum(axis=0)))


def learnt_outputs(objective: object, model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the outputs of ``model`` on a training batch, for the loss of ``objective``."""
    if isinstance(objective, TeacherForcing):
        return objective.forced(model, inputs, targets)
    outputs: Tensor = model(inputs)
    return outputs


class Classification(Objective):
    """Cross-entropy and accuracy: ``outputs`` are ``(B, C)`` logits, targets ``(B,)`` classes."""

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """See ``Objective.loss``."""
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """Return 1 for each right sample, else 0, and a count of 1: ``(B, 2)``."""
        right_B = (outputs.argmax(dim=-1).numpy() == targets).astype(float)
        return np.stack([right_B, np.ones_like(right_B)], axis=1)

    def quality(self, figures: Floats) -> Floats:
        """Return the accuracy."""
        return ratio(figures)

    def standard_error(self, figures_NS: Floats) -> float:
        """Return the binomial standard error, ``sqrt(p (1 - p) / n)``.

        Agresti and Coull's (1998) two added successes and failures keep it above 0 at 100%.
        """
        n_right, n = figures_NS.sum(axis=0)
        smoothed = (n_right + 2) / (n + 4)
        return math.sqrt(smoothed * (1 - smoothed) / (n + 4))


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


def ratio(figures: Floats) -> Floats:
    """Divide the first figure by the second; ``figures`` are ``(..., 2)``."""
    quotient: Floats = figures[..., 0] / figures[..., 1]
    return quotient


def jackknife(figures_NS: Floats, quality: Callable[[Floats], Floats]) -> float:
    """Return the jackknife standard error of ``quality``; infinite for a single sample."""
    n = len(figures_NS)
    if n < 2:
        return math.inf
    without_N = quality(figures_NS.sum(axis=0) - figures_NS)
    return math.sqrt((n - 1) * float(without_N.var()))
