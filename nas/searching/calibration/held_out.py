"""Errors of predictions of held-out labels, architecture by architecture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.searching.gating.cost_surrogate import CostSurrogate
from predictors.energy.models import CostPredictor, Observation
from search_spaces.space.batch import ArchitectureBatch

_FOLDS = 6


def held_out_errors(
    observations: Sequence[Observation], *, folds: int = _FOLDS, seed: int = 0
) -> NDArray[np.float64]:
    """Return ``|prediction / label - 1|`` of each observation, predicted by the other folds.

    The model is the surrogate of joules that searches use, fitted again for each fold.
    All labels of an architecture are in one fold, and all observations of one workload.

    Raises:
        ValueError: there are fewer architectures than 2, or several workloads.
    """
    hashes = [o.architecture.hash for o in observations]
    names = sorted(set(hashes))
    if len(names) < 2 or len({o.workload for o in observations}) != 1:
        raise ValueError("observations must be of two architectures or more on one workload")
    order = np.random.default_rng(seed).permutation(len(names))
    folds = min(folds, len(names))
    fold_of = {names[position]: rank % folds for rank, position in enumerate(order)}
    errors = np.empty(len(observations))
    for fold in range(folds):
        test = [i for i, name in enumerate(hashes) if fold_of[name] == fold]
        rest = [o for o, name in zip(observations, hashes, strict=True) if fold_of[name] != fold]
        predictor = CostPredictor.fit(rest, seed=seed)
        surrogate = CostSurrogate(observations[0].workload, predictor)
        surrogate.fit(predictor, rest)
        batch = ArchitectureBatch.of([observations[i].architecture for i in test])
        predicted = surrogate.predict(batch, 0.9).mean
        labels = np.array([observations[i].cost for i in test])
        errors[test] = np.abs(predicted / labels - 1)
    return errors
