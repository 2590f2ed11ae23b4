"""Transfer learning: one device's predictor as the prior for a second device.

The prior has two kinds of terms. The parts of the first device's prediction (each term times its
cost) keep their proportions; they fit a second device that differs in scale only. Sums of the
terms that share a unit have weakly regularised costs of their own; they fit a device with other
proportions of compute, memory and launches. A dozen rows determine the mixture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from predictors.energy.costs import Array, Terms
from predictors.energy.design import choose_rows, design_features

# Regularisation of the source's parts and of the groups.
_SOURCE_PULL, _GROUP_PULL = 0.5, 0.1
# Prior share of the second device's target that the first one's prediction explains.
_SOURCE_SHARE = 0.6


def transfer_terms(
    terms_NK: Array,
    source_costs_K: Array,
    source_prediction_N: Array,
    groups: Mapping[str, Sequence[int]],
) -> Terms:
    """Return the second device's prior; ``groups`` name columns that share a unit.

    ``source_prediction`` includes the source's residual; its ratio to the sum of the parts scales
    each row.
    """
    parts = terms_NK * source_costs_K
    parts = parts * (source_prediction_N / parts.sum(axis=1))[:, None]
    sums = group_sums(terms_NK, groups)
    size = sums.mean(axis=0)
    # Groups in units of the prediction, so that one prior share fits all.
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
    """Return the sum of each group's columns, shape ``(N, len(groups))``."""
    sums = [terms_NK[:, list(columns)].sum(axis=1) for columns in groups.values()]
    result: Array = np.column_stack(sums) if sums else np.empty((len(terms_NK), 0))
    return result


def rows_to_adapt(
    terms_NK: Array,
    source_prediction_N: Array,
    groups: Mapping[str, Sequence[int]],
    n: int,
) -> list[int]:
    """Return the ``n`` most informative rows to measure on the second device.

    They are V-optimal for the source's prediction and the groups.

    Raises:
        ValueError: there are fewer than ``n`` rows.
    """
    columns = np.column_stack([source_prediction_N, group_sums(terms_NK, groups)])
    return choose_rows(design_features(columns, source_prediction_N, None), n)
