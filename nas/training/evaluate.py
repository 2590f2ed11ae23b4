"""Accuracy of a callable model on a split, with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.tasks.base import Split


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of samples classified right, in [0, 1], with the standard error of that share.

    The error is that of a binomial share, ``sqrt(p (1 - p) / n)`` with Agresti and Coull's
    (1998) two added successes and failures, so that 100% right does not claim certainty.
    ``right``, of shape ``(n_samples,)``, says which samples were right, in the split's order.
    """

    value: float
    standard_error: float
    n_samples: int
    right: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)


def evaluate(
    model: Callable[[Tensor], Tensor], split: Split, *, batch_size: int, device: str = "cpu"
) -> Accuracy:
    """Accuracy of ``model`` on ``split``.

    Every batch has exactly ``batch_size`` samples, the last one padded with copies of the first
    sample, because compiled and graphed models accept one shape only.

    Raises:
        ValueError: the model's output holds a value that is not finite.
    """
    right_N = np.zeros(len(split), dtype=bool)
    inputs = torch.from_numpy(split.inputs)
    with torch.inference_mode():
        for start in range(0, len(split), batch_size):
            batch = inputs[start : start + batch_size]
            n_real = len(batch)
            if n_real < batch_size:
                filler = batch[:1].expand(batch_size - n_real, *batch.shape[1:])
                batch = torch.cat([batch, filler])
            logits = model(batch.to(device))[:n_real].float().cpu()
            if not bool(torch.isfinite(logits).all()):
                raise ValueError("model outputs must be finite, got NaN or infinity")
            predicted = logits.argmax(dim=-1).numpy()
            right_N[start : start + n_real] = predicted == split.targets[start : start + n_real]
    return replace(_share(int(right_N.sum()), len(split)), right=right_N)


def _share(n_right: int, n: int) -> Accuracy:
    smoothed = (n_right + 2) / (n + 4)
    return Accuracy(n_right / n, math.sqrt(smoothed * (1 - smoothed) / (n + 4)), n)


def one_sample(n_samples: int) -> float:
    """The smallest step of an accuracy over ``n_samples``, with room for rounding."""
    return 1.001 / n_samples
