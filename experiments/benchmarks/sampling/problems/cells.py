"""A full grid of cells with made-up accuracies and joules.

The rows are the 15,625 cells of NAS-Bench-201 (Dong & Yang 2020): one of five operations on each
of the six edges between four vertices. Accuracy follows from the paths from input to output;
joules follow from a count of operations and span some 25 times. Both have an effect of each row
that no law explains.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

OPERATIONS = ("none", "skip", "conv1x1", "conv3x3", "avgpool")
_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_PATHS = (((0, 3),), ((0, 1), (1, 3)), ((0, 2), (2, 3)), ((0, 1), (1, 2), (2, 3)))
_STRENGTH, _COST = (np.nan, 0.0, 0.45, 1.0, 0.1), (0.0, 0.05, 0.6, 4.0, 0.3)
_CHANCE, _ACCURACY_SD, _JOULE_SD, _SEED = 0.10, 0.003, 0.02, 0


def cell_table(seed: int = _SEED) -> pd.DataFrame:
    """Return the table: six operations, ``accuracy`` and ``energy_j``; ``seed`` is of effects."""
    rng = np.random.default_rng(seed)
    codes = np.array(list(product(range(len(OPERATIONS)), repeat=len(_EDGES))))
    accuracy, is_connected = _accuracy(codes)
    accuracy += _ACCURACY_SD * rng.standard_normal(len(codes)) * is_connected
    energy_j = 0.05 * (1 + np.array(_COST)[codes].sum(axis=1))
    energy_j *= np.exp(_JOULE_SD * rng.standard_normal(len(codes)))
    columns = {
        f"edge_{a}_{b}": np.array(OPERATIONS)[codes[:, i]] for i, (a, b) in enumerate(_EDGES)
    }
    return pd.DataFrame(columns | {"accuracy": accuracy.round(5), "energy_j": energy_j.round(6)})


def _accuracy(
    codes_NE: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return accuracies, and which cells have a path from input to output."""
    strength = np.array(_STRENGTH)[codes_NE]
    # An edge without an operation makes each path through it NaN.
    paths = np.stack([sum(strength[:, _EDGES.index(e)] for e in path) for path in _PATHS])
    is_path = ~np.isnan(paths)
    depth = np.where(is_path, paths, 0).max(axis=0)
    total, n_paths = np.where(is_path, paths, 0).sum(axis=0), is_path.sum(axis=0)
    is_residual = codes_NE[:, _EDGES.index((0, 3))] == OPERATIONS.index("skip")
    capability = 1.1 * depth + 0.25 * total + 0.3 * is_residual + 0.1 * n_paths
    # Without a residual connection the deepest cells train worse; pooling loses detail.
    strain = 0.01 * np.maximum(depth - 2.2, 0) * ~is_residual
    n_pools = (codes_NE == OPERATIONS.index("avgpool")).sum(axis=1)
    accuracy = 0.94 - 0.30 * np.exp(-0.9 * capability) - strain - 0.012 * n_pools
    return np.where(n_paths > 0, accuracy, _CHANCE), n_paths > 0
