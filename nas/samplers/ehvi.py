"""``EhviSampler``: expected hypervolume improvement for any multi-objective Optuna study."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from nas.samplers.columns import Columns
from nas.samplers.evaluated import Evaluated
from nas.samplers.features import RowMap
from nas.samplers.history import History, Variances
from nas.samplers.objectives import Objective
from nas.samplers.prior import PriorTrial, prior_rows
from nas.samplers.proposer import Effort, Exhausted, Proposer

Array = NDArray[np.float64]
# From the names of ``P`` parameters and rows ``(N, P)`` to rows; see ``nas.samplers.parameters``.
NamedRowMap = Callable[[Sequence[str], Array], Array]
NamedRowFilter = Callable[[Sequence[str], Array], NDArray[np.bool_]]
# From complete and unfinished trials to what the unfinished ones tell.
Partial = Callable[[Sequence[FrozenTrial], Sequence[FrozenTrial]], Sequence[PriorTrial]]

_log = logging.getLogger(__name__)

# Proposals made from one fit: one while trials are few, later a share of them, and more where so
# many are in flight that one more or less tells little.
_MOST_BATCH = 8
_TRIALS_PER_PROPOSAL = 100
_RUNNING_PER_PROPOSAL = 8
_MOST_PARALLEL_BATCH = 128


class EhviSampler(BaseSampler):
    """Proposes what is expected to add most hypervolume to the front.

    Gaussian processes on parameters of any kind, per-layer series and conditional ones included,
    tell mean and deviation of each objective; candidates evolve around the front; the best by
    expected hypervolume improvement over the smoothed front is taken, so that lucky noise is not
    chased. Trials in flight count as measured at what is predicted of them. Nothing is proposed
    twice while there is something new.

    Only complete trials with finite values are learnt from; failed and pruned ones are not
    proposed again. Constraints set with ``trial.set_constraint`` are modelled as well, and gains
    weighted by the probability that all are met. Studies may define parameters as they run, and
    may have one objective or several.

    Trials of an earlier study (``prior_trials``) inform the models from the first proposal on, and
    tell how far the front may reach. The front that is to be improved holds only what this study
    has evaluated, so that the best of the earlier trials may well be proposed again.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 6,
        corners: bool = True,
        reference_point: Sequence[float] | None = None,
        log: Sequence[bool] | None = None,
        best_possible: Sequence[float | None] | None = None,
        variances: Variances | None = None,
        features: NamedRowMap | None = None,
        canonical: NamedRowMap | None = None,
        allowed: NamedRowFilter | None = None,
        effort: Effort | None = None,
        prior_trials: Sequence[PriorTrial] = (),
        partial_trials: Partial | None = None,
    ) -> None:
        """Nothing is drawn before the first trial.

        Args:
            seed: Seed of everything that is drawn.
            n_startup_trials: Complete trials that fill the space before models are fitted; prior
                ones count where all objectives of as many are known.
            corners: Whether the first two have every ordered parameter at its least, and at its
                greatest: the ends of the front, where values are sizes.
            reference_point: Corner that hypervolume is counted from, in the study's units; by
                default a tenth of the front's extent beyond its worst values.
            log: For each objective, whether hypervolume is counted in its logarithm.
            best_possible: For each objective, a bound that no value can pass (1 for an accuracy),
                or ``None``.
            variances: From a complete trial to the variance of each of its values; without it
                noise is told from the values alone.
            features: More columns for the models, ``(N, F)``.
            canonical: The one form of rows that mean the same, ``(N, P)``, with NaN for what does
                not matter; without it, conditions are learnt from the trials. Two rows of one
                form are never both proposed.
            allowed: Which rows may be proposed, ``(N,)`` booleans, where that is known without
                evaluating them; all by default. Unlike a constraint of the study it is exact.
            effort: How hard candidates are searched for.
            prior_trials: What is known from before the study. Parameters and values must be the
                study's own; trials with others are left out.
            partial_trials: From complete trials and unfinished ones (pruned, failed) to what the
                latter tell all the same, such as an extrapolated value with a larger variance.
                With it pruned trials count as filling the space, and half as many complete ones
                will do.

        Raises:
            ValueError: ``n_startup_trials`` is below 2. What must fit the study's objectives
                raises at the first trial.
        """
        if n_startup_trials < 2:
            raise ValueError(f"n_startup_trials must be >= 2, got {n_startup_trials}")
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._n_startup, self._corners = n_startup_trials, corners
        self._reference_point = reference_point
        self._log, self._best = log, best_possible
        self._features, self._canonical, self._allowed = features, canonical, allowed
        self._effort = effort or Effort()
        self._prior_trials = tuple(prior_trials)
        self._partial = partial_trials
        self._prior: Evaluated | None = None
        self._independent = RandomSampler(seed=self._seed)
        self._history = History(variances)
        self._objectives: list[Objective] = []
        self._columns: Columns | None = None
        self._proposer: Proposer | None = None
        self._queue: list[Array] = []
        self._queued_at = 0
        self._said_exhausted = False

    def reseed_rng(self) -> None:
        """Optuna calls this in workers of their own, which must not all propose the same."""
        self._seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._independent.reseed_rng()
        self._columns = None

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Every parameter that any trial has had: what a trial does not ask for is not used."""
        self._history.read(study, trial.number)
        return self._history.space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next proposal; nothing before there is a space to propose from."""
        if not search_space:
            return {}
        columns, proposer = self._prepared(study, search_space)
        try:
            row = self._next(columns, proposer)
        except Exhausted:
            if not self._said_exhausted:
                _log.warning("the search space is exhausted: proposals are repeats from now on")
            self._said_exhausted = True
            return {}
        return columns.params(row)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """At random: what no trial has had before, and all of it in the first."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _next(self, columns: Columns, proposer: Proposer) -> Array:
        history, n = self._history, self._history.n_complete
        assert self._prior is not None
        n_known = n + int(np.isfinite(self._prior.losses).sum(axis=0).min())
        if self._partial is not None and n_known >= max(2, self._n_startup // 2):
            n_known += history.n_pruned
        if n_known < self._n_startup:
            known = np.vstack(
                [
                    history.evaluated(columns).rows,
                    history.running(columns),
                    history.given_up(columns),
                ]
            )
            return proposer.first(known, corners=self._corners)
        batch = max(
            min(_MOST_BATCH, 1 + n // _TRIALS_PER_PROPOSAL),
            min(_MOST_PARALLEL_BATCH, history.n_running // _RUNNING_PER_PROPOSAL),
        )
        if not self._queue or n - self._queued_at >= batch:
            done = self._as_losses(history.evaluated(columns))
            self._queue = proposer.propose(
                done,
                history.running(columns),
                batch,
                avoid=history.given_up(columns),
                prior=self._prior.joined(self._partial_rows(columns)),
            )
            self._queued_at = n
        return self._queue.pop(0)

    def _partial_rows(self, columns: Columns) -> Evaluated:
        history, n = self._history, len(self._objectives)
        found = (
            () if self._partial is None else self._partial(history.complete, history.unfinished)
        )
        return self._as_losses(prior_rows(found, columns, n))

    def _prepared(
        self, study: Study, space: Mapping[str, BaseDistribution]
    ) -> tuple[Columns, Proposer]:
        columns = Columns(space)
        if self._columns is None or columns.parameters != self._columns.parameters:
            self._columns, self._queue = columns, []
            self._proposer = self._proposer_of(study, columns)
            rows = prior_rows(self._prior_trials, columns, len(study.directions))
            self._prior = self._as_losses(rows)
        assert self._proposer is not None
        return self._columns, self._proposer

    def _proposer_of(self, study: Study, columns: Columns) -> Proposer:
        n = len(study.directions)
        for name in ("log", "best_possible", "reference_point"):
            values = {
                "log": self._log,
                "best_possible": self._best,
                "reference_point": self._reference_point,
            }[name]
            if values is not None and len(values) != n:
                raise ValueError(
                    f"{name} must have {n} values, one for each objective, got {values}"
                )
        self._objectives = [
            Objective(
                direction == StudyDirection.MAXIMIZE,
                None if self._best is None else self._best[index],
                self._log is not None and bool(self._log[index]),
            )
            for index, direction in enumerate(study.directions)
        ]
        reference = None
        if self._reference_point is not None:
            reference = self._losses(np.array([self._reference_point], dtype=float))[0]
        names = [column.name for column in columns.parameters.columns]

        def bound(rows: NamedRowMap | None) -> RowMap | None:
            return None if rows is None else partial(rows, names)

        return Proposer(
            columns.parameters,
            n,
            self._seed,
            reference,
            bound(self._features),
            bound(self._canonical),
            None if self._allowed is None else partial(self._allowed, names),
            self._effort,
        )

    def _losses(self, values_NM: Array) -> Array:
        pairs = zip(self._objectives, values_NM.T, strict=True)
        return np.column_stack([objective.losses(values) for objective, values in pairs])

    def _as_losses(self, done: Evaluated) -> Evaluated:
        triples = zip(self._objectives, done.losses.T, done.variance.T, strict=True)
        variance = np.column_stack([o.variances(values, v) for o, values, v in triples])
        return Evaluated(done.rows, self._losses(done.losses), variance, done.constraints)
