"""Evaluated rows, and an archive that selects the surrogates' training rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nas.pareto.dominance import non_dominated_mask
from nas.samplers.parameters import keys

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluated:
    """Rows with their losses and the noise variance of each loss, ``(N, M)``.

    A constraint, ``(N, K)``, is met if its value is at most 0. NaN marks an unknown constraint,
    and in prior trials an unknown loss.
    """

    rows: Array
    losses: Array
    variance: Array
    constraints: Array

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def is_feasible(self) -> NDArray[np.bool_]:
        """Mask of the rows that violate no known constraint."""
        broken: NDArray[np.bool_] = np.any(self.constraints > 0, axis=1)
        return ~broken

    def at(self, chosen: NDArray[np.int64] | slice) -> Evaluated:
        """Return the rows at ``chosen`` positions."""
        return Evaluated(
            self.rows[chosen], self.losses[chosen], self.variance[chosen], self.constraints[chosen]
        )

    def joined(self, others: Evaluated) -> Evaluated:
        """Return these rows followed by ``others``, whose constraints are unknown."""
        unknown = np.full((len(others), self.constraints.shape[1]), np.nan)
        return self.extended(replace(others, constraints=unknown))

    def extended(self, others: Evaluated) -> Evaluated:
        """Return these rows followed by ``others``, which have the same constraints."""
        return Evaluated(
            np.vstack([self.rows, others.rows]),
            np.vstack([self.losses, others.losses]),
            np.vstack([self.variance, others.variance]),
            np.vstack([self.constraints, others.constraints]),
        )


class Archive:
    """Rows of a growing study; each is converted to its canonical form once.

    ``used`` contains the surrogates' training rows: the ``most`` rows of best non-dominated rank.
    An excluded row never returns, since later rows can only worsen its rank. ``keys`` contains
    the keys of all rows.
    """

    def __init__(self, most: int) -> None:
        """Create an empty archive."""
        self._most = most
        self.keys: set[bytes] = set()
        self.used: Evaluated | None = None
        self._n_done, self._n_avoided = 0, 0

    def learn(
        self, done: Evaluated, avoid: Array | None, form: Callable[[Array], Array]
    ) -> Evaluated:
        """Add the new rows at the ends of ``done`` and ``avoid``, and return ``used``."""
        used = self.used
        n_constraints = done.constraints.shape[1]
        if (
            used is None
            or len(done) < self._n_done
            or used.constraints.shape[1] != n_constraints
            or (avoid is not None and len(avoid) < self._n_avoided)
        ):
            # Another study, or a new constraint: read all rows again.
            self.keys = set()
            self._n_done, self._n_avoided = 0, 0
            used = done.at(slice(0, 0))
        new = done.at(slice(self._n_done, None))
        self._n_done = len(done)
        if len(new):
            new = replace(new, rows=form(new.rows))
            self.keys.update(keys(new.rows))
            used = used.extended(new)
            used = used.at(relevant(used.losses, self._most))
        if avoid is not None and len(avoid) > self._n_avoided:
            self.keys.update(keys(form(avoid[self._n_avoided :])))
            self._n_avoided = len(avoid)
        self.used = used
        return used


class KeySet:
    """Growing set of keys on top of several shared sets, which are not copied."""

    def __init__(self, *sets: set[bytes]) -> None:
        """Start with ``sets``, which are never modified."""
        self._sets, self._added = sets, set[bytes]()

    def __contains__(self, key: bytes) -> bool:
        """Return whether ``key`` is in one of the sets or was added."""
        return key in self._added or any(key in keys for keys in self._sets)

    def add(self, key: bytes) -> None:
        """Add ``key``."""
        self._added.add(key)

    def copy(self) -> KeySet:
        """Return an independent copy."""
        return KeySet(*self._sets, set(self._added))


def relevant(losses_NM: Array, most: int) -> NDArray[np.int64]:
    """Return the positions of the ``most`` rows of best non-dominated rank (Goldberg 1989)."""
    n = len(losses_NM)
    if n <= most:
        return np.arange(n)
    if losses_NM.shape[1] == 1:
        return np.sort(np.argsort(losses_NM[:, 0], kind="stable")[:most])
    left, chosen = np.arange(n), np.zeros(n, dtype=bool)
    while chosen.sum() < most and len(left):
        mask = non_dominated_mask(losses_NM[left], (False,) * losses_NM.shape[1])
        layer = left[mask][: most - int(chosen.sum())]
        chosen[layer] = True
        left = left[~mask]
    return np.flatnonzero(chosen)
