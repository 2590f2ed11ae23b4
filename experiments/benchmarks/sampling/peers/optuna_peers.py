"""Ours and Optuna's samplers, each by a study that defines its parameters as it runs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)

from experiments.benchmarks.sampling.problems.problem import Problem
from experiments.benchmarks.sampling.problems.space import Config, Parameter, walk
from nas.samplers.ehvi import EhviSampler, RowMaps
from nas.samplers.objectives import ObjectiveOptions


class StudySearcher:
    """A study in memory."""

    def __init__(self, problem: Problem, sampler: BaseSampler) -> None:
        """Start an empty one."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._problem = problem
        self._study = optuna.create_study(
            directions=["minimize"] * len(problem.reference), sampler=sampler
        )
        self._trials: list[optuna.Trial] = []

    def ask(self) -> Config:
        """The next trial's parameters."""
        trial = self._study.ask()
        self._trials.append(trial)
        return walk(self._problem.parameters, lambda p: suggest(trial, p))

    def tell(self, number: int, losses: Sequence[float]) -> None:
        """End the trial."""
        self._study.tell(self._trials[number], list(losses))


def suggest(trial: optuna.Trial, parameter: Parameter) -> object:
    """The trial's value of a parameter."""
    if parameter.values:
        return trial.suggest_categorical(parameter.name, parameter.values)
    if parameter.is_whole:
        low, high = int(parameter.low), int(parameter.high)
        return trial.suggest_int(parameter.name, low, high, log=parameter.log)
    return trial.suggest_float(parameter.name, parameter.low, parameter.high, log=parameter.log)


def _quietly(problem: Problem, make: type[BaseSampler], **options: object) -> StudySearcher:
    with warnings.catch_warnings():
        # Some are marked as experimental.
        warnings.simplefilter("ignore")
        return StudySearcher(problem, make(**options))


def ours(problem: Problem, seed: int) -> StudySearcher:
    """Told whether values have noise or are another row's, and the canonical form if one is named.

    ``gp`` is told of noise as well.
    """
    form = problem.canonical_rows
    maps = RowMaps()
    if form is not None:
        maps = RowMaps(canonical=lambda names, rows: form(rows, names))
    objectives = ObjectiveOptions(deterministic=problem.noise is None and problem.has_own_values)
    return StudySearcher(problem, EhviSampler(seed=seed, row_maps=maps, objectives=objectives))


def random(problem: Problem, seed: int) -> StudySearcher:
    """Uniform."""
    return _quietly(problem, RandomSampler, seed=seed)


def nsga2(problem: Problem, seed: int) -> StudySearcher:
    """Optuna's defaults."""
    return _quietly(problem, NSGAIISampler, seed=seed)


def nsga3(problem: Problem, seed: int) -> StudySearcher:
    """Optuna's defaults."""
    return _quietly(problem, NSGAIIISampler, seed=seed)


def tpe(problem: Problem, seed: int) -> StudySearcher:
    """Multivariate."""
    return _quietly(
        problem, TPESampler, seed=seed, multivariate=True, warn_independent_sampling=False
    )


def tpe_group(problem: Problem, seed: int) -> StudySearcher:
    """Multivariate in groups, so that conditional parameters are modelled as well."""
    return _quietly(
        problem,
        TPESampler,
        seed=seed,
        multivariate=True,
        group=True,
        warn_independent_sampling=False,
    )


def gp(problem: Problem, seed: int) -> StudySearcher:
    """Told whether there is noise, as its option wants to know."""
    return _quietly(
        problem,
        GPSampler,
        seed=seed,
        deterministic_objective=problem.noise is None,
        warn_independent_sampling=False,
    )
