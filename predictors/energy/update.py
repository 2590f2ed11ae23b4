"""Update a fitted predictor with new measurements: retain it, adapt it, or replace it.

The candidates are the predictor itself, one adapted to the new measurements
(``CostPredictor.adapt``), and one fitted to them alone. The best has the highest log score on
held-out measurements, which penalises errors and intervals that are too narrow or too wide
(Gneiting & Raftery 2007).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from predictors.energy.models import CostPredictor, Observation
from predictors.energy.regressor import LEAST_ROWS
from search_spaces.workload import Workload

# With fewer measurements nothing is held out.
_LEAST = 3
_FOLDS = 3
_ONE_DEVIATION = 0.683
# Caps the penalty of one outlier.
_MOST_DEVIATIONS = 5.0
_LEAST_DEVIATION = 0.01

_Maker = Callable[[Sequence[Observation]], CostPredictor]


def updated(
    source: CostPredictor,
    observations: Sequence[Observation],
    *,
    is_same: bool,
    seed: int = 0,
) -> CostPredictor:
    """Return the predictor to use after ``observations``, which ``source`` was not fitted to.

    ``is_same`` states whether ``source`` was fitted to their device and protocol. If not, it is
    never returned unchanged: without observations its intervals are widened to a factor of ten.
    """
    n = len(observations)
    if n < _LEAST:
        return source if is_same else source.adapt(observations, seed=seed)

    def adapted(rows: Sequence[Observation]) -> CostPredictor:
        return source.adapt(rows, seed=seed)

    def own(rows: Sequence[Observation]) -> CostPredictor:
        return CostPredictor.fit(rows, seed=seed)

    may_be_own = n >= 2 * LEAST_ROWS
    if not is_same and not may_be_own:
        return adapted(observations)
    score = _held_out_score(adapted, observations, seed)
    if is_same and _score(source, observations).mean() >= score:
        return source
    if may_be_own and _held_out_score(own, observations, seed) > score:
        return own(observations)
    return adapted(observations)


def _held_out_score(make: _Maker, observations: Sequence[Observation], seed: int) -> float:
    """Return the mean log score over folds, each predicted by a model of the other folds."""
    hashes = sorted({o.architecture.hash for o in observations})
    order = np.random.default_rng(seed).permutation(len(hashes))
    fold_of = {hashes[position]: rank % _FOLDS for rank, position in enumerate(order)}
    scores = []
    for fold in range(_FOLDS):
        test = [o for o in observations if fold_of[o.architecture.hash] == fold]
        rest = [o for o in observations if fold_of[o.architecture.hash] != fold]
        if test:
            scores.append(_score(make(rest), test))
    return float(np.concatenate(scores).mean())


def _score(
    predictor: CostPredictor, observations: Sequence[Observation]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the log density of each measurement's logarithm, up to a constant."""
    by_workload: dict[Workload, list[Observation]] = {}
    for observation in observations:
        by_workload.setdefault(observation.workload, []).append(observation)
    parts = []
    for workload, rows in by_workload.items():
        predicted = predictor.predict([o.architecture for o in rows], workload, _ONE_DEVIATION)
        sd = np.maximum(np.log(predicted.high / predicted.low) / 2, _LEAST_DEVIATION)
        away = np.log(np.array([o.cost for o in rows]) / predicted.mean) / sd
        parts.append(-np.log(sd) - np.minimum(np.abs(away), _MOST_DEVIATIONS) ** 2 / 2)
    scores: np.ndarray[tuple[int], np.dtype[np.float64]] = np.concatenate(parts)
    return scores
