"""Propose the next rows: fit surrogates, evolve candidates around the front, pick the best.

It works on rows and losses, all minimised, and imports nothing of Optuna.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nas.pareto.dominance import non_dominated_mask
from nas.pareto.hypervolume import reference_point
from nas.samplers.activity import Activity
from nas.samplers.evaluated import Archive, Evaluated, KeySet, relevant
from nas.samplers.features import Features, RowMap
from nas.samplers.gains import Region, Surrogates, feasibility
from nas.samplers.gaussian_process import Hyperparameters
from nas.samplers.model import Model, is_log_normal
from nas.samplers.parameters import Parameters, keys

Array = NDArray[np.float64]

# Most training rows of the surrogates; those of best non-dominated rank are used.
_MOST_ROWS = 1000
_MANY_ROWS = 300
# Most pending rows in fantasy models; those of best predicted rank are used.
_MOST_PENDING = 200
# In batches larger than this, each row is picked from so many candidates.
_MANY_PICKS, _CANDIDATES_PER_PICK = 8, 3
# Finite spaces up to this size are enumerated.
_MOST_LISTED = 5000
_MOST_LISTED_CANDIDATES = 800
_REFERENCE_ROWS = 2000
# Startup rows are the farthest of so many; more would give extreme rows, which cost most.
_FIRST_CANDIDATES = 8
# Most front members in the box decomposition, by number of objectives.
_MOST_FRONT = {1: 1, 2: 300, 3: 50}
_MOST_FRONT_ELSE = 20
# Attempts to draw a random row that is new.
_TRIES = 20


class Exhausted(Exception):  # noqa: N818 - the end of a space is no error
    """Every row of the space is evaluated or pending."""


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
    """Proposes rows of one space.

    ``reference`` is the reference point, by default ``pareto.hypervolume.reference_point``.
    ``extra`` computes further features. ``canonical`` maps equivalent rows to one form, with NaN
    for parameters without effect; without it conditions are inferred (``activity``). ``allowed``
    masks rows that may be proposed. Each fit of the hyperparameters starts from the last one.
    """

    parameters: Parameters
    n_objectives: int
    seed: int
    reference: Array | None = None
    extra: RowMap | None = None
    canonical: RowMap | None = None
    allowed: Callable[[Array], NDArray[np.bool_]] | None = None
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        """Draw the rows that features are standardised by."""
        self._rng = np.random.default_rng([self.seed, 1])
        self._reference_rows = self.parameters.random(_REFERENCE_ROWS, self._rng)
        self._listed: Array | None = None
        if self.parameters.size <= _MOST_LISTED:
            self._listed = self.parameters.all_rows()
        self._take(Activity())

    def _take(self, activity: Activity) -> None:
        self._activity = activity
        self._features = Features(self.parameters, self._form(self._reference_rows), self.extra)
        self._archive = Archive(_MOST_ROWS)
        self._hyper: list[Hyperparameters | None] = [None] * self.n_objectives
        self._is_log = [False] * self.n_objectives
        self._n_fitted = 0

    def first(self, seen_NP: Array, *, corners: bool) -> Array:
        """A startup row far from those seen.

        With ``corners`` the two corners of the space come first: if values are sizes, they are
        the ends of the front.

        Raises:
            Exhausted: no new row was found.
        """
        self._update_activity(seen_NP)
        seen = self._form(seen_NP)
        taken = KeySet(set(keys(seen)))
        rows = self._form(self.parameters.corners() if corners else seen_NP[:0])
        rows = self._filtered(_fresh(rows, taken.copy()))[:1]
        if not len(rows):
            rows = self._new(taken, _FIRST_CANDIDATES)
        apart = self._features(rows)[:, None] - self._features(seen)[None]
        squared = (apart**2).sum(axis=2)
        return self._complete_row(rows[int(squared.min(axis=1).argmax())])

    def propose(
        self,
        done: Evaluated,
        pending_QP: Array,
        n: int,
        *,
        avoid: Array | None = None,
        prior: Evaluated | None = None,
    ) -> list[Array]:
        """The next ``n`` distinct rows, best first; none that is done, pending or in ``avoid``.

        There are fewer than ``n`` if fewer are left. ``done`` and ``avoid`` may only grow at their
        ends between calls. Rows of ``prior``, from before the study, are training data and may be
        proposed; they are not part of the front that is to be improved. Each loss must be known
        in some row of ``done`` or ``prior``.

        Raises:
            Exhausted: no new row was found at all.
        """
        prior = prior or done.at(slice(0, 0))
        self._update_activity(np.vstack([done.rows, prior.rows]))
        used = self._archive.learn(done, avoid, self._form)
        prior = replace(prior, rows=self._form(prior.rows))
        pending = self._form(pending_QP)
        taken = KeySet(self._archive.keys, set(keys(pending)))
        if len(used) + len(prior) > _MOST_ROWS:
            prior = prior.at(np.linspace(0, len(prior) - 1, _MOST_ROWS - len(used)).astype(int))
        surrogates = self._fit(used.joined(prior), len(done) + len(prior))
        # All losses of evaluated rows are known, so they come first in each model.
        smoothed = np.column_stack([model.smoothed()[: len(used)] for model in surrogates.losses])
        before = np.empty((0, self.n_objectives))
        if len(prior):
            before = surrogates.means(surrogates.posteriors(self._features(prior.rows))[0])
        region = self._region(smoothed, used.is_feasible, before)
        parents = np.vstack([used.rows, prior.rows])
        parents = parents[relevant(np.vstack([used.losses, before]), self.effort.parents)]
        if len(pending):
            features = self._features(pending)
            if len(pending) > _MOST_PENDING:
                features = features[relevant(surrogates.expected(features), _MOST_PENDING)]
            surrogates = surrogates.with_pending(features)
            for row in surrogates.means(surrogates.posteriors(features)[0]):
                region = region.joined(row)
        candidates = self._candidates(surrogates, region, parents, taken)
        return self._pick(surrogates, region, candidates, n)

    def _fit(self, done: Evaluated, n_done: int) -> Surrogates:
        features = self._features(done.rows)
        fit = n_done >= self._n_fitted + max(1, self._n_fitted // 10)
        if fit:
            self._n_fitted = n_done
            self._is_log = [is_log_normal(x[np.isfinite(x)]) for x in done.losses.T]
        columns = np.hstack([done.losses, done.constraints])
        self._hyper += [None] * (columns.shape[1] - len(self._hyper))
        models = []
        for index in range(columns.shape[1]):
            is_loss = index < self.n_objectives
            labels = columns[:, index]
            known = np.isfinite(labels)
            model = Model.make(
                features[known],
                labels[known],
                done.variance[known, index] if is_loss else np.zeros(int(known.sum())),
                is_log=is_loss and self._is_log[index] and bool(labels[known].min() > 0),
                hyper=self._hyper[index],
                fit=fit,
                expected_F=self._features.expected,
            )
            self._hyper[index] = model.process.hyper
            models.append(model)
        return Surrogates(models[: self.n_objectives], models[self.n_objectives :])

    def _region(
        self, losses_NM: Array, is_feasible: NDArray[np.bool_], before_BM: Array
    ) -> Region:
        """The region to improve; prior losses ``before`` only extend the reference point."""
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
            order = np.argsort(front[:, 0])
            front = front[order[np.linspace(0, len(front) - 1, most).astype(int)]]
        return Region(front, reference)

    def _candidates(
        self, surrogates: Surrogates, region: Region, parents: Array, taken: KeySet
    ) -> Array:
        """Evolve new rows for expected improvement of ``region``; the best come first."""
        effort, rng = self.effort, self._rng
        known = taken.copy()
        rows = _fresh(self._new(taken, effort.children), known)
        gains = self._gains(surrogates, region, rows)
        generations = effort.generations
        if surrogates.n_rows > _MANY_ROWS:
            generations = max(1, generations // 2)
        for _ in range(generations):
            children = self._filtered(_fresh(self._children(parents, effort.children), known))
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
        return self._form(rows)

    def _gains(self, surrogates: Surrogates, region: Region, rows: Array) -> Array:
        return region.gain(surrogates, *surrogates.posteriors(self._features(rows)))

    def _pick(self, surrogates: Surrogates, region: Region, rows: Array, n: int) -> list[Array]:
        if n > _MANY_PICKS:
            # Rows are ordered by gain, and those far down are never picked.
            rows = rows[: _CANDIDATES_PER_PICK * n]
        losses, constraints = surrogates.posteriors(self._features(rows))
        left = np.ones(len(rows), dtype=bool)
        picked: list[Array] = []
        while len(picked) < n and left.any():
            gains = np.where(left, region.gain(surrogates, losses, constraints), -1.0)
            if gains.max() <= 0:
                # No improvement expected: pick the most uncertain of the most likely feasible.
                unknown = np.sum([np.log(p.variance) for p in losses], axis=0)
                likely = np.where(left, feasibility(constraints, len(rows)), -1.0)
                gains = np.where(left & (likely >= likely.max() / 2), unknown, -np.inf)
            best = int(gains.argmax())
            picked.append(self._complete_row(rows[best]))
            left[best] = False
            if len(picked) < n:
                region = region.joined(surrogates.means(losses)[best])
                for posterior in losses:
                    posterior.condition(best)
        return picked

    def _update_activity(self, rows_NP: Array) -> None:
        """Infer conditional parameters anew, and start over if they changed."""
        activity = Activity.learn(rows_NP, self.parameters)
        if activity != self._activity:
            self._take(activity)

    def _form(self, rows_NP: Array) -> Array:
        """The canonical form of rows."""
        rows = rows_NP
        if self.canonical is not None and len(rows):
            rows = self.canonical(self.parameters.filled(rows, self._rng))
        return self._activity.apply(rows)

    def _complete_row(self, row_P: Array) -> Array:
        """With a value for each absent parameter, since an inferred condition may be wrong."""
        found: Array = self.parameters.filled(row_P[None], self._rng)[0]
        return found

    def _new(self, taken: KeySet, n: int) -> Array:
        """Up to ``n`` new rows at random; a small space is enumerated."""
        if self._listed is not None:
            left = self._filtered(_fresh(self._form(self._listed), taken.copy()))
            if not len(left):
                raise Exhausted
            most = max(n, _MOST_LISTED_CANDIDATES)
            found: Array = self._rng.permutation(left)[:most]
            return found
        for _ in range(_TRIES):
            rows = self._form(self.parameters.random(n, self._rng))
            fresh = self._filtered(_fresh(rows, taken.copy()))
            if len(fresh):
                return fresh
        raise Exhausted

    def _filtered(self, rows_NP: Array) -> Array:
        """The rows that may be proposed."""
        if self.allowed is None or not len(rows_NP):
            return rows_NP
        return rows_NP[self.allowed(self.parameters.filled(rows_NP, self._rng))]


def _fresh(rows: Array, known: KeySet) -> Array:
    """Distinct rows that are not in ``known``, to which they are added."""
    chosen = []
    for index, key in enumerate(keys(rows)):
        if key not in known:
            known.add(key)
            chosen.append(index)
    return rows[chosen]
