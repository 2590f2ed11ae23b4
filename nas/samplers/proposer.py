"""What to evaluate next: surrogates, candidates that evolve around the front, the best of them.

Knows rows and losses, neither Optuna nor what a row means. Everything is minimised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nas.pareto.dominance import non_dominated_mask
from nas.pareto.hypervolume import reference_point
from nas.samplers.activity import Activity
from nas.samplers.evaluated import Evaluated, Known, Memory, relevant
from nas.samplers.features import Features, RowMap
from nas.samplers.gains import Region, Surrogates, feasibility
from nas.samplers.gaussian_process import Hyperparameters
from nas.samplers.model import Model, counts_in_ratios
from nas.samplers.parameters import Parameters, keys

Array = NDArray[np.float64]

# Rows that surrogates are conditioned on at most: those nearest to the front first.
_MOST_ROWS = 1000
_MANY_ROWS = 300
# Rows in flight that surrogates believe in at most: those expected nearest to the front first.
_MOST_PENDING = 200
# Of more rows at once than these, candidates that one is picked from.
_MANY_PICKS, _CANDIDATES_PER_PICK = 8, 3
# Finite spaces up to this size are known row by row.
_MOST_LISTED = 5000
_MOST_LISTED_CANDIDATES = 800
_REFERENCE_ROWS = 2000
# Of so many random rows the farthest: many more would give corners, which are dear to evaluate.
_FIRST_CANDIDATES = 8
# Members of the front that boxes are made of, by number of objectives.
_MOST_FRONT = {1: 1, 2: 300, 3: 50}
_MOST_FRONT_ELSE = 20
# Draws of random rows in search of one that is new.
_TRIES = 20


class Exhausted(Exception):  # noqa: N818 - the end of a space is no error
    """Every row has been evaluated or is being so."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard candidates are searched for: ``generations`` of ``children`` each.

    Half of the generations where many rows are known: a candidate costs in proportion to them.
    """

    generations: int = 12
    children: int = 200
    parents: int = 60


@dataclass
class Proposer:
    """Proposes rows of one space.

    ``reference`` is the corner that hypervolume is counted from; by default a tenth of the
    front's extent beyond its worst. ``extra`` adds features of the caller's; ``canonical`` brings
    rows that mean the same into one form, with NaN for what does not matter, and otherwise
    conditions are learnt; ``allowed`` tells rows that may be proposed. Hyperparameters are kept
    from one proposal to the next, so that fitting starts where it ended.
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
        self._memory = Memory(_MOST_ROWS)
        self._hyper: list[Hyperparameters | None] = [None] * self.n_objectives
        self._is_log = [False] * self.n_objectives
        self._n_fitted = 0

    def first(self, seen_NP: Array, *, corners: bool) -> Array:
        """A row far from those seen, before there is anything to learn from.

        With ``corners`` two of them come first: where values are sizes, the ends of the front lie
        there.

        Raises:
            Exhausted: no new row was found.
        """
        self._learn_conditions(seen_NP)
        seen = self._form(seen_NP)
        taken = Known(set(keys(seen)))
        rows = self._form(self.parameters.corners() if corners else seen_NP[:0])
        rows = self._may(_fresh(rows, taken.copy()))[:1]
        if not len(rows):
            rows = self._new(taken, _FIRST_CANDIDATES)
        apart = _squared_distances(self._features(rows), self._features(seen))
        return self._whole(rows[int(apart.min(axis=1).argmax())])

    def propose(
        self,
        done: Evaluated,
        pending_QP: Array,
        n: int,
        *,
        avoid: Array | None = None,
        prior: Evaluated | None = None,
    ) -> list[Array]:
        """The next ``n`` rows, best first; none that is done, pending, to ``avoid`` or twice.

        Fewer than ``n`` where fewer are left. Of ``done`` and ``avoid`` only what is new at their
        ends is looked at: both may grow, and not change. Rows of ``prior``, from before the study,
        are learnt from and may be proposed; what they gained is still to be gained. Either they or
        ``done`` must know some of each loss.

        Raises:
            Exhausted: no new row was found at all.
        """
        prior = prior or done.at(slice(0, 0))
        self._learn_conditions(np.vstack([done.rows, prior.rows]))
        used = self._memory.learn(done, avoid, self._form)
        prior = replace(prior, rows=self._form(prior.rows))
        pending = self._form(pending_QP)
        taken = Known(self._memory.keys, set(keys(pending)))
        if len(used) + len(prior) > _MOST_ROWS:
            prior = prior.at(np.linspace(0, len(prior) - 1, _MOST_ROWS - len(used)).astype(int))
        surrogates = self._fit(used.joined(prior), len(done) + len(prior))
        # Losses of what was evaluated are all known, so each model has its rows first.
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
            surrogates = surrogates.believing(features)
            for row in surrogates.means(surrogates.posteriors(features)[0]):
                region = region.joined(row)
        candidates = self._candidates(surrogates, region, parents, taken)
        return self._pick(surrogates, region, candidates, n)

    def _fit(self, done: Evaluated, n_done: int) -> Surrogates:
        features = self._features(done.rows)
        fit = n_done >= self._n_fitted + max(1, self._n_fitted // 10)
        if fit:
            self._n_fitted = n_done
            self._is_log = [counts_in_ratios(x[np.isfinite(x)]) for x in done.losses.T]
        n_constraints = done.constraints.shape[1]
        self._hyper += [None] * (self.n_objectives + n_constraints - len(self._hyper))
        models = []
        for index in range(self.n_objectives + n_constraints):
            is_loss = index < self.n_objectives
            labels = (
                done.losses[:, index]
                if is_loss
                else done.constraints[:, index - self.n_objectives]
            )
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
        """``before`` are losses from before the study: they say how far a front may reach."""
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
        self, surrogates: Surrogates, region: Region, parents: Array, taken: Known
    ) -> Array:
        """New rows, evolved for what the region gains by them; the best come first."""
        effort, rng = self.effort, self._rng
        known = taken.copy()
        rows = _fresh(self._new(taken, effort.children), known)
        gains = self._gains(surrogates, region, rows)
        generations = effort.generations
        if surrogates.n_rows > _MANY_ROWS:
            generations = max(1, generations // 2)
        for _ in range(generations):
            children = self._may(_fresh(self._children(parents, effort.children), known))
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
            # They are in order: what is far down will not be picked.
            rows = rows[: _CANDIDATES_PER_PICK * n]
        losses, constraints = surrogates.posteriors(self._features(rows))
        left = np.ones(len(rows), dtype=bool)
        picked: list[Array] = []
        while len(picked) < n and left.any():
            gains = np.where(left, region.gain(surrogates, losses, constraints), -1.0)
            if gains.max() <= 0:
                # Nothing is expected of any: of those as likely feasible as any, the least known.
                unknown = np.sum([np.log(p.variance) for p in losses], axis=0)
                likely = np.where(left, feasibility(constraints, len(rows)), -1.0)
                gains = np.where(left & (likely >= likely.max() / 2), unknown, -np.inf)
            best = int(gains.argmax())
            picked.append(self._whole(rows[best]))
            left[best] = False
            if len(picked) < n:
                region = region.joined(surrogates.means(losses)[best])
                for posterior in losses:
                    posterior.believe(best)
        return picked

    def _learn_conditions(self, rows_NP: Array) -> None:
        """What rows tell of when a parameter is part of them."""
        activity = Activity.learn(rows_NP, self.parameters)
        if activity != self._activity:
            self._take(activity)

    def _form(self, rows_NP: Array) -> Array:
        """The one form of rows that mean the same."""
        rows = rows_NP
        if self.canonical is not None and len(rows):
            rows = self.canonical(self.parameters.filled(rows, self._rng))
        return self._activity.apply(rows)

    def _whole(self, row_P: Array) -> Array:
        """With a value for what is not part of the row: a condition may have been learnt wrong."""
        found: Array = self.parameters.filled(row_P[None], self._rng)[0]
        return found

    def _new(self, taken: Known, n: int) -> Array:
        """Up to ``n`` new rows, at random; a small space is looked through whole."""
        if self._listed is not None:
            left = self._may(_fresh(self._form(self._listed), taken.copy()))
            if not len(left):
                raise Exhausted
            most = max(n, _MOST_LISTED_CANDIDATES)
            found: Array = self._rng.permutation(left)[:most]
            return found
        for _ in range(_TRIES):
            rows = self._form(self.parameters.random(n, self._rng))
            fresh = self._may(_fresh(rows, taken.copy()))
            if len(fresh):
                return fresh
        raise Exhausted

    def _may(self, rows_NP: Array) -> Array:
        """Those of rows that may be proposed."""
        if self.allowed is None or not len(rows_NP):
            return rows_NP
        return rows_NP[self.allowed(self.parameters.filled(rows_NP, self._rng))]


def _fresh(rows: Array, known: Known) -> Array:
    """Rows that are not in ``known``, each once; ``known`` learns them."""
    chosen = []
    for index, key in enumerate(keys(rows)):
        if key not in known:
            known.add(key)
            chosen.append(index)
    return rows[chosen]


def _squared_distances(a_NF: Array, b_MF: Array) -> Array:
    found: Array = ((a_NF[:, None] - b_MF[None]) ** 2).sum(axis=2)
    return found
