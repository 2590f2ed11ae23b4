"""What a network of a task is trained for and judged by; ``objectives`` has that of each kind.

An ``Objective`` has a loss, and the figures of each sample that its quality is made of: numbers
that add up over samples (right or wrong; bits and bytes; a confusion matrix), of which the quality
is a function. So a standard error is had for every quality that has no better one, by the
jackknife: leave each sample out (Efron & Stein 1981).

Shape legend: B batch, N samples of a split, S figures of a sample, C classes, T tokens.
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

Floats = NDArray[np.float64]


class Objective(Protocol):
    """See the module's description."""

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """The mean loss of a batch, on its device."""
        ...

    def outputs(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """What is judged of ``model``: what it says of ``inputs``, or generates from them."""
        ...

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """The figures of each sample, ``(B, S)``.

        ``outputs`` are on the CPU and finite; ``sizes_B`` are the split's, where it has any.
        """
        ...

    def quality(self, figures: Floats) -> Floats:
        """The quality as a share in [0, 1] of summed figures ``(..., S)``, of shape ``(...)``."""
        ...

    def standard_error(self, figures_NS: Floats) -> float:
        """Of the quality of all ``N`` samples."""
        ...


@runtime_checkable
class TeacherForcing(Protocol):
    """What an ``Objective`` has as well where networks are shown targets while they learn.

    A network that writes tokens one by one learns each of them given the right ones before it.
    """

    def forced(self, model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        """What the loss is of: what ``model`` says of ``targets``, given ``inputs``."""
        ...


def learnt_outputs(objective: object, model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """What the loss of ``objective`` is of, of a batch that ``model`` learns from."""
    if isinstance(objective, TeacherForcing):
        return objective.forced(model, inputs, targets)
    found: Tensor = model(inputs)
    return found


class Classification:
    """Cross-entropy and accuracy: ``outputs`` are ``(B, C)`` logits, targets ``(B,)`` classes."""

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """See ``Objective.loss``."""
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def outputs(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """See ``Objective.outputs``."""
        return model(inputs)

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """Whether each sample is right, and one."""
        right_B = (outputs.argmax(dim=-1).numpy() == targets).astype(float)
        return np.stack([right_B, np.ones_like(right_B)], axis=1)

    def quality(self, figures: Floats) -> Floats:
        """The share that is right."""
        return ratio(figures)

    def standard_error(self, figures_NS: Floats) -> float:
        """That of a binomial share, ``sqrt(p (1 - p) / n)``.

        With Agresti and Coull's (1998) two added successes and failures, so that 100% right does
        not claim certainty.
        """
        n_right, n = figures_NS.sum(axis=0)
        smoothed = (n_right + 2) / (n + 4)
        return math.sqrt(smoothed * (1 - smoothed) / (n + 4))


class LanguageModelling:
    """Cross-entropy of the next token, and bits per byte ``b`` as the share ``2**-b``.

    ``outputs`` are ``(B, T, C)`` logits, targets ``(B, T)`` tokens. Sizes are the bytes of text
    that the targets of a sample stand for, so that figures of different tokenisers compare.
    """

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """See ``Objective.loss``."""
        return F.cross_entropy(
            outputs.flatten(0, -2), targets.flatten(), label_smoothing=label_smoothing
        )

    def outputs(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """See ``Objective.outputs``."""
        return model(inputs)

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """Bits that the targets of each sample take, and its bytes.

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
        """``2**-b`` of ``b`` bits per byte."""
        shares: Floats = np.exp2(-ratio(figures))
        return shares

    def standard_error(self, figures_NS: Floats) -> float:
        """By the jackknife; neighbours in a text are alike, so that it is rather too small."""
        return jackknife(figures_NS, self.quality)


def ratio(figures: Floats) -> Floats:
    """The first figure over the second, of ``(..., 2)``."""
    found: Floats = figures[..., 0] / figures[..., 1]
    return found


def jackknife(figures_NS: Floats, quality: Callable[[Floats], Floats]) -> float:
    """Standard error of ``quality`` of all samples' sum, from leaving each out.

    Infinite for a single sample, of which nothing can be left out.
    """
    n = len(figures_NS)
    if n < 2:
        return math.inf
    without_N = quality(figures_NS.sum(axis=0) - figures_NS)
    return math.sqrt((n - 1) * float(without_N.var()))
