"""Agreement of vectors with those of a reference, or with people's scores of pairs.

* Recall at K: the share of a text's K nearest neighbours by the reference that are among its K
  nearest by the vectors, by cosine similarity, among all other texts; the mean over texts.
* Spearman's rank correlation of the similarities of pairs of texts. Negative ones count as 0.

Shape legend: N texts, W width, K neighbours, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Texts whose similarities to all others are held at once.
_ROWS = 1024
# Pairs of texts whose similarities are ranked, and groups of texts of the jackknife.
_MOST_PAIRS, _GROUPS = 200_000, 20
# The least standard error of a correlation, times the number of samples.
_LEAST_ERROR = 0.1


@dataclass(frozen=True, slots=True)
class Agreement:
    """A quality in [0, 1], its standard error, and each sample's contribution ``(N,)``."""

    value: float
    standard_error: float
    of_samples: Floats


def recall_at(k: int, vectors_NW: Floats, reference_NW: Floats) -> Agreement:
    """Recall at ``k`` of the reference's neighbours.

    Texts are the samples of the standard error, with one found and one missed text added, as
    Agresti and Coull (1998) do for shares: a perfect recall is not certain.

    Raises:
        ValueError: there are not more than ``k`` texts beside each.
    """
    n = len(vectors_NW)
    if n < k + 2:
        raise ValueError(f"recall at {k} must have {k + 2} texts or more, got {n}")
    own_NK, expected_NK = _nearest(vectors_NW, k), _nearest(reference_NW, k)
    found_NK = (own_NK[:, :, None] == expected_NK[:, None, :]).any(axis=2)
    recall_N = found_NK.mean(axis=1)
    smoothed = np.concatenate([recall_N, [0.0, 1.0]])
    error = math.sqrt(float(smoothed.var(ddof=1)) / len(smoothed))
    return Agreement(float(recall_N.mean()), error, recall_N)


def similarity_correlation(vectors_NW: Floats, reference_NW: Floats) -> Agreement:
    """Spearman's correlation of the similarities of texts with those by the reference.

    Of many texts a fixed draw of pairs is ranked. The standard error is a jackknife that deletes
    groups of texts with all of their pairs.

    Raises:
        ValueError: there are fewer than three texts.
    """
    n = len(vectors_NW)
    if n < 3:
        raise ValueError(f"a correlation of similarities must have 3 texts or more, got {n}")
    left_P, right_P = _pairs(n)
    own_P = _similarities(vectors_NW, left_P, right_P)
    expected_P = _similarities(reference_NW, left_P, right_P)
    group_N = np.arange(n) % min(_GROUPS, n)

    def without(group: int) -> NDArray[np.bool_]:
        keeps_P: NDArray[np.bool_] = (group_N[left_P] != group) & (group_N[right_P] != group)
        return keeps_P

    parts_P = _contributions(own_P, expected_P)
    sums_N = np.bincount(left_P, parts_P, n) + np.bincount(right_P, parts_P, n)
    counts_N = np.bincount(left_P, minlength=n) + np.bincount(right_P, minlength=n)
    of_texts_N = sums_N / np.maximum(1, counts_N)
    return _correlated(own_P, expected_P, without, n, of_texts_N)


def pair_correlation(left_PW: Floats, right_PW: Floats, scores_P: Floats) -> Agreement:
    """Spearman's correlation of the similarities of pairs with their scores.

    The samples are the pairs.

    Raises:
        ValueError: there are fewer than three pairs.
    """
    n = len(scores_P)
    if n < 3:
        raise ValueError(f"a correlation with scores must have 3 pairs or more, got {n}")
    own_P = (_unit(left_PW) * _unit(right_PW)).sum(axis=1)
    group_P = np.arange(n) % min(_GROUPS, n)
    parts_P = _contributions(own_P, scores_P)
    return _correlated(own_P, scores_P, lambda group: group_P != group, n, parts_P)


def _correlated(
    own_P: Floats,
    expected_P: Floats,
    without: Callable[[int], NDArray[np.bool_]],
    n_samples: int,
    of_samples: Floats,
) -> Agreement:
    """Return the correlation with its delete-a-group jackknife error (Kott 2001)."""
    n_groups = min(_GROUPS, n_samples)
    masks = [without(group) for group in range(n_groups)]
    left = np.array([_spearman(own_P[m], expected_P[m]) for m in masks if m.sum() > 1])
    error = math.sqrt((n_groups - 1) * float(left.var())) if len(left) else 0.5
    # Never 0: the error of a perfect correlation is a divisor elsewhere.
    error = max(error, _LEAST_ERROR / n_samples)
    return Agreement(max(0.0, _spearman(own_P, expected_P)), error, of_samples)


def _nearest(vectors_NW: Floats, k: int) -> Integers:
    """The ``k`` nearest other rows of each, ``(N, K)``, in no order."""
    unit_NW = _unit(vectors_NW).astype(np.float32)
    nearest = []
    for start in range(0, len(unit_NW), _ROWS):
        similarity_RN = unit_NW[start : start + _ROWS] @ unit_NW.T
        rows_R = np.arange(len(similarity_RN))
        similarity_RN[rows_R, start + rows_R] = -np.inf
        nearest.append(np.argpartition(-similarity_RN, k - 1, axis=1)[:, :k])
    return np.concatenate(nearest)


def _pairs(n: int) -> tuple[Integers, Integers]:
    """Pairs of ``n`` texts, each text in equally many."""
    # The order of a file may be one of topics.
    order_N = np.random.default_rng(0).permutation(n)
    n_offsets = min((n - 1) // 2, max(1, _MOST_PAIRS // n))
    left = [order_N] * n_offsets
    right = [np.roll(order_N, -offset) for offset in range(1, n_offsets + 1)]
    return np.concatenate(left), np.concatenate(right)


def _similarities(vectors_NW: Floats, left_P: Integers, right_P: Integers) -> Floats:
    """Cosines of pairs of rows ``(P,)``."""
    unit_NW = _unit(vectors_NW).astype(np.float32)
    parts = [
        np.einsum("pw,pw->p", unit_NW[left_P[at : at + _ROWS]], unit_NW[right_P[at : at + _ROWS]])
        for at in range(0, len(left_P), _ROWS)
    ]
    return np.concatenate(parts).astype(np.float64)


def _unit(vectors_NW: Floats) -> Floats:
    lengths_N1 = np.linalg.norm(vectors_NW, axis=1, keepdims=True)
    unit_NW: Floats = vectors_NW / np.maximum(lengths_N1, 1e-12)
    return unit_NW


def _ranks(values_P: Floats) -> Floats:
    from scipy.stats import rankdata

    ranks_P: Floats = rankdata(values_P)
    return ranks_P


def _spearman(one_P: Floats, other_P: Floats) -> float:
    """Pearson's correlation of ranks; 0 where one side is constant."""
    ranks = [_ranks(values) - (len(values) + 1) / 2 for values in (one_P, other_P)]
    size = math.sqrt(float((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum()) / size if size > 0 else 0.0


def _contributions(one_P: Floats, other_P: Floats) -> Floats:
    """What each pair adds to ``1 - 6 mean(d^2) / (P^2 - 1)``, with ``d`` the ranks' distance."""
    n = len(one_P)
    distance_P = _ranks(one_P) - _ranks(other_P)
    return 1 - 6 * distance_P**2 / (n**2 - 1)
