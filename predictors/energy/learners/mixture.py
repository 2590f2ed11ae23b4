"""Weights of learners, from their predictions of held-out rows.

Ensemble selection (Caruana et al. 2004): learners are added one by one, with replacement, so that
the mean absolute error of the mean of all falls most. It is averaged over bootstrap samples of the
rows, and shrunk to one simple model, since with few rows the errors that select are too small.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from predictors.energy.learners.ensemble import LINE, NOTHING

Array = NDArray[np.float64]

_SAMPLES = 20
_ROUNDS = 10


def mixture(
    held_out: Mapping[str, Array], truth_N: Array, weight_N: Array, seed: int
) -> dict[str, float]:
    """Return the weight of each learner; they sum to 1.

    The selected mixture retains ``1 - (se / gain)**2`` of its weight. ``gain`` is the reduction of
    the mean absolute error relative to the better of the prior alone and the line, and ``se`` is
    its standard error. The rest is that model's.
    """
    names = list(held_out)
    predictions = np.stack([held_out[name] for name in names])
    weight = weight_N / weight_N.mean()
    shares = _selected(predictions, truth_N, weight, seed)
    error = weight * np.abs(truth_N - predictions)
    simple = min((names.index(name) for name in (NOTHING, LINE)), key=lambda i: error[i].sum())
    gain = error[simple] - weight * np.abs(truth_N - shares @ predictions)
    doubt = float(gain.std(ddof=1)) / np.sqrt(len(gain))
    trust = max(0.0, 1 - (doubt / float(gain.mean())) ** 2) if gain.mean() > 0 else 0.0
    shares = trust * shares
    shares[simple] += 1 - trust
    return {name: float(share) for name, share in zip(names, shares, strict=True)}


def _selected(predictions_LN: Array, truth: Array, weight: Array, seed: int) -> Array:
    """Return the mean share of each learner over bootstrap samples, shape ``(L,)``."""
    n_learners, n = predictions_LN.shape
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=_SAMPLES) * weight
    counts, total = np.zeros((_SAMPLES, n_learners)), np.zeros((_SAMPLES, n))
    for step in range(1, _ROUNDS + 1):
        mean = (total[:, None] + predictions_LN) / step
        errors = np.einsum("bln,bn->bl", np.abs(truth - mean), drawn)
        best = errors.argmin(axis=1)
        counts[np.arange(_SAMPLES), best] += 1
        total += predictions_LN[best]
    shares: Array = counts.mean(axis=0) / _ROUNDS
    return shares
