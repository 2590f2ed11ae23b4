"""Exact expected hypervolume improvement for independent objectives.

The non-dominated region is decomposed into boxes. The improvement by a point is a sum over boxes
of products of lengths, one per objective, so its expectation is a sum of products of
``E[(a - Y)+]`` (Emmerich, Deutz & Klinkenberg 2011; Yang et al. 2019). All objectives are losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nas.pareto.dominance import non_dominated_mask

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Marginal:
    """Marginal distribution of one objective's loss at ``C`` candidates.

    The loss is normal with ``mean`` and ``sd``; with ``is_log`` its logarithm is.
    """

    mean: Array
    sd: Array
    is_log: bool = False

    def expected_below(self, bounds_B: Array) -> Array:
        """Return ``E[(a - Y)+]`` for each bound ``a``, ``(B, C)``; 0 for minus infinity."""
        expectation = np.zeros((len(bounds_B), len(self.mean)))
        finite = bounds_B > (0 if self.is_log else -np.inf)
        bounds = bounds_B[finite, None]
        if self.is_log:
            z = (np.log(bounds) - self.mean) / self.sd
            mean_loss = np.exp(np.minimum(self.mean + self.sd**2 / 2, 700))
            expectation[finite] = bounds * ndtr(z) - mean_loss * ndtr(z - self.sd)
        else:
            z = (bounds - self.mean) / self.sd
            density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
            expectation[finite] = self.sd * (z * ndtr(z) + density)
        return np.maximum(expectation, 0)


def boxes(front_FM: Array, reference_M: Array) -> tuple[Array, Array]:
    """Decompose the region below ``reference`` that ``front`` does not dominate into boxes.

    Returns:
        Lower bounds (minus infinity where open) and upper bounds, ``(B, M)`` each. Two objectives
        need one box more than the front has members; each further objective multiplies the count.
    """
    inside = front_FM[np.all(front_FM < reference_M, axis=1)]
    if len(reference_M) == 1:
        upper = min([*inside[:, 0], reference_M[0]])
        return np.array([[-np.inf]]), np.array([[upper]])
    inside = inside[np.argsort(inside[:, -1], kind="stable")]
    # Slices between consecutive last losses: members below a slice bound the other objectives.
    low = np.concatenate([[-np.inf], inside[:, -1]])
    high = np.append(inside[:, -1], reference_M[-1])
    if len(reference_M) == 2:
        first = np.minimum.accumulate(np.append(reference_M[0], inside[:, 0]))
        lows, highs = [np.full(len(low), -np.inf), low], [first, high]
        is_open = high > low
        return np.column_stack(lows)[is_open], np.column_stack(highs)[is_open]
    parts = []
    for index in np.flatnonzero(high > low):
        below = inside[:index, :-1]
        below = below[non_dominated_mask(below, (False,) * below.shape[1])]
        sub_low, sub_high = boxes(below, reference_M[:-1])
        ends = np.full((2, len(sub_low)), [[low[index]], [high[index]]])
        parts.append((np.column_stack([sub_low, ends[0]]), np.column_stack([sub_high, ends[1]])))
    return np.vstack([low for low, _ in parts]), np.vstack([high for _, high in parts])


def expected_improvement(marginals: list[Marginal], lows_BM: Array, highs_BM: Array) -> Array:
    """Return the expected hypervolume improvement of each candidate over ``boxes``, ``(C,)``."""
    product: Array | float = 1.0
    for objective, marginal in enumerate(marginals):
        # Boxes share edges: compute the expectation of each edge once.
        edges, positions = np.unique(
            np.concatenate([lows_BM[:, objective], highs_BM[:, objective]]), return_inverse=True
        )
        below = marginal.expected_below(edges)
        low, high = positions[: len(lows_BM)], positions[len(lows_BM) :]
        product = product * (below[high] - below[low])
    improvement: Array = np.asarray(product).sum(axis=0)
    return improvement
