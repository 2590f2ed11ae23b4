"""Boosted oblivious trees: one split per level, so that a tree is a lookup table.

Boosting after Friedman 2001. Oblivious (symmetric) trees (Kohavi 1994; Prokhorenkova et al. 2018)
regularise strongly, which suits tables of some hundred rows. They are plain arrays, so that an
artifact needs no pickle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TREES = 100
_DEPTH = 3
_RATE = 0.08
_BINS = 32
# Shrinkage of a leaf's mean towards zero, in rows.
_SHRINK = 3.0
_ROW_SHARE = 0.8


@dataclass(frozen=True)
class Trees:
    """A sum of trees; ``feature`` and ``threshold`` have shape ``(T, depth)``.

    ``leaf`` has shape ``(T, 2**depth)``; the first level is the lowest bit.

    Raises:
        ValueError: the shapes do not match.
    """

    feature: NDArray[np.int64]
    threshold: Array
    leaf: Array

    def __post_init__(self) -> None:
        shapes = self.feature.shape, self.threshold.shape, self.leaf.shape
        if shapes[0] != shapes[1] or shapes[2] != (len(self.feature), 2 ** shapes[0][-1]):
            raise ValueError(
                f"trees must have splits (T, depth) and leaves (T, 2**depth), got "
                f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
            )

    @classmethod
    def fit(cls, rows_NF: Array, target_N: Array, weight_N: Array, seed: int) -> Trees:
        """Fit to ``target`` with weights; the result is deterministic in ``seed``."""
        rng = np.random.default_rng(seed)
        n, n_features = rows_NF.shape
        edges = [_edges(rows_NF[:, f]) for f in range(n_features)]
        binned = np.stack(
            [np.searchsorted(edges[f], rows_NF[:, f], side="left") for f in range(n_features)], 1
        )
        weight = weight_N / weight_N.mean()
        # Each split that is possible, by its feature and bin, and the rows below it.
        feature = np.repeat(np.arange(n_features), [len(edge) for edge in edges])
        bins = np.concatenate([np.arange(len(edge)) for edge in edges]).astype(np.int64)
        below_NS = (binned[:, feature] <= bins).astype(float)
        residual = target_N.copy()
        features, thresholds, leaves = [], [], []
        for _ in range(_TREES):
            drawn = weight * (rng.random(n) < _ROW_SHARE)
            split, leaf_N = _grow(below_NS, residual, drawn)
            sums = np.bincount(leaf_N, drawn * residual, 2**_DEPTH)
            masses = np.bincount(leaf_N, drawn, 2**_DEPTH)
            values = _RATE * sums / (masses + _SHRINK)
            residual -= values[leaf_N]
            # Where all features are constant there is no split: all rows fall on one side.
            features.append([int(feature[s]) if s >= 0 else 0 for s in split])
            thresholds.append([edges[feature[s]][bins[s]] if s >= 0 else np.inf for s in split])
            leaves.append(values)
        return cls(np.array(features), np.array(thresholds), np.array(leaves))

    def predict(self, rows_NF: Array) -> Array:
        """Return the sum over trees, shape ``(N,)``."""
        columns = np.asfortranarray(rows_NF)
        total = np.zeros(len(rows_NF))
        for feature, threshold, leaf in zip(self.feature, self.threshold, self.leaf, strict=True):
            index = np.zeros(len(rows_NF), dtype=np.uint8)
            for level in range(len(feature)):
                above = columns[:, feature[level]] > threshold[level]
                index |= above.view(np.uint8) << level
            total += leaf[index]
        return total


def _edges(column: Array) -> Array:
    """Return up to ``_BINS - 1`` thresholds between the distinct values of a feature."""
    values = np.unique(column)
    middles = (values[1:] + values[:-1]) / 2
    if len(middles) < _BINS:
        edges: Array = middles
        return edges
    quantiles = np.quantile(column, np.linspace(0, 1, _BINS + 1)[1:-1])
    edges = np.unique(middles[np.searchsorted(middles, quantiles).clip(0, len(middles) - 1)])
    return edges


def _grow(below_NS: Array, residual: Array, weight: Array) -> tuple[list[int], NDArray[np.int64]]:
    """Grow one tree; return each level's split (-1 if there is none) and each row's leaf."""
    n, n_splits = below_NS.shape
    leaf = np.zeros(n, dtype=np.int64)
    splits: list[int] = []
    for level in range(_DEPTH):
        n_leaves = 2**level
        if not n_splits:
            splits.append(-1)
            continue
        members = (leaf == np.arange(n_leaves)[:, None]) * weight
        both = np.vstack([members * residual, members])
        total, below = both.sum(axis=1)[:, None], both @ below_NS
        above = total - below
        gain = below[:n_leaves] ** 2 / (below[n_leaves:] + _SHRINK)
        gain += above[:n_leaves] ** 2 / (above[n_leaves:] + _SHRINK)
        best = int(gain.sum(axis=0).argmax())
        splits.append(best)
        leaf += (below_NS[:, best] == 0).astype(np.int64) << level
    return splits, leaf
