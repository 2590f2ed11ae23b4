"""Optuna samplers by name, made for a search's two objectives and its space."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler as BaseSampler

from nas.samplers.ehvi import EhviSampler
from nas.samplers.prior import PriorTrial
from nas.searching.config import SamplerName
from nas.searching.curves import extrapolate
from nas.searching.earlier import Figures
from nas.searching.storage import record_of
from nas.searching.trial import TrialRecord
from predictors.learned.features import counted
from predictors.meters.base import EnergyReading
from search_spaces.batch import ArchitectureBatch
from search_spaces.positions import is_active, repaired
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload

Array = NDArray[np.float64]


def make_sampler(
    name: SamplerName,
    seed: int,
    space: SearchSpace,
    workload: Workload,
    *,
    startup_trials: int,
    known: Sequence[Figures] = (),
    stops_early: bool = False,
) -> BaseSampler:
    """The sampler called ``name``; only ``ehvi`` learns from what is ``known`` beforehand.

    Where the search ``stops_early``, ``ehvi`` learns from accuracies of stopped trials too.

    ``ehvi`` is ours (``nas.samplers.ehvi``), told of the space's conditions and closed-form
    counts, of the trials' standard errors, and that joules count in ratios. ``tpe`` is
    multi-objective TPE (Ozaki et al. 2022), multivariate so that heads and widths are judged
    together, with a constant liar so that candidates in flight repel new ones; ``nsga2`` is
    NSGA-II (Deb et al. 2002) with a population that fits searches of some dozens of trials.
    """
    if name == "ehvi":
        return EhviSampler(
            seed=seed,
            n_startup_trials=startup_trials,
            # The session asks for the smallest itself; the largest costs as much as many others.
            corners=False,
            log=(False, True),
            best_possible=(1.0, None),
            variances=_variances,
            features=lambda names, rows: _features(names, rows, space, workload),
            canonical=lambda names, rows: _canonical(names, rows, space),
            prior_trials=[_prior_trial(figures) for figures in known],
            partial_trials=_Stopped() if stops_early else None,
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


def _variances(trial: optuna.trial.FrozenTrial) -> tuple[float, float]:
    """What evaluation and repeats say of a trial's accuracy and joules."""
    record = record_of(trial)
    if record is None or record.accuracy_se is None:
        return 0.0, 0.0
    if record.reading is not None:
        return record.accuracy_se**2, _variance(record.reading)
    low_j, high_j = record.predicted_low_j or 0.0, record.predicted_high_j or 0.0
    # The gate's interval is narrower than 95%, so this errs to the small side.
    return record.accuracy_se**2, ((high_j - low_j) / 2 / 1.96) ** 2


def _variance(reading: EnergyReading) -> float:
    return ((reading.high_j - reading.low_j) / 2 / 1.96) ** 2


def _prior_trial(known: Figures) -> PriorTrial:
    """Figures as the sampler takes them."""
    reading = known.reading
    return PriorTrial(
        known.genes,
        (
            np.nan if known.accuracy is None else known.accuracy,
            np.nan if reading is None else reading.energy_j,
        ),
        (known.accuracy_se**2, 0.0 if reading is None else _variance(reading)),
    )


class _Stopped:
    """What stopped trials tell of accuracy; their joules were never measured."""

    def __init__(self) -> None:
        self._records: dict[int, TrialRecord | None] = {}

    def __call__(
        self,
        complete: Sequence[optuna.trial.FrozenTrial],
        unfinished: Sequence[optuna.trial.FrozenTrial],
    ) -> list[PriorTrial]:
        params = {trial.number: trial.params for trial in unfinished}
        found = [self._record(trial) for trial in (*complete, *unfinished)]
        return [
            PriorTrial(params[e.record.number], (e.accuracy, np.nan), (e.standard_error**2, 0.0))
            for e in extrapolate([record for record in found if record is not None])
        ]

    def _record(self, trial: optuna.trial.FrozenTrial) -> TrialRecord | None:
        # Finished trials never change, and reading each anew would cost more than proposing.
        if trial.number not in self._records:
            self._records[trial.number] = record_of(trial)
        return self._records[trial.number]


def _canonical(names: Sequence[str], rows_NP: Array, space: SearchSpace) -> Array:
    """Repaired, with NaN for genes of layers that do not exist."""
    order = [names.index(gene) for gene in space.genes()]
    positions = repaired(rows_NP[:, order].astype(np.int64), space)
    found = np.empty_like(rows_NP)
    found[:, order] = np.where(is_active(positions, space), positions, np.nan)
    return found


def _features(
    names: Sequence[str], rows_NP: Array, space: SearchSpace, workload: Workload
) -> Array:
    """Closed-form counts, as the energy predictor sees them, and sizes."""
    order = [names.index(gene) for gene in space.genes()]
    positions = np.nan_to_num(rows_NP[:, order]).astype(np.int64)
    batch = ArchitectureBatch.from_positions(repaired(positions, space), space)
    counts, features = counted(batch, workload)
    return np.column_stack([features, np.log(counts.total("params"))])
