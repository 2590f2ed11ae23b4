"""Evaluate the quality of a callable model on a split, with its standard error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.tasks.base import Split
from nas.training.objective import Classification, Objective, quality_of


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality in [0, 1], with its standard error.

    ``scores``, of shape ``(n_samples,)``, contains the quality of each single sample, in the
    split's order: for classification 1 if it is right, else 0.
    """

    value: float
    standard_error: float
    n_samples: int
    scores: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


def evaluate(
    model: Callable[[Tensor], Tensor],
    split: Split,
    *,
    batch_size: int,
    objective: Objective | None = None,
    device: str = "cpu",
) -> Quality:
    """Evaluate ``model`` on ``split`` by ``objective``, classification by default.

    Every batch has exactly ``batch_size`` samples, the last one padded with copies of the first
    sample, because compiled and graphed models accept one shape only.

    Raises:
        ValueError: an output of the model is not finite.
    """
    chosen = Classification() if objective is None else objective
    figures = []
    inputs = torch.from_numpy(split.inputs)
    with torch.inference_mode():
        for start in range(0, len(split), batch_size):
            batch = inputs[start : start + batch_size]
            end = start + len(batch)
            n_real = len(batch)
            if n_real < batch_size:
                filler = batch[:1].expand(batch_size - n_real, *batch.shape[1:])
                batch = torch.cat([batch, filler])
            outputs = chosen.outputs(model, batch.to(device))[:n_real].float().cpu()
            if not bool(torch.isfinite(outputs).all()):
                raise ValueError("model outputs must be finite, got NaN or infinity")
            sizes = None if split.sizes is None else split.sizes[start:end]
            figures.append(chosen.figures(outputs, split.targets[start:end], sizes))
    figures_NS = np.concatenate(figures)
    return Quality(
        quality_of(chosen, figures_NS),
        chosen.standard_error(figures_NS),
        len(split),
        chosen.quality(figures_NS).astype(np.float32),
    )


def one_sample(n_samples: int) -> float:
    """Return the smallest difference of two accuracies over ``n_samples``, plus rounding."""
    return 1.001 / n_samples
