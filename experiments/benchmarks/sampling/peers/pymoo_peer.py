"""pymoo's NSGA-II with its operators for mixed variables, generation by generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.core.evaluator import Evaluator
from pymoo.core.mixed import (
    MixedVariableDuplicateElimination,
    MixedVariableMating,
    MixedVariableSampling,
)
from pymoo.core.problem import Problem as PymooProblem
from pymoo.core.termination import NoTermination
from pymoo.core.variable import Choice, Real
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.problems.static import StaticProblem

from experiments.benchmarks.sampling.problems.flat import active, from_unit
from experiments.benchmarks.sampling.problems.problem import Problem
from experiments.benchmarks.sampling.problems.space import Config, Parameter

_POPULATION = 50


def _variable(parameter: Parameter) -> Any:
    # Whole numbers too are moved in the unit interval: pymoo's have no logs.
    if parameter.values:
        return Choice(options=list(range(len(parameter.values))))
    return Real(bounds=(0.0, 1.0))


class PymooSearcher:
    """A population's proposals are handed out one by one, and told back as one."""

    def __init__(self, problem: Problem, seed: int) -> None:
        """Set the algorithm up."""
        self._parameters = problem.parameters
        variables = {p.name: _variable(p) for p in problem.parameters}
        self._pymoo = PymooProblem(vars=variables, n_obj=len(problem.reference))
        unique = MixedVariableDuplicateElimination()
        self._algorithm = NSGA2(
            pop_size=_POPULATION,
            sampling=MixedVariableSampling(),
            mating=MixedVariableMating(
                selection=TournamentSelection(func_comp=binary_tournament),
                eliminate_duplicates=unique,
            ),
            eliminate_duplicates=unique,
        )
        self._algorithm.setup(self._pymoo, termination=NoTermination(), seed=seed, verbose=False)
        self._waiting: Any = None
        self._losses: list[Sequence[float]] = []

    def ask(self) -> Config:
        """The next of the generation."""
        if self._waiting is None:
            self._waiting, self._losses = self._algorithm.ask(), []
        flat = self._waiting[len(self._losses)].X
        values = {
            p.name: p.values[flat[p.name]] if p.values else from_unit(p, flat[p.name])
            for p in self._parameters
        }
        return active(self._parameters, values)

    def tell(self, number: int, losses: Sequence[float]) -> None:
        """Keep them until the generation is whole."""
        self._losses.append(losses)
        if len(self._losses) == len(self._waiting):
            static = StaticProblem(self._pymoo, F=np.array(self._losses))
            Evaluator().eval(static, self._waiting)
            self._algorithm.tell(infills=self._waiting)
            self._waiting = None


def nsga2(problem: Problem, seed: int) -> PymooSearcher:
    """A fresh search."""
    return PymooSearcher(problem, seed)
