"""What was evaluated, and what a proposer keeps of it: all by key, the best as rows."""

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
    """Rows, their losses ``(N, M)``, and the variance of each loss that is known beforehand.

    ``constraints``, ``(N, K)``, are met where they are at most 0; NaN where one is not known.
    Losses are NaN where they are not known, which only those from before a study may be.
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
        """Rows that are known to break no constraint."""
        broken: NDArray[np.bool_] = np.any(self.constraints > 0, axis=1)
        return ~broken

    def at(self, chosen: NDArray[np.int64] | slice) -> Evaluated:
        """The rows at positions."""
        return Evaluated(
            self.rows[chosen], self.losses[chosen], self.variance[chosen], self.constraints[chosen]
        )

    def joined(self, others: Evaluated) -> Evaluated:
        """With ``others`` after them, of whose constraints nothing is known."""
        unknown = np.full((len(others), self.constraints.shape[1]), np.nan)
        return self.followed_by(replace(others, constraints=unknown))

    def followed_by(self, others: Evaluated) -> Evaluated:
        """With ``others`` of the same constraints after them."""
        return Evaluated(
            np.vstack([self.rows, others.rows]),
            np.vstack([self.losses, others.losses]),
            np.vstack([self.variance, others.variance]),
            np.vstack([self.constraints, others.constraints]),
        )


class Memory:
    """Rows of a study that only ever grows, each brought into its one form once.

    ``used`` are those that surrogates learn from: up to ``most``, front by front. Who is left out
    stays out, since later rows can only push it further behind. ``keys`` are those of all.
    """

    def __init__(self, most: int) -> None:
        """Start with nothing."""
        self._most = most
        self.keys: set[bytes] = set()
        self.used: Evaluated | None = None
        self._n_done, self._n_avoided = 0, 0

    def learn(
        self, done: Evaluated, avoid: Array | None, form: Callable[[Array], Array]
    ) -> Evaluated:
        """Take up what is new at the end of ``done`` and of ``avoid``; returns ``used``."""
        used = self.used
        n_constraints = done.constraints.shape[1]
        if (
            used is None
            or len(done) < self._n_done
            or used.constraints.shape[1] != n_constraints
            or (avoid is not None and len(avoid) < self._n_avoided)
        ):
            # Another study, or one more constraint, of which earlier rows say something too.
            self.keys = set()
            self._n_done, self._n_avoided = 0, 0
            used = done.at(slice(0, 0))
        new = done.at(slice(self._n_done, None))
        self._n_done = len(done)
        if len(new):
            new = replace(new, rows=form(new.rows))
            self.keys.update(keys(new.rows))
            used = used.followed_by(new)
            used = used.at(relevant(used.losses, self._most))
        if avoid is not None and len(avoid) > self._n_avoided:
            self.keys.update(keys(form(avoid[self._n_avoided :])))
            self._n_avoided = len(avoid)
        self.used = used
        return used


class Known:
    """Keys of several sets, and those that are added, without a copy of any."""

    def __init__(self, *sets: set[bytes]) -> None:
        """Start with ``sets``, which are not changed."""
        self._sets, self._added = sets, set[bytes]()

    def __contains__(self, key: bytes) -> bool:
        """Whether ``key`` is in any of them."""
        return key in self._added or any(key in keys for keys in self._sets)

    def add(self, key: bytes) -> None:
        """Remember ``key`` too."""
        self._added.add(key)

    def copy(self) -> Known:
        """The same keys, to which others can be added."""
        return Known(*self._sets, set(self._added))


def relevant(losses_NM: Array, most: int) -> NDArray[np.int64]:
    """Positions of up to ``most`` rows, front by front (Goldberg 1989), in their order."""
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
