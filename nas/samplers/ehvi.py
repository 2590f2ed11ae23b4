"""``EhviSampler``: expected hypervolume improvement for any multi-objective Optuna study."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from nas.samplers.history import History
from nas.samplers.objectives import Objective, ObjectiveOptions, doubt
from nas.samplers.prior import PriorTrial, prior_rows
from nas.samplers.proposer import Effort, Exhausted, Proposer
from nas.samplers.surrogate import SurrogateModels

Array = NDArray[np.float64]
# Maps ``P`` parameter names and rows ``(N, P)`` to rows; see ``nas.samplers.parameters``.
NamedRowMap = Callable[[Sequence[str], Array], Array]
NamedRowFilter = Callable[[Sequence[str], Array], NDArray[np.bool_]]
# Maps complete and unfinished trials to extrapolated results of the unfinished ones.
Partial = Callable[[Sequence[FrozenTrial], Sequence[FrozenTrial]], Sequence[PriorTrial]]
# Makes models from ``P`` parameter names; their points have rows ``(N, P)``.
MakeModels = Callable[[Sequence[str]], SurrogateModels]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RowMaps:
    """Prior knowledge of a search space: functions of parameter names and rows.

    Args:
        features: Computes additional features for the surrogates, ``(N, F)``.
        canonical: Maps equivalent rows to one form, ``(N, P)``, with NaN for parameters without
            effect. By default, conditions are inferred from the trials. Of equivalent rows only
            one is proposed.
        allowed: Masks feasible rows, ``(N,)`` booleans, without evaluating them; by default all
            rows are feasible. Unlike a constraint of the study, the mask is exact.
        models: Makes the models of objectives and constraints from the names of a row's
            parameters; by default all have Gaussian processes.
    """

    features: NamedRowMap | None = None
    canonical: NamedRowMap | None = None
    allowed: NamedRowFilter | None = None
    models: MakeModels | None = None


# Proposals from one fit: the batch grows with the number of complete trials, and with the number
# of running trials, since one result among many changes little.
_MOST_BATCH = 8
_TRIALS_PER_PROPOSAL = 100
_RUNNING_PER_PROPOSAL = 8
_MOST_PARALLEL_BATCH = 128


class EhviSampler(BaseSampler):
    """Optuna sampler that maximises expected hypervolume improvement.

    A surrogate models each objective, by default a Gaussian process; parameters may be of any
    kind, per-layer series and conditional parameters included. An evolutionary search generates
    candidates around the Pareto front. The sampler proposes the candidate with the greatest
    expected improvement over the *smoothed* front, in order not to chase lucky noise. Running
    trials are pending points of fantasy models. A proposal is repeated only when the search space
    is exhausted.

    Only complete trials with finite values are training data; failed and pruned trials are not
    proposed again. Constraints set with ``trial.set_constraint`` are modelled as well, and the
    improvement is weighted by the probability of feasibility. Studies may be define-by-run, and
    may have one objective or several.

    Trials of another study (``prior_trials``) are training data from the first proposal on, and
    extend the reference point. The front to improve consists of this study's trials only, so the
    best prior trials may be proposed again.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 6,
        corners: bool = True,
        objectives: ObjectiveOptions = ObjectiveOptions(),  # noqa: B008
        row_maps: RowMaps = RowMaps(),  # noqa: B008
        effort: Effort = Effort(),  # noqa: B008
        prior_trials: Sequence[PriorTrial] = (),
        partial_trials: Partial | None = None,
    ) -> None:
        """Create a sampler; it draws no random number before the first trial.

        Args:
            seed: Seed of all random numbers.
            n_startup_trials: Space-filling trials to complete before surrogates are fitted. Prior
                trials with all objectives count as well.
            corners: Whether the first two trials set every ordered parameter to its minimum and
                to its maximum. If values are sizes, these are the ends of the front.
            objectives: Conversion of the study's values to losses.
            row_maps: Prior knowledge of the search space.
            effort: Effort of the search for candidates.
            prior_trials: Trials from before the study. Trials with other parameters or with
                values outside the space are ignored.
            partial_trials: Extrapolates the results of unfinished trials (pruned, failed) from
                the complete ones, with a larger variance. Pruned trials then count as startup
                trials, and half as many complete trials are required.

        Raises:
            ValueError: ``n_startup_trials`` is below 2. Options that do not match the number of
                objectives raise at the first trial.
        """
        if n_startup_trials < 2:
            raise ValueError(f"n_startup_trials must be >= 2, got {n_startup_trials}")
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._n_startup, self._corners = n_startup_trials, corners
        self._options, self._row_maps, self._effort = objectives, row_maps, effort
        self._prior_trials = tuple(prior_trials)
        self._partial, self._models = partial_trials, row_maps.models
        self._prior: Evaluated | None = None
        self._independent = RandomSampler(seed=self._seed)
        self._history = History(objectives.variances)
        self._objectives: list[Objective] = []
        self._columns: Columns | None = None
        self._proposer: Proposer | None = None
        self._queue: list[Array] = []
        self._queued_at = 0
        self._warned_exhausted = False

    def reseed_rng(self) -> None:
        """Draw a new seed; Optuna calls this in each worker, so that their proposals differ."""
        self._seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._independent.reseed_rng()
        self._columns = None

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the union of all trials' parameters; Optuna ignores unused ones."""
        self._history.read(study, trial.number)
        return self._history.space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next proposal, empty while no trial has defined the search space."""
        if not search_space:
            return {}
        columns, proposer = self._prepare(study, search_space)
        try:
            row = self._next(columns, proposer)
        except Exhausted:
            if not self._warned_exhausted:
                _log.warning("the search space is exhausted: proposals are repeats from now on")
            self._warned_exhausted = True
            return {}
        return columns.params(row)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Sample a parameter that is new to the study at random."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _next(self, columns: Columns, proposer: Proposer) -> Array:
        history, n = self._history, len(self._history.complete)
        assert self._prior is not None
        n_observed = n + int(np.isfinite(self._prior.losses).sum(axis=0).min())
        if self._partial is not None and n_observed >= max(2, self._n_startup // 2):
            n_observed += history.n_pruned
        if n_observed < self._n_startup:
            parts = [history.evaluated(columns).rows, history.running(columns)]
            seen = np.vstack([*parts, history.unfinished_rows(columns)])
            return proposer.first(seen, corners=self._corners)
        batch = max(
            min(_MOST_BATCH, 1 + n // _TRIALS_PER_PROPOSAL),
            min(_MOST_PARALLEL_BATCH, len(history.running_trials) // _RUNNING_PER_PROPOSAL),
        )
        if not self._queue or n - self._queued_at >= batch:
            done = self._as_losses(history.evaluated(columns))
            self._queue = proposer.propose(
                done,
                history.running(columns),
                batch,
                avoid=history.unfinished_rows(columns),
                prior=self._prior.joined(self._partial_rows(columns)),
                constraint_names=history.constraint_names,
            )
            self._queued_at = n
        return self._queue.pop(0)

    def _partial_rows(self, columns: Columns) -> Evaluated:
        history = self._history
        trials: Sequence[PriorTrial] = ()
        if self._partial is not None:
            trials = self._partial(history.complete, history.unfinished)
        return self._as_losses(prior_rows(trials, columns, len(self._objectives)))

    def _prepare(
        self, study: Study, space: Mapping[str, BaseDistribution]
    ) -> tuple[Columns, Proposer]:
        columns = Columns(space)
        if self._columns is None or columns.parameters != self._columns.parameters:
            self._columns, self._queue = columns, []
            self._proposer = self._make_proposer(study, columns)
            rows = prior_rows(self._prior_trials, columns, len(study.directions))
            self._prior = self._as_losses(rows)
        assert self._proposer is not None
        return self._columns, self._proposer

    def _make_proposer(self, study: Study, columns: Columns) -> Proposer:
        maximize = [direction == StudyDirection.MAXIMIZE for direction in study.directions]
        if not self._objectives and study.metric_names is not None:
            # Once, although a study that is defined as it runs comes here with each new parameter.
            for name, is_maximised in zip(study.metric_names, maximize, strict=True):
                question = doubt(name, maximize=is_maximised)
                if question is not None:
                    _log.warning("study %s: %s", study.study_name, question)
        self._objectives = self._options.objectives(maximize)
        reference = None
        if self._options.reference_point is not None:
            reference = self._losses(np.array([self._options.reference_point], dtype=float))[0]
        maps, names = self._row_maps, [column.name for column in columns.parameters.columns]

        def with_names(rows: NamedRowMap | None) -> RowMap | None:
            return None if rows is None else partial(rows, names)

        return Proposer(
            columns.parameters,
            len(maximize),
            self._seed,
            reference,
            with_names(maps.features),
            with_names(maps.canonical),
            None if maps.allowed is None else partial(maps.allowed, names),
            self._effort,
            SurrogateModels() if self._models is None else self._models(names),
            self._options.deterministic,
        )

    def _losses(self, values_NM: Array) -> Array:
        pairs = zip(self._objectives, values_NM.T, strict=True)
        return np.column_stack([objective.losses(values) for objective, values in pairs])

    def _as_losses(self, done: Evaluated) -> Evaluated:
        triples = zip(self._objectives, done.losses.T, done.variance.T, strict=True)
        variance = np.column_stack([o.variances(values, v) for o, values, v in triples])
        return Evaluated(done.rows, self._losses(done.losses), variance, done.constraints)
