"""BoTorch's qLogNEHVI on the same space, as its users would set it up.

Ordered choices and numbers are columns from 0 to 1, other choices have BoTorch's kernel for
categories. What is not active stands at 0.5, in the data and in all that the acquisition sees. The
reference point is inferred from the data, as ours is.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import MixedSingleTaskGP, ModelListGP, SingleTaskGP
from botorch.optim.optimize_mixed import optimize_acqf_mixed_alternating
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from botorch.utils.multi_objective.pareto import is_non_dominated
from gpytorch.mlls import SumMarginalLogLikelihood

from experiments.benchmarks.sampling.problems.flat import active, from_unit, grid, to_unit
from experiments.benchmarks.sampling.problems.problem import Problem
from experiments.benchmarks.sampling.problems.space import Config, Parameter

_STARTS, _DRAWS, _RESTARTS, _RAW, _MOST_VALUES = 10, 64, 4, 128, 20
_FIT_STEPS = 75
_INACTIVE = 0.5


class _Filled(AcquisitionFunction):
    """An acquisition that does not see what is not active."""

    def __init__(self, inner: Any, parameters: Sequence[Parameter]) -> None:
        super().__init__(model=inner.model)
        self._inner, self._conditions = inner, conditions(parameters)
        self.X_baseline = inner.X_baseline
        self.X_pending = None

    def forward(self, X: Any) -> Any:
        found: Any = self._inner(fill(X, self._conditions))
        return found


def conditions(parameters: Sequence[Parameter]) -> list[tuple[int, int, float]]:
    """For each conditional column: its condition's column, and above what it is active."""
    names, found = [p.name for p in parameters], []
    for column, parameter in enumerate(parameters):
        if parameter.above is not None:
            name, least = parameter.above
            by = names.index(name)
            values = parameters[by].values
            n_below = sum(value <= least for value in values)
            found.append((column, by, (n_below - 0.5) / max(len(values) - 1, 1)))
    return found


def fill(X: Any, found: Sequence[tuple[int, int, float]]) -> Any:
    """``X (..., D)`` with what is not active at its one place."""
    columns = list(X.unbind(-1))
    for column, by, least in found:
        columns[column] = torch.where(columns[by] > least, columns[column], _INACTIVE)
    return torch.stack(columns, dim=-1)


class BotorchSearcher:
    """One proposal from one fit."""

    def __init__(self, problem: Problem, seed: int) -> None:
        """Draw the starts."""
        torch.manual_seed(seed)
        self._parameters, self._seed = problem.parameters, seed
        self._conditions = conditions(problem.parameters)
        self._categories = [
            i for i, p in enumerate(problem.parameters) if p.values and not p.is_ordered
        ]
        sobol = torch.quasirandom.SobolEngine(len(problem.parameters), scramble=True, seed=seed)
        self._starts = sobol.draw(_STARTS).double()
        self._rows: list[Any] = []
        self._losses: list[Sequence[float]] = []

    def ask(self) -> Config:
        """The best that the optimiser finds."""
        if len(self._losses) < _STARTS:
            units = self._starts[len(self._losses)]
            config = active(self._parameters, self._values(units.tolist(), are_codes=False))
        else:
            config = active(self._parameters, self._values(self._propose(), are_codes=True))
        self._rows.append(self._row(config))
        return config

    def tell(self, number: int, losses: Sequence[float]) -> None:
        """Keep them."""
        self._losses.append(losses)

    def _values(self, units: Sequence[float], *, are_codes: bool) -> Config:
        values = {}
        for index, (p, unit) in enumerate(zip(self._parameters, units, strict=True)):
            if index not in self._categories:
                values[p.name] = from_unit(p, unit)
            elif are_codes:
                values[p.name] = p.values[round(unit)]
            else:
                values[p.name] = p.values[min(int(unit * len(p.values)), len(p.values) - 1)]
        return values

    def _row(self, config: Config) -> list[float]:
        row = []
        for index, p in enumerate(self._parameters):
            if p.name not in config:
                row.append(_INACTIVE)
            elif index in self._categories:
                row.append(float(p.values.index(config[p.name])))
            else:
                row.append(to_unit(p, config[p.name]))
        return row

    def _propose(self) -> list[float]:
        X = torch.tensor(np.array(self._rows), dtype=torch.double)
        Y = -torch.tensor(np.array(self._losses), dtype=torch.double)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            models = [self._model(X, Y[:, i : i + 1]) for i in range(Y.shape[1])]
            model = ModelListGP(*models)
            fit_gpytorch_mll(
                SumMarginalLogLikelihood(model.likelihood, model),
                optimizer_kwargs={"options": {"maxiter": _FIT_STEPS}},
            )
            acquisition = qLogNoisyExpectedHypervolumeImprovement(
                model,
                ref_point=infer_reference_point(Y[is_non_dominated(Y)]),
                X_baseline=X,
                sampler=SobolQMCNormalSampler(torch.Size([_DRAWS]), seed=self._seed),
                prune_baseline=True,
            )
            discrete: dict[int, list[float]] = {}
            upper = torch.ones(X.shape[1], dtype=torch.double)
            categories = {i: list(map(float, range(n))) for i, n in self._n_values().items()}
            for index, parameter in enumerate(self._parameters):
                values = grid(parameter, _MOST_VALUES)
                if index in categories:
                    upper[index] = categories[index][-1]
                elif values is not None:
                    discrete[index] = values
            best, _ = optimize_acqf_mixed_alternating(
                _Filled(acquisition, self._parameters) if self._conditions else acquisition,
                bounds=torch.stack([torch.zeros_like(upper), upper]),
                discrete_dims=discrete,
                cat_dims=categories,
                q=1,
                raw_samples=_RAW,
                num_restarts=_RESTARTS,
                options={"num_spray_points": 20, "maxiter_alternating": 16},
            )
        found: list[float] = best[0].tolist()
        return found

    def _n_values(self) -> dict[int, int]:
        return {i: len(self._parameters[i].values) for i in self._categories}

    def _model(self, X: Any, y: Any) -> Any:
        if self._categories:
            return MixedSingleTaskGP(X, y, cat_dims=self._categories)
        return SingleTaskGP(X, y)


def qlognehvi(problem: Problem, seed: int) -> BotorchSearcher:
    """A fresh search."""
    return BotorchSearcher(problem, seed)
