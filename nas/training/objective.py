"""Objectives: loss and quality of a task's networks; ``objectives`` has one for each task kind.

An ``Objective`` computes additive figures of each sample (right or wrong; bits and bytes; a
confusion matrix), and the quality as a function of their sums. The standard error is that of the
jackknife (Efron & Stein 1981) unless it has a closed form.

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
