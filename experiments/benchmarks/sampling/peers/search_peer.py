"""The sampler as a search makes it: with the surrogates of architectures that the gate uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution

from experiments.benchmarks.sampling.problems.architectures import Architectures
from experiments.benchmarks.sampling.problems.problem import Array, Problem
from experiments.benchmarks.sampling.problems.space import Config, walk
from nas.core.estimate import Score
from nas.records.candidate import Candidate, Measurement, Outcome
from nas.records.trial import Trial
from nas.searching.controller.sampler_by_name import architecture_sampler
from nas.searching.gating.surrogates import ArchitectureSurrogates
from predictors.meters.base import EnergyReading
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

_STARTUP_TRIALS = 10
_RELATIVE_SD = 0.003


class ArchitectureSearcher:
    """A study in memory whose trials are architectures, without a gate."""

    def __init__(self, problem: Problem, architectures: Architectures, seed: int) -> None:
        """Start an empty one."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._architectures = architectures
        self._parameters = tuple(
            p for p in problem.parameters if p.name not in architectures.fixed
        )
        self._surrogates = ArchitectureSurrogates(architectures.workload, seed=seed)
        sampler = architecture_sampler(
            self._surrogates,
            startup_trials=_STARTUP_TRIALS,
            batch_of=self._batch,
            canonical=self._canonical,
        )
        self._study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        self._distributions = {p.name: CategoricalDistribution(p.values) for p in self._parameters}
        # A search evaluates its smallest member first.
        self._study.enqueue_trial({p.name: p.values[0] for p in self._parameters})
        self._trials: list[Trial] = []

    def ask(self) -> Config:
        """The next trial's active parameters."""
        self._trial = self._study.ask(self._distributions)
        values = dict(self._trial.params)
        self._config = walk(self._parameters, lambda p: values[p.name])
        return self._config | self._architectures.fixed

    def tell(self, number: int, losses: Sequence[float]) -> None:
        """End the trial; its joules are a power of ten."""
        quality = 1 - self._architectures.error_scale * losses[0]
        energy_j = 10 ** losses[1]
        architecture = self._architectures.of(self._parameters, self._config)
        trial = Trial(
            Candidate(len(self._trials), architecture),
            Outcome(
                "complete",
                quality=Score(quality, 0.0),
                measurement=Measurement(_reading(energy_j, self._architectures.workload)),
            ),
        )
        self._trials.append(trial)
        self._study.tell(self._trial, [quality, energy_j])
        self._surrogates.add(trial, lambda: self._trials)

    def _columns(self, names: Sequence[str], rows_NP: Array) -> dict[str, Any]:
        rows = np.nan_to_num(rows_NP).astype(np.int64)
        return {p.name: np.array(p.values)[rows[:, names.index(p.name)]] for p in self._parameters}

    def _batch(self, names: Sequence[str], rows_NP: Array) -> ArchitectureBatch:
        return self._architectures.batch_of(self._columns(names, rows_NP))

    def _canonical(self, names: Sequence[str], rows_NP: Array) -> Array:
        columns, rows = self._columns(names, rows_NP), rows_NP.copy()
        for parameter in self._parameters:
            if parameter.above is not None:
                other, least = parameter.above
                rows[columns[other] <= least, names.index(parameter.name)] = np.nan
        return rows


def search(problem: Problem, seed: int) -> ArchitectureSearcher:
    """A search's sampler.

    Raises:
        ValueError: configurations of the problem are no architectures, or it has more losses than
            quality and joules.
    """
    if len(problem.reference) != 2:
        raise ValueError(f"sampler search needs two objectives, got {len(problem.reference)}")
    if problem.architectures is None:
        raise ValueError(f"sampler search needs architectures, problem {problem.name} has none")
    return ArchitectureSearcher(problem, problem.architectures, seed)


def _reading(energy_j: float, workload: Workload) -> EnergyReading:
    half_j = 1.96 * _RELATIVE_SD * energy_j
    return EnergyReading(
        energy_j=energy_j,
        low_j=energy_j - half_j,
        high_j=energy_j + half_j,
        n_repeats=6,
        converged=True,
        meter="replay",
        source="table",
        is_estimate=True,
        device="table",
        workload=workload.key,
        batch_size=workload.batch_size,
        latency_s=1.0,
        power_w=energy_j,
        duration_s=1.0,
        protocol_hash="table",
    )
