"""Propose the next rows: fit surrogates, evolve candidates around the front, pick the best.

This module works on rows and losses, all minimised, and does not import Optuna.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nas.pareto.dominance import non_dominated_mask
from nas.pareto.hypervolume import hypervolume_subset, reference_point
from nas.samplers.activity import Activity
from nas.samplers.evaluated import Archive, Evaluated, KeySet, relevant
from nas.samplers.features import Features, RowMap
from nas.samplers.gains import Region, Surrogates, feasibility
from nas.samplers.gaussian import GaussianModel
from nas.samplers.parameters import Parameters, keys
from nas.samplers.surrogate import Points, SurrogateModel, SurrogateModels

Array = NDArray[np.float64]

# Most training rows of the surrogates, selected by non-dominated rank.
_MOST_ROWS = 1000
# Training rows from which on the number of generations is halved.
_MANY_ROWS = 300
# Most pending rows in fantasy models, selected by predicted non-dominated rank.
_MOST_PENDING = 200
# In batches larger than ``_MANY_PICKS``, the number of candidates per proposal.
_MANY_PICKS, _CANDIDATES_PER_PICK = 8, 3
# Finite spaces up to this size are enumerated; most candidates taken from such a space.
_MOST_LISTED = 5000
_MOST_LISTED_CANDIDATES = 800
# Random rows that features are standardised by.
_REFERENCE_ROWS = 2000
# Each startup row is the farthest of this many; more would favour extreme rows, the costliest.
_FIRST_CANDIDATES = 8
# Most front members in the box decomposition, by number of objectives.
_MOST_FRONT = {1: 1, 2: 300, 3: 30}
_MOST_FRONT_ELSE = 20
# Attempts to draw a random row that is new.
_TRIES = 20


class Exhausted(Exception):  # noqa: N818 - an exhausted space is not an error
    """No new row of the space was found: all are evaluated, pending or not allowed."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Effort of the evolutionary search for candidates: ``generations`` of ``children`` each.

    With many training rows only half of the generations are run, since each candidate costs more.
    """

    generations: int = 12
    children: int = 200
    parents: int = 60


@dataclass
class Proposer:
    """Proposer of rows of one space.

    ``reference`` is the reference point, by default ``pareto.hypervolume.reference_point``.
    ``extra`` computes further features. ``canonical`` maps equivalent rows to one form, with NaN
    for parameters without effect; by default conditions are inferred (``activity``). ``allowed``
    masks feasible rows. Losses and constraints are modelled by ``models``, by default by Gaussian
    processes. With ``is_deterministic``, deviations from the models are no noise.
    """

    parameters: Parameters
    n_objectives: int
    seed: int
    reference: Array | None = None
    extra: RowMap | None = None
    canonical: RowMap | None = None
    allowed: Callable[[Array], NDArray[np.bool_]] | None = None
    effort: Effort = field(default_factory=Effort)
    models: SurrogateModels = field(default_factory=SurrogateModels)
    is_deterministic: bool = False

    def __post_init__(self) -> None:
        """Draw the random rows that features are standardised by."""
        self._rng = np.random.default_rng([self.seed, 1])
        self._reference_rows = self.parameters.random(_REFERENCE_ROWS, self._rng)
        self._listed: Array | None = None
        if self.parameters.size <= _MOST_LISTED:
            self._listed = self.parameters.all_rows()
        self._reset(Activity())

    def _reset(self, activity: Activity) -> None:
        self._activity = activity
        self._features = Features(
            self.parameters, self._canonical(self._reference_rows), self.extra
        )
        self._archive = Archive(_MOST_ROWS)
        expected = self._features.expected
        own = self.models.objectives or [None] * self.n_objectives
        self._losses: list[SurrogateModel] = [
            model or GaussianModel(may_be_log=True, expected_F=expected) for model in own
        ]
        self._constraints: dict[str, SurrogateModel] = dict(self.models.constraints)
        self._n_fitted = 0

    def first(self, seen_NP: Array, *, corners: bool) -> Array:
        """Return a startup row far from the rows seen.

        With ``corners`` the two corners of the space come first. If values are sizes, they are
        the ends of the front.

        Raises:
            Exhausted: no new row was found.
        """
        self._update_activity(seen_NP)
        seen = self._canonical(seen_NP)
        taken = KeySet(set(keys(seen)))
        rows = self._canonical(self.parameters.corners() if corners else seen_NP[:0])
        rows = self._filtered(_fresh(rows, taken.copy()))[:1]
        if not len(rows):
            rows = self._new(taken, _FIRST_CANDIDATES)
        apart = self._features(rows)[:, None] - self._features(seen)[None]
        squared = (apart**2).sum(axis=2)
        return self._filled_row(rows[int(squared.min(axis=1).argmax())])

    def propose(
        self,
        done: Evaluated,
        pending_QP: Array,
        n: int,
        *,
        avoid: Array | None = None,
        prior: Evaluated | None = None,
        constraint_names: Sequence[str] = (),
    ) -> list[Array]:
        """Return the next ``n`` distinct rows, or all that are left, best first.

        No row is in ``done``, pending or in ``avoid``. Between calls, ``done`` and ``avoid`` may
        only grow at their ends. Rows of ``prior``, from before the study, are training data and
        may be proposed, but are not part of the front to improve. Each loss must be finite in
        some row of ``done`` or ``prior``. ``constraint_names`` are those of its columns.

        Raises:
            Exhausted: no new row was found.
        """
        prior = prior or done.at(slice(0, 0))
        self._update_activity(np.vstack([done.rows, prior.rows]))
        used = self._archive.learn(done, avoid, self._canonical)
        prior = replace(prior, rows=self._canonical(prior.rows))
        pending = self._canonical(pending_QP)
        taken = KeySet(self._archive.keys, set(keys(pending)))
        if len(used) + len(prior) > _MOST_ROWS:
            prior = prior.at(np.linspace(0, len(prior) - 1, _MOST_ROWS - len(used)).astype(int))
        training = used.joined(prior)
        surrogates = self._fit(training, len(done) + len(prior), constraint_names)
        # Evaluated rows come first in each model, since none of their losses is NaN.
        smoothed = np.column_stack([s.smoothed()[: len(used)] for s in surrogates.losses])
        before = np.empty((0, self.n_objectives))
        if len(prior):
            before = surrogates.expected(self._points(prior.rows))
        region = self._region(smoothed, used.is_feasible, before)
        parents = np.vstack([used.rows, prior.rows])
        parents = parents[relevant(np.vstack([used.losses, before]), self.effort.parents)]
        if len(pending):
            points = self._points(pending)
            if len(pending) > _MOST_PENDING:
                points = points.at(relevant(surrogates.expected(points), _MOST_PENDING))
            surrogates = surrogates.with_pending(points)
            for row in surrogates.expected(points):
                region = region.joined(row)
        generations = self.effort.generations
        if len(training) + min(len(pending), _MOST_PENDING) > _MANY_ROWS:
            generations = max(1, generations // 2)
        candidates = self._candidates(surrogates, region, parents, taken, generations)
        return self._pick(surrogates, region, candidates, n)

    def _fit(self, done: Evaluated, n_done: int, constraint_names: Sequence[str]) -> Surrogates:
        is_due = n_done >= self._n_fitted + max(1, self._n_fitted // 10)
        if is_due:
            self._n_fitted = n_done
        points = self._points(done.rows)
        losses = []
        for model, labels, variance in zip(
            self._losses, done.losses.T, done.variance.T, strict=True
        ):
            is_finite = np.isfinite(labels)
            losses.append(
                model.fit(
                    points.at(is_finite),
                    labels[is_finite],
                    variance[is_finite],
                    is_due=is_due,
                    is_exact=self.is_deterministic,
                )
            )
        constraints = []
        for name, labels in zip(constraint_names, done.constraints.T, strict=True):
            if name not in self._constraints:
                expected = self._features.expected
                self._constraints[name] = GaussianModel(may_be_log=False, expected_F=expected)
            is_finite = np.isfinite(labels)
            exact = np.zeros(int(is_finite.sum()))
            constraints.append(
                self._constraints[name].fit(
                    points.at(is_finite),
                    labels[is_finite],
                    exact,
                    is_due=is_due,
                    is_exact=self.is_deterministic,
                )
            )
        return Surrogates(losses, constraints)

    def _points(self, rows_NP: Array) -> Points:
        return Points(rows_NP, partial(self._features, rows_NP))

    def _region(
        self, losses_NM: Array, is_feasible: NDArray[np.bool_], before_BM: Array
    ) -> Region:
        """Return the region to improve; prior losses only extend the reference point."""
        feasible = losses_NM[is_feasible]
        reached = np.vstack([feasible, before_BM])
        if not len(reached):
            return Region(feasible, None)
        minimised = (False,) * self.n_objectives
        front = feasible[non_dominated_mask(feasible, minimised)]
        if self.reference is not None:
            reference = self.reference
            front = front[np.all(front < reference, axis=1)]
        else:
            edge = reached[non_dominated_mask(reached, minimised)]
            reference = reference_point(edge, np.vstack([losses_NM, before_BM]))
        most = _MOST_FRONT.get(self.n_objectives, _MOST_FRONT_ELSE)
        if len(front) > most:
            # Two losses order the front; with more, any one of them leaves gaps in the others.
            order = np.argsort(front[:, 0])
            spread = order[np.linspace(0, len(front) - 1, most).astype(int)]
            by_volume = self.n_objectives > 2
            front = front[hypervolume_subset(front, reference, most) if by_volume else spread]
        return Region(front, reference)

    def _candidates(
        self,
        surrogates: Surrogates,
        region: Region,
        parents: Array,
        taken: KeySet,
        generations: int,
    ) -> Array:
        """Return new rows, evolved for expected improvement of ``region``, best first."""
        effort, rng = self.effort, self._rng
        seen = taken.copy()
        rows = _fresh(self._new(taken, effort.children), seen)
        gains = self._gains(surrogates, region, rows)
        for _ in range(generations):
            children = self._filtered(_fresh(self._children(parents, effort.children), seen))
            if len(children):
                rows = np.vstack([rows, children])
                gains = np.concatenate([gains, self._gains(surrogates, region, children)])
            order = np.argsort(-gains, kind="stable")[: 4 * effort.children]
            rows, gains = rows[order], gains[order]
            best = rows[: effort.parents // 2]
            others = rows[rng.integers(len(rows), size=effort.parents // 4)]
            parents = np.vstack([best, others, parents[rng.permutation(len(parents))]])
            parents = parents[: effort.parents]
        return rows

    def _children(self, parents: Array, n: int) -> Array:
        rng, full = self._rng, self.parameters.filled(parents, self._rng)
        mothers, fathers = full[rng.integers(len(full), size=(2, n))]
        crossed = self.parameters.crossed(mothers, fathers, rng)
        mutated = self.parameters.mutated(mothers, rng)
        both = self.parameters.mutated(crossed, rng)
        kind = rng.random(n)[:, None]
        rows = np.where(kind < 0.25, crossed, np.where(kind < 0.75, mutated, both))
        return self._canonical(rows)

    def _gains(self, surrogates: Surrogates, region: Region, rows: Array) -> Array:
        return region.gain(surrogates, *surrogates.posteriors(self._points(rows)))

    def _pick(self, surrogates: Surrogates, region: Region, rows: Array, n: int) -> list[Array]:
        if n > _MANY_PICKS:
            # Rows are ordered by gain; those far down are never picked.
            rows = rows[: _CANDIDATES_PER_PICK * n]
        losses, constraints = surrogates.posteriors(self._points(rows))
        is_available = np.ones(len(rows), dtype=bool)
        picked: list[Array] = []
        while len(picked) < n and is_available.any():
            gains = np.where(is_available, region.gain(surrogates, losses, constraints), -1.0)
            if gains.max() <= 0:
                # No improvement is expected: pick the most uncertain of the likely feasible rows.
                uncertainty = np.sum([np.log(p.variance) for p in losses], axis=0)
                likely = np.where(is_available, feasibility(constraints, len(rows)), -1.0)
                is_likely = is_available & (likely >= likely.max() / 2)
                gains = np.where(is_likely, uncertainty, -np.inf)
            best = int(gains.argmax())
            picked.append(self._filled_row(rows[best]))
            is_available[best] = False
            if len(picked) < n:
                region = region.joined(surrogates.means(losses)[best])
                for posterior in losses:
                    posterior.condition(best)
        return picked

    def _update_activity(self, rows_NP: Array) -> None:
        """Infer conditional parameters again, and start over if they changed."""
        activity = Activity.learn(rows_NP, self.parameters)
        if activity != self._activity:
            self._reset(activity)

    def _canonical(self, rows_NP: Array) -> Array:
        """Return rows in their canonical form."""
        rows = rows_NP
        if self.canonical is not None and len(rows):
            rows = self.canonical(self.parameters.filled(rows, self._rng))
        return self._activity.apply(rows)

    def _filled_row(self, row_P: Array) -> Array:
        """Fill absent parameters with random values, since an inferred condition may be wrong."""
        row: Array = self.parameters.filled(row_P[None], self._rng)[0]
        return row

    def _new(self, taken: KeySet, n: int) -> Array:
        """Return up to ``n`` new random rows, more from a space small enough to enumerate."""
        if self._listed is not None:
            left = self._filtered(_fresh(self._canonical(self._listed), taken.copy()))
            if not len(left):
                raise Exhausted
            most = max(n, _MOST_LISTED_CANDIDATES)
            chosen: Array = self._rng.permutation(left)[:most]
            return chosen
        for _ in range(_TRIES):
            rows = self._canonical(self.parameters.random(n, self._rng))
            fresh = self._filtered(_fresh(rows, taken.copy()))
            if len(fresh):
                return fresh
        raise Exhausted

    def _filtered(self, rows_NP: Array) -> Array:
        """Return the allowed rows."""
        if self.allowed is None or not len(rows_NP):
            return rows_NP
        return rows_NP[self.allowed(self.parameters.filled(rows_NP, self._rng))]


def _fresh(rows: Array, seen: KeySet) -> Array:
    """Return the distinct rows that are not in ``seen``, and add their keys to it."""
    chosen = []
    for index, key in enumerate(keys(rows)):
        if key not in seen:
            seen.add(key)
            chosen.append(index)
    return rows[chosen]
