"""Objectives: the loss and the quality of a task's networks; ``objectives`` has one a kind.

An ``Objective`` computes figures of each sample that add up over samples (right or wrong; bits and
bytes; a confusion matrix), and the quality as a function of their sums. A quality without a closed
form of its standard error has that of the jackknife (Efron & Stein 1981).

Shape legend: B batch, N samples of a split, S figures of a sample, C classes, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


class Objective(Protocol):
    """Loss and quality of a task; subclasses inherit ``outputs`` and ``standard_error``."""

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """The mean loss of a batch, on its device."""

    def outputs(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """What is evaluated of ``model``: its logits for ``inputs``, by default."""
        return model(inputs)

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """Figures of each sample, ``(B, S)``.

        ``outputs`` are on the CPU and finite; ``sizes_B`` are the split's, if it has any.
        """

    def quality(self, figures: Floats) -> Floats:
        """Quality in [0, 1] of summed figures ``(..., S)``, of shape ``(...)``."""

    def standard_error(self, figures_NS: Floats) -> float:
        """Standard error of the quality of all ``N`` samples, by the jackknife by default."""
        return jackknife(figures_NS, self.quality)


@runtime_checkable
class TeacherForcing(Protocol):
    """An ``Objective`` whose networks read the targets while they train (teacher forcing)."""

    def forced(self, model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs for the loss: logits of ``targets``, given ``inputs`` and the targets before."""


def learnt_outputs(objective: object, model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """Outputs of ``model`` on a training batch, for the loss of ``objective``."""
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
        """Whether each sample is right, and 1."""
        right_B = (outputs.argmax(dim=-1).numpy() == targets).astype(float)
        return np.stack([right_B, np.ones_like(right_B)], axis=1)

    def quality(self, figures: Floats) -> Floats:
        """Accuracy."""
        return ratio(figures)

    def standard_error(self, figures_NS: Floats) -> float:
        """Binomial standard error, ``sqrt(p (1 - p) / n)``.

        Agresti and Coull's (1998) two added successes and failures keep it above 0 at 100%.
        """
        n_right, n = figures_NS.sum(axis=0)
        smoothed = (n_right + 2) / (n + 4)
        return math.sqrt(smoothed * (1 - smoothed) / (n + 4))


def ratio(figures: Floats) -> Floats:
    """Divide the first figure by the second, of ``(..., 2)``."""
    quotient: Floats = figures[..., 0] / figures[..., 1]
    return quotient


def jackknife(figures_NS: Floats, quality: Callable[[Floats], Floats]) -> float:
    """Jackknife standard error of ``quality``; infinite for a single sample."""
    n = len(figures_NS)
    if n < 2:
        return math.inf
    without_N = quality(figures_NS.sum(axis=0) - figures_NS)
    return math.sqrt((n - 1) * float(without_N.var()))
