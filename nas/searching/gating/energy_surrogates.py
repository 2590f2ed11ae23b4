"""Surrogates of joules: one for each runtime of a search, and the least of them.

A candidate has the joules of the cheapest runtime that holds it. Each runtime has labels of its
own and is modelled apart, as another device is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.records.trial import Trial
from nas.searching.gating.architecture_process import MOST_LABELS, ArchitectureProcess
from nas.searching.gating.cost_surrogate import CostSurrogate
from nas.searching.gating.warm_start_data import WarmStartData
from predictors.energy.models import Observation
from predictors.energy.regressor import Predictions
from predictors.meters.base import EnergyReading
from search_spaces.architecture import PRECISIONS, SPARSITIES
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload


class EnergySurrogate:
    """Joules per unit of one workload in one runtime, fitted to a search's labels there."""

    def __init__(
        self, workload: Workload, warm_start: WarmStartData, *, seed: int, runtime: str | None
    ) -> None:
        """Start with ``warm_start``; ``runtime`` is ``None`` in a search that has one."""
        self._workload, self._seed, self._runtime = workload, seed, runtime
        self._warm_start = warm_start
        self._added: list[Observation] = []
        self._surrogate = CostSurrogate(workload, warm_start.predictor((), seed=seed))

    @property
    def n_prior(self) -> int:
        """Number of measurements that are no trials of the search."""
        return self._warm_start.n_energy + len(self._added)

    @property
    def process(self) -> ArchitectureProcess | None:
        """The process of the logarithm of joules; ``None`` while the predictor serves alone."""
        return self._surrogate.log_cost

    def observe(self, observations: Sequence[Observation]) -> None:
        """Add labels of no trial, to which the next ``fit`` is."""
        self._added += observations

    def fit(self, complete: Sequence[Trial]) -> None:
        """Fit to all labels and to complete trials."""
        own = self._labels(complete)
        predictor = self._warm_start.predictor([*self._added, *own], seed=self._seed)
        labels = [*self._warm_start.observations, *self._added, *own]
        self._surrogate.fit(predictor, labels[-MOST_LABELS:])

    def add(self, trials: Sequence[Trial]) -> None:
        """Condition on complete trials; hyperparameters stay."""
        self._surrogate.add(self._labels(trials))

    def predict(self, batch: ArchitectureBatch, confidence: float) -> Predictions:
        """Predict joules per unit, with intervals at ``confidence``."""
        return self._surrogate.predict(batch, confidence)

    def _labels(self, trials: Sequence[Trial]) -> list[Observation]:
        readings = ((trial.architecture, self._reading(trial)) for trial in trials)
        return [Observation.of_energy(a, self._workload, r) for a, r in readings if r is not None]

    def _reading(self, trial: Trial) -> EnergyReading | None:
        return trial.reading if self._runtime is None else trial.in_runtimes.get(self._runtime)


class EnergySurrogates:
    """Joules per unit in the cheapest runtime of a search, and in each of them."""

    def __init__(
        self,
        workload: Workload,
        warm_start: WarmStartData,
        *,
        seed: int,
        further: Mapping[str, WarmStartData] | None = None,
        choices: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Start with prior data: ``warm_start`` alone, or those of each runtime in ``further``.

        ``choices`` are the precisions and sparsities that a runtime is asked for, all by default.
        """
        data: list[tuple[str | None, WarmStartData]] = [(None, warm_start)]
        if further:
            data = list(further.items())
        self._models = {
            name: EnergySurrogate(workload, prior, seed=seed, runtime=name) for name, prior in data
        }
        self._choices = choices or {}

    @property
    def _only(self) -> EnergySurrogate | None:
        return next(iter(self._models.values())) if len(self._models) == 1 else None

    @property
    def n_prior(self) -> int:
        """Number of measurements that are no trials, in the runtime that has the fewest."""
        return min(model.n_prior for model in self._models.values())

    @property
    def process(self) -> ArchitectureProcess | None:
        """The process of the logarithm of joules; ``None`` without one, or with several."""
        return None if self._only is None else self._only.process

    def observe(self, observations: Sequence[Observation], runtime: str | None = None) -> None:
        """Add labels of no trial, measured in ``runtime``, by default the only one."""
        model = self._only if runtime is None else self._models.get(runtime, self._only)
        if model is None:
            raise ValueError(f"runtime must be one of {', '.join(map(str, self._models))}")
        model.observe(observations)

    def fit(self, complete: Sequence[Trial]) -> None:
        """Fit to all labels and to complete trials."""
        for model in self._models.values():
            model.fit(complete)

    def add(self, trials: Sequence[Trial]) -> None:
        """Condition on complete trials; hyperparameters stay."""
        for model in self._models.values():
            model.add(trials)

    def in_runtimes(self, batch: ArchitectureBatch, confidence: float) -> dict[str, Predictions]:
        """Predict joules in each runtime of several, whether or not it holds the members."""
        return {
            name: model.predict(batch, confidence)
            for name, model in self._models.items()
            if name is not None
        }

    def predict(self, batch: ArchitectureBatch, confidence: float) -> Predictions:
        """Predict joules in the cheapest runtime, with intervals at ``confidence``."""
        if self._only is not None:
            return self._only.predict(batch, confidence)
        by_name = self.in_runtimes(batch, confidence)
        held = np.array([_held(batch, self._choices.get(name)) for name in by_name])
        # What no runtime holds is dropped elsewhere.
        held |= ~held.any(axis=0)
        return least(list(by_name.values()), held)


def least(predictions: Sequence[Predictions], held: NDArray[np.bool_]) -> Predictions:
    """Return the least of ``predictions`` where they are ``held``, ``(R, N)``.

    Each end of the interval is the least of its kind: the true minimum is below it no more often
    than one of the intervals is left, and above it no more often than all are.
    """

    def lowest(name: str) -> NDArray[np.float64]:
        values = np.array([getattr(each, name) for each in predictions])
        lowest_N: NDArray[np.float64] = np.where(held, values, np.inf).min(axis=0)
        return lowest_N

    means = np.where(held, np.array([each.mean for each in predictions]), np.inf)
    in_range = np.array([each.in_range for each in predictions])
    chosen = in_range[means.argmin(axis=0), np.arange(means.shape[1])]
    return Predictions(means.min(axis=0), lowest("low"), lowest("high"), chosen)


def _held(batch: ArchitectureBatch, choices: Sequence[str] | None) -> NDArray[np.bool_]:
    """Return which members have these precisions and sparsities in all layers, ``(N,)``."""
    is_held = np.ones(len(batch), dtype=bool)
    if choices is None:
        return is_held
    for block in (batch.attention, batch.ffn):
        for names, codes in ((PRECISIONS, block.precision), (SPARSITIES, block.sparsity)):
            allowed = [index for index, name in enumerate(names) if name in choices]
            is_held &= (np.isin(codes, allowed) | ~batch.active).all(axis=1)
    return is_held
