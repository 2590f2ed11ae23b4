"""Syne Tune's multi-objective regularised evolution by its own interface, without its tuner.

Of version 0.16 it is the one that fits: ``MOASHA`` stops runs early, the random searcher is
uniform, and ``ExpectedHyperVolumeImprovement`` takes a reference point of 2 for negated losses,
better than any positive loss, and fails on BoTorch 0.18 (single precision beside double).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from syne_tune.config_space import choice, lograndint, loguniform, randint, uniform
from syne_tune.optimizer.schedulers.multiobjective import MultiObjectiveRegularizedEvolution

from experiments.benchmarks.sampling.problems.flat import active
from experiments.benchmarks.sampling.problems.problem import Problem
from experiments.benchmarks.sampling.problems.space import Config, Parameter

_POPULATION = 50


def _domain(parameter: Parameter) -> Any:
    if parameter.values:
        return choice(list(parameter.values))
    if parameter.is_whole:
        make = lograndint if parameter.log else randint
        return make(int(parameter.low), int(parameter.high))
    return (loguniform if parameter.log else uniform)(parameter.low, parameter.high)


class SyneSearcher:
    """Asks a searcher, and tells it of each evaluation when it has ended."""

    def __init__(self, problem: Problem, searcher: Any) -> None:
        """Nothing is asked yet."""
        self._parameters, self._searcher = problem.parameters, searcher

    def ask(self) -> Config:
        """The searcher's next suggestion."""
        self._flat = self._searcher.suggest()
        return active(self._parameters, self._flat)

    def tell(self, number: int, losses: Sequence[float]) -> None:
        """Report it complete."""
        self._searcher.on_trial_complete(number, self._flat, list(losses))


def _space(problem: Problem) -> dict[str, Any]:
    return {p.name: _domain(p) for p in problem.parameters}


def regularized_evolution(problem: Problem, seed: int) -> SyneSearcher:
    """With the population of the other evolutionary ones: at its 100 it would be random longer."""
    np.random.seed(seed)  # its first population is drawn from numpy's global state
    return SyneSearcher(
        problem,
        MultiObjectiveRegularizedEvolution(
            _space(problem), population_size=_POPULATION, random_seed=seed
        ),
    )
