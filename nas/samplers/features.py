"""Features of rows for the surrogates.

An ordered parameter has two features, its value and its square; a categorical parameter has one
for each choice. Parameters whose names differ only in a number (``layer3.heads``,
``layer4.heads``) form a *series*, which adds mean, slope and curvature as features: a few rows
suffice to fit an effect that all layers share. Most of the effect is expected there, so the prior
relevance is higher for means and lower for members.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_legendre

from nas.samplers.parameters import Parameter, Parameters

Array = NDArray[np.float64]
# Maps rows ``(N, P)`` to rows.
RowMap = Callable[[Array], Array]

_LEAST_SERIES = 3
_ORDERS = 3
# Added to the prior mean of log relevance, for the means of a series and for its members.
_MEANS_SHIFT, _MEMBERS_SHIFT = 2.0, -2.0


class Features:
    """Map of rows ``(N, P)`` to standardised features ``(N, F)``."""

    def __init__(
        self, parameters: Parameters, reference_NP: Array, extra: RowMap | None = None
    ) -> None:
        """Standardise by the random rows ``reference``; ``extra`` computes further features."""
        self._tables = [_table(column) for column in parameters.columns]
        self._series = _series(parameters)
        self._extra = extra
        raw = self._raw(reference_NP)
        spread = raw.std(axis=0)
        self._varies = spread > 1e-9
        self._mean, self._spread = raw[:, self._varies].mean(axis=0), spread[self._varies]
        #: Added to the prior mean of each feature's log relevance, shape ``(F,)``.
        self.expected = self._expected(raw.shape[1])[self._varies]

    def __call__(self, rows_NP: Array) -> Array:
        """Return the features of ``rows``; absent parameters count as average."""
        features: Array = (self._raw(rows_NP)[:, self._varies] - self._mean) / self._spread
        return features

    def _expected(self, n_raw: int) -> Array:
        widths = [2 if table is None else table.shape[1] for table in self._tables]
        members = {index for series in self._series for index in series}
        parts = [
            np.full(width, _MEMBERS_SHIFT if index in members else 0.0)
            for index, width in enumerate(widths)
        ]
        for series in self._series:
            # In the order of ``_summary``: means of all parts, slopes, curvatures.
            summary = np.zeros((_ORDERS, widths[series[0]]))
            summary[0] = _MEANS_SHIFT
            parts.append(summary.ravel())
        expected = np.zeros(n_raw)
        own = np.concatenate(parts)
        expected[: len(own)] = own
        return expected

    def _raw(self, rows_NP: Array) -> Array:
        parts = [self._part(rows_NP[:, i], table) for i, table in enumerate(self._tables)]
        blocks = [np.nan_to_num(part) for part in parts]
        blocks += [_summary(np.stack([parts[i] for i in series], 1)) for series in self._series]
        if self._extra is not None:
            blocks.append(self._extra(rows_NP))
        return np.hstack(blocks)

    @staticmethod
    def _part(column_N: Array, table: Array | None) -> Array:
        if table is None:
            # Positions are uniform in [0, 1]: the square's mean is 1 / 12.
            linear = column_N - 0.5
            return np.column_stack([linear, linear**2 - 1 / 12])
        absent = np.isnan(column_N)
        part: Array = table[np.where(absent, 0, column_N).astype(int)]
        part[absent] = np.nan
        return part


def _table(column: Parameter) -> Array | None:
    """Return centred features of each choice, ``None`` for a continuous parameter."""
    if column.n_choices is None:
        return None
    if column.scale is not None:
        table = _with_square(np.array(column.scale))
    elif column.n_choices <= 2:
        table = np.arange(column.n_choices, dtype=float)[:, None]
    else:
        table = np.eye(column.n_choices)
    centred: Array = table - table.mean(axis=0)
    return centred


def _with_square(scale_V: Array) -> Array:
    """Return the scale and the non-linear part of its square, for optima inside the range."""
    linear = scale_V - scale_V.mean()
    square = linear**2
    square -= square.mean()
    square -= linear * (linear @ square) / (linear @ linear)
    return np.column_stack([linear, square])


def _series(parameters: Parameters) -> list[list[int]]:
    """Return the columns of each series, ordered by the number in their names."""
    by_stem: dict[tuple[object, ...], list[tuple[int, int]]] = defaultdict(list)
    for index, column in enumerate(parameters.columns):
        for match in re.finditer(r"\d+", column.name):
            stem = column.name[: match.start()] + "#" + column.name[match.end() :]
            key = (stem, column.n_choices, column.scale)
            by_stem[key].append((int(match.group()), index))
    return [
        [index for _, index in sorted(members)]
        for members in by_stem.values()
        if len(members) >= _LEAST_SERIES
    ]


def _summary(series_NSK: Array) -> Array:
    """Return Legendre coefficients over the active part of a series, ``(N, K * 3)``."""
    active_NS = ~np.isnan(series_NSK[:, :, 0])
    count_N = np.maximum(active_NS.sum(axis=1), 1)
    position_NS = np.cumsum(active_NS, axis=1) - 1
    last_N = np.maximum(count_N - 1, 1)
    x_NS = np.clip(2 * position_NS / last_N[:, None] - 1, -1, 1)
    values_NSK = np.nan_to_num(series_NSK)
    weights = [
        eval_legendre(order, x_NS) * active_NS / count_N[:, None] for order in range(_ORDERS)
    ]
    return np.hstack([np.einsum("ns,nsk->nk", weight, values_NSK) for weight in weights])
