"""From one device to another: what the first one taught, as a prior for the second.

The first device's parts of the prediction (each term times its cost) are held together, and sums
of the terms that share a unit stand beside them with loose costs of their own: a second device
that is the same but for speed needs the one, a device that weighs computing, memory and launches
otherwise the other. A dozen rows decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from predictors.energy.costs import Array
from predictors.energy.design import choose_rows, design_features
from predictors.energy.regressor import Terms

# How firmly the source's parts keep their proportion, and how loosely the groups are held.
_SOURCE_PULL, _GROUP_PULL = 0.5, 0.1
# Of the second device's target, how much the first one's prediction is thought to explain.
_SOURCE_SHARE = 0.6


def transfer_terms(
    terms_NK: Array,
    source_costs_K: Array,
    source_prediction_N: Array,
    groups: Mapping[str, Sequence[int]],
) -> Terms:
    """The second device's prior; ``groups`` name columns that share a unit.

    ``source_prediction`` includes what the source learned beyond its costs: its ratio to the sum
    of the parts scales them row by row.
    """
    parts = terms_NK * source_costs_K
    parts = parts * (source_prediction_N / parts.sum(axis=1))[:, None]
    sums = group_sums(terms_NK, groups)
    size = sums.mean(axis=0)
    # Groups in units of the prediction, so that one proportion serves any of them.
    unit = np.where(size > 0, float(source_prediction_N.mean()) / np.where(size > 0, size, 1), 1.0)
    n_groups = max(1, len(groups))
    return Terms(
        np.hstack([parts, sums]),
        np.concatenate(
            [np.full(parts.shape[1], _SOURCE_SHARE), (1 - _SOURCE_SHARE) / n_groups * unit]
        ),
        np.concatenate([np.full(parts.shape[1], _SOURCE_PULL), np.full(len(groups), _GROUP_PULL)]),
    )


def group_sums(terms_NK: Array, groups: Mapping[str, Sequence[int]]) -> Array:
    """The sum of each group's columns, shape ``(N, len(groups))``."""
    sums = [terms_NK[:, list(columns)].sum(axis=1) for columns in groups.values()]
    found: Array = np.column_stack(sums) if sums else np.empty((len(terms_NK), 0))
    return found


def rows_to_adapt(
    terms_NK: Array,
    source_prediction_N: Array,
    groups: Mapping[str, Sequence[int]],
    n: int,
) -> list[int]:
    """Positions of the ``n`` rows that, once measured, tell most of the second device.

    V-optimal for the source's prediction and the groups.

    Raises:
        ValueError: fewer than ``n`` rows.
    """
    columns = np.column_stack([source_prediction_N, group_sums(terms_NK, groups)])
    return choose_rows(design_features(columns, source_prediction_N, None), n)
