"""Optuna samplers by name, made for a search's objectives and its space."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler as BaseSampler

from nas.records.config import SearchConfig
from nas.records.trial import Trial
from nas.samplers.ehvi import EhviSampler, NamedRowFilter, NamedRowMap, Partial, RowMaps
from nas.samplers.objectives import ObjectiveOptions
from nas.samplers.prior import PriorTrial
from nas.searching.controller.loss_models import loss_models
from nas.searching.gating.learning_curves import extrapolate
from nas.searching.gating.pruning import Pruning
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.searching.gating.warm_start import PriorRow
from nas.store.optuna_trials import record_of
from predictors.energy.features import counted
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.positions import is_active, repaired
from search_spaces.workload import Workload

Array = NDArray[np.float64]
# Maps ``P`` names of parameters and rows ``(N, P)`` to architectures.
NamedBatch = Callable[[Sequence[str], Array], ArchitectureBatch]


def make_sampler(
    config: SearchConfig,
    surrogates: ArchitectureSurrogates,
    prior_rows: Sequence[PriorRow] = (),
    pruning: Pruning | None = None,
) -> BaseSampler:
    """Make the sampler of a search; only ``ehvi`` uses more than ``config``.

    If the search stops trials early, ``ehvi`` may also propose around them.

    ``ehvi`` (``nas.samplers.ehvi``) gets the space's conditions and the search's surrogates;
    joules count in ratios. ``tpe`` is multi-objective TPE (Ozaki et al. 2022), multivariate so
    that heads and widths are judged together, with a constant liar so that candidates in flight
    repel new ones; ``nsga2`` is NSGA-II (Deb et al. 2002) with a population that fits searches of
    some dozens of trials.
    """
    name, seed, space, goals = config.sampler, config.seed, config.space, config.goals
    startup_trials = config.gate.startup_trials
    if name == "ehvi":
        return architecture_sampler(
            surrogates,
            startup_trials=startup_trials,
            batch_of=lambda names, rows: _batch(names, rows, space),
            canonical=lambda names, rows: _canonical(names, rows, space),
            allowed=None if pruning is None else lambda names, rows: _kept(names, rows, pruning),
            prior_trials=[_prior_trial(row, len(goals.costs)) for row in prior_rows],
            partial_trials=None if config.halving is None else _Stopped(),
        )
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(8, startup_trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup_trials, multivariate=True, constant_liar=True
        )


def architecture_sampler(
    surrogates: ArchitectureSurrogates,
    *,
    startup_trials: int,
    batch_of: NamedBatch,
    canonical: NamedRowMap | None = None,
    allowed: NamedRowFilter | None = None,
    prior_trials: Sequence[PriorTrial] = (),
    partial_trials: Partial | None = None,
) -> EhviSampler:
    """Make an ``EhviSampler`` of studies whose trials are architectures with records.

    ``batch_of`` maps names of parameters and rows to architectures, of which ``allowed`` masks
    those that may be proposed; limits of counted costs hold for all. Goals and seed are those of
    ``surrogates``.
    """
    goals, workload = surrogates.goals, surrogates.workload

    def is_allowed(names: Sequence[str], rows_NP: Array) -> NDArray[np.bool_]:
        kept = goals.allows(batch_of(names, rows_NP), workload)
        if allowed is not None and kept.any():
            kept[kept] = allowed(names, rows_NP[kept])
        return kept

    n_costs = 1 + len(goals.costs)
    return EhviSampler(
        seed=surrogates.seed,
        n_startup_trials=startup_trials,
        # The session asks for the smallest itself; the largest costs as much as many others.
        corners=False,
        objectives=ObjectiveOptions(
            goals.reference,
            # Every cost counts in ratios, as joules do.
            log=(False, *[True] * n_costs),
            best_possible=(1.0, *[None] * n_costs),
        ),
        row_maps=RowMaps(
            features=lambda names, rows: _features(batch_of(names, rows), workload),
            canonical=canonical,
            allowed=None if allowed is None and not goals.limits_counts else is_allowed,
            models=lambda names: loss_models(surrogates, partial(batch_of, names)),
        ),
        prior_trials=prior_trials,
        partial_trials=partial_trials,
    )


def _prior_trial(row: PriorRow, n_costs: int) -> PriorTrial:
    """Convert a row for the sampler; its ``n_costs`` further objectives are unknown.

    The surrogates have its labels, with their noise, from the warm start.
    """
    reading = row.reading
    return PriorTrial(
        row.genes,
        (
            np.nan if row.quality is None else row.quality,
            np.nan if reading is None else reading.energy_j,
            *[np.nan] * n_costs,
        ),
    )


class _Stopped:
    """Extrapolated qualities of stopped trials; their joules were never measured."""

    def __init__(self) -> None:
        self._records: dict[int, Trial | None] = {}

    def __call__(
        self,
        complete: Sequence[optuna.trial.FrozenTrial],
        unfinished: Sequence[optuna.trial.FrozenTrial],
    ) -> list[PriorTrial]:
        params = {trial.number: trial.params for trial in unfinished}
        records = [self._record(trial) for trial in (*complete, *unfinished)]
        return [
            PriorTrial(params[e.record.number], (e.quality, np.nan))
            for e in extrapolate([record for record in records if record is not None])
        ]

    def _record(self, trial: optuna.trial.FrozenTrial) -> Trial | None:
        # Finished trials never change, and reading each anew would cost more than proposing.
        if trial.number not in self._records:
            self._records[trial.number] = record_of(trial)
        return self._records[trial.number]


def _canonical(names: Sequence[str], rows_NP: Array, space: SearchSpace) -> Array:
    """Repaired rows, with NaN for genes of layers that do not exist."""
    order = [names.index(gene) for gene in space.genes()]
    positions = repaired(rows_NP[:, order].astype(np.int64), space)
    found = np.empty_like(rows_NP)
    found[:, order] = np.where(is_active(positions, space), positions, np.nan)
    return found


def _features(batch: ArchitectureBatch, workload: Workload) -> Array:
    """Closed-form counts, as features of the energy predictor, and sizes."""
    counts, features = counted(batch, workload)
    return np.column_stack([features, np.log(counts.total("params"))])


def _kept(names: Sequence[str], rows_NP: Array, pruning: Pruning) -> NDArray[np.bool_]:
    """Return which rows the gate does not prune, ``(N,)``."""
    order = [names.index(gene) for gene in pruning.space.genes()]
    positions = np.nan_to_num(rows_NP[:, order]).astype(np.int64)
    return pruning.keeps(positions, _batch(names, rows_NP, pruning.space))


def _batch(names: Sequence[str], rows_NP: Array, space: SearchSpace) -> ArchitectureBatch:
    order = [names.index(gene) for gene in space.genes()]
    positions = np.nan_to_num(rows_NP[:, order]).astype(np.int64)
    return ArchitectureBatch.from_positions(repaired(positions, space), space)
