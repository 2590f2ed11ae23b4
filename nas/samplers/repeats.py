"""Probability that a candidate repeats an evaluated row although it is written differently.

In a table of graphs many encodings are one graph, and a sparse table answers with its nearest
row. A sampler sees neither rule, only that the same values come back. The groups of trials with
equal values are modelled as a distance-dependent Chinese restaurant process (Blei & Frazier 2011):
a trial joins the group of an earlier trial with weight ``exp(-d)``, and is new with weight
``alpha``. The distance ``d`` has a weight for each parameter, fitted to the trials, so a parameter
without effect soon has none. Expected improvement times the probability to be new is the
acquisition, as is usual for unknown constraints (Gelbart, Snoek & Adams 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from nas.samplers.parameters import Parameters

Array = NDArray[np.float64]

# Fewer repeats may be chance.
_LEAST_REPEATS = 2
# Latest trials that the distance is fitted to, and that candidates are compared with.
_MOST_FITTED, _MOST_COMPARED, _MOST_STEPS = 200, 500, 40
# Prior means and deviations: logarithms of alpha, of the common weight, and of each weight's
# factor to it.
_ALPHA, _COMMON, _OWN = (-1.0, 2.0), (0.0, 2.0), (0.0, 1.0)


class Repeats:
    """Groups of trials with equal values, and the probability that a candidate is in none."""

    def __init__(self, parameters: Parameters) -> None:
        """Start without trials; all candidates are new."""
        self._parameters = parameters
        self.clear()

    def clear(self) -> None:
        """Remove all trials."""
        width = len(self._parameters)
        self._rows, self._group = np.empty((0, width)), np.empty(0, dtype=np.int64)
        self._group_of: dict[bytes, int] = {}
        self._n_seen = 0
        # Logarithms: alpha, the common weight, and factors for ``[x != x']`` and ``(x - x')**2``.
        self._vector = np.array([_ALPHA[0], _COMMON[0], *[_OWN[0]] * (2 * width)])
        self._n_fitted = 0

    @property
    def n_repeats(self) -> int:
        """Number of trials with the values of an earlier one."""
        return self._n_seen - len(self._group_of)

    def add(self, rows_NP: Array, values_NM: Array) -> None:
        """Add trials in their order; rows are canonical, and equal values are one row."""
        groups = []
        for value in np.ascontiguousarray(values_NM + 0.0):
            groups.append(self._group_of.setdefault(value.tobytes(), len(self._group_of)))
        self._n_seen += len(groups)
        self._rows = np.vstack([self._rows, rows_NP])[-_MOST_COMPARED:]
        self._group = np.concatenate([self._group, groups])[-_MOST_COMPARED:].astype(np.int64)

    def fitted(self, pending_QP: Array) -> Novelty | None:
        """Return the model of new candidates; ``None`` while there are too few repeats."""
        if self.n_repeats < _LEAST_REPEATS:
            return None
        if self._n_seen >= self._n_fitted + max(1, self._n_fitted // 10):
            self._n_fitted = self._n_seen
            self._fit()
        return Novelty(self, np.vstack([self._rows, pending_QP]))

    def affinity(self, a_NP: Array, b_MP: Array) -> Array:
        """Return the weights ``exp(-d) / alpha`` of pairs of rows, ``(N, M)``."""
        weights = _weights(self._vector)
        distance = np.full((len(a_NP), len(b_MP)), self._vector[0])
        for index in range(a_NP.shape[1]):
            differs, squared = self._apart(a_NP, b_MP, index)
            distance += weights[2 * index] * differs + weights[2 * index + 1] * squared
        affinity: Array = np.exp(-distance)
        return affinity

    def _apart(self, a_NP: Array, b_MP: Array, index: int) -> tuple[Array, Array]:
        column = self._parameters.columns[index]
        a, b = a_NP[:, index, None], b_MP[None, :, index]
        absent = np.isnan(a) | np.isnan(b)
        both = np.isnan(a) & np.isnan(b)
        differs = np.where(both, 0.0, np.where(absent, 1.0, a != b))
        if column.n_choices is None:
            # Almost all continuous values differ; how far apart they are matters.
            return np.where(absent & ~both, 1.0, 0.0), np.where(absent, 0.0, (a - b) ** 2)
        if column.scale is None:
            return differs, np.zeros_like(differs)
        scale = np.array([*column.scale, np.nan])
        near = (
            scale[np.nan_to_num(a, nan=-1).astype(int)]
            - scale[np.nan_to_num(b, nan=-1).astype(int)]
        )
        return differs, np.where(absent, 0.0, near**2)

    def _fit(self) -> None:
        rows, group = self._rows[-_MOST_FITTED:], self._group[-_MOST_FITTED:]
        later, earlier = np.tril_indices(len(rows), -1)
        parts = [self._apart(rows, rows, index) for index in range(rows.shape[1])]
        apart_KI = np.stack([x[later, earlier] for part in parts for x in part])
        same = group[later] == group[earlier]
        has_earlier = np.bincount(later, same, len(rows)) > 0
        result = minimize(
            _loss,
            self._vector,
            args=(apart_KI, later, same, has_earlier),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _MOST_STEPS},
        )
        if np.isfinite(result.fun):
            self._vector = result.x


class Novelty:
    """Probability that candidates are new, given evaluated and pending rows."""

    def __init__(self, repeats: Repeats, members_NP: Array) -> None:
        """Compare candidates with ``members``."""
        self._repeats, self._members = repeats, members_NP

    def __call__(self, rows_CP: Array) -> Array:
        """Return the probability of each candidate to be new, ``(C,)``."""
        total = self._repeats.affinity(rows_CP, self._members).sum(axis=1)
        probability: Array = 1 / (1 + total)
        return probability

    def joined(self, rows_NP: Array) -> Novelty:
        """Return the model with ``rows`` as further members."""
        return Novelty(self._repeats, np.vstack([self._members, rows_NP]))


def _weights(vector: Array) -> Array:
    weights: Array = np.exp(vector[1] + vector[2:])
    return weights


def _loss(
    vector: Array,
    apart_KI: Array,
    later_I: NDArray[np.int64],
    same_I: NDArray[np.bool_],
    has_earlier_N: NDArray[np.bool_],
) -> tuple[float, Array]:
    """Return the negative log posterior density of log weights, and its gradient."""
    weights, n = _weights(vector), len(has_earlier_N)
    affinity = np.exp(-(weights @ apart_KI) - vector[0])
    total = 1 + np.bincount(later_I, affinity, n)
    joined = np.bincount(later_I, affinity * same_I, n)
    tiny = np.finfo(float).tiny
    value = float(np.log(total).sum() - np.log(joined[has_earlier_N] + tiny).sum())
    # d value / d log(affinity) of each pair.
    slope = affinity / total[later_I]
    slope -= affinity * same_I / (joined[later_I] + tiny)
    by_weight = -(apart_KI @ slope) * weights
    gradient = np.concatenate([[-slope.sum(), by_weight.sum()], by_weight])
    middle = np.array([_ALPHA[0], _COMMON[0], *[_OWN[0]] * len(weights)])
    width = np.array([_ALPHA[1], _COMMON[1], *[_OWN[1]] * len(weights)])
    deviation = (vector - middle) / width
    return value + 0.5 * float(deviation @ deviation), gradient + deviation / width
