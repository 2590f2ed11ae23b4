"""HW-GPT-Bench s as a search problem: perplexity and costs of one device by its surrogates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.sampling.problems.architectures import Architectures, Values, stack
from experiments.benchmarks.sampling.problems.evolve import best_front
from experiments.benchmarks.sampling.problems.problem import Array, Problem
from experiments.benchmarks.sampling.problems.space import Parameter, choice, columns_of
from experiments.benchmarks.tables.hwgpt import load_oracle
from search_spaces.cost.memory import peak_memory_bytes
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

# The best-known front's hypervolume at this reference point, as others' shares were counted.
_REFERENCE, _BEST = (41.848, -3.1852), 3.5092
# What NSGA-II reaches in 1,000 evaluations.
_MILESTONE = 0.946
# Of further objectives, the reference lies this share of their extent beyond their worst.
_MARGIN, _PROBES = 0.1, 2000
_STARTS, _GENERATIONS, _POPULATION, _SEED = 2, 150, 300, 0
_WORKLOAD = Workload("hwgpt", "language_modelling", (1024,), 50_257, 1, vocab_size=50_257)
_OBJECTIVES = ("perplexity", "log10 energy", "log10 latency", "log10 peak memory (counted)")


def hwgpt(folder: Path, device: str, n_objectives: int = 2) -> Problem:
    """The problem of the first two to four of perplexity, energy, latency and peak memory.

    Raises:
        ValueError: there is no such device or number of objectives, or no oracle in ``folder``.
    """
    if not 2 <= n_objectives <= len(_OBJECTIVES):
        raise ValueError(f"HW-GPT-Bench has 2, 3 or 4 objectives, got {n_objectives}")
    module = load_oracle(folder)
    oracle: Any = module.Oracle("s")
    if device not in oracle.devices():
        raise ValueError(f"device must be one of {', '.join(oracle.devices())}, got {device!r}")
    sizes = module.SPACE["s"]
    deepest = max(sizes["layer"])
    space = _parameters(sizes)

    def losses_of(columns: Mapping[str, Any]) -> Array:
        models = _models(columns, deepest)
        columns_N = [np.asarray(oracle.perplexity(models))]
        for metric in ("energies", "latencies")[: n_objectives - 1]:
            columns_N.append(np.log10(oracle.hw_metric(models, device=device, metric=metric)))
        if n_objectives > 3:
            batch = _batch_of(columns, deepest)
            columns_N.append(np.log10(peak_memory_bytes(batch, _WORKLOAD)))
        return np.column_stack(columns_N)

    def best() -> float:
        if n_objectives == 2:
            return _BEST
        front = best_front(
            space,
            losses_of,
            seed=_SEED,
            starts=_STARTS,
            generations=_GENERATIONS,
            population=_POPULATION,
            is_local=False,
        )
        return problem.volume(front)

    two = n_objectives == 2
    problem = Problem(
        name=f"hwgpt-s-{device}" + f"-{n_objectives}" * (not two),
        about=f"{' and '.join(_OBJECTIVES[:n_objectives])} by the surrogates (front: "
        f"{'best known' if two else 'NSGA-II'}, not proven)",
        parameters=space,
        truth=lambda configs: losses_of(columns_of(space, configs)),
        reference=_REFERENCE if two else (*_REFERENCE, *_worst(space, losses_of)[2:]),
        best=best,
        milestone=_MILESTONE if two else None,
        architectures=Architectures(
            _WORKLOAD,
            lambda columns: _batch_of(columns, deepest),
            # Biases change perplexity by 0.04 of 20 and no joules.
            fixed={"bias": True},
            error_scale=1e-3,
        ),
    )
    return problem


def _parameters(sizes: Mapping[str, Sequence[int]]) -> tuple[Parameter, ...]:
    parameters = [
        choice("embed", *sizes["embed"]),
        choice("n_layer", *sizes["layer"]),
        choice("bias", True, False),
    ]
    for part in ("mlp", "head"):
        parameters += [
            choice(f"{part}_{i}", *sizes[part], above=("n_layer", i))
            for i in range(max(sizes["layer"]))
        ]
    return tuple(parameters)


def _models(columns: Mapping[str, Any], deepest: int) -> list[tuple[Any, ...]]:
    """Models as the oracle takes them: width, depth, FFN ratios, heads, biases."""
    ratios, heads = (
        np.stack([columns[f"{part}_{i}"] for i in range(deepest)], axis=1).tolist()
        for part in ("mlp", "head")
    )
    shapes = zip(columns["embed"].tolist(), columns["n_layer"].tolist(), strict=True)
    return [
        (width, depth, ratios[n][:depth], heads[n][:depth], bool(columns["bias"][n]))
        for n, (width, depth) in enumerate(shapes)
    ]


def _batch_of(columns: Values, deepest: int) -> ArchitectureBatch:
    heads, ratios = (
        np.stack([columns[f"{part}_{i}"] for i in range(deepest)], axis=1)
        for part in ("head", "mlp")
    )
    return stack(columns["embed"], columns["n_layer"], heads, ratios)


def _worst(space: Sequence[Parameter], losses_of: Any) -> list[float]:
    """Return a tenth of the extent beyond the worst of random members, for each loss."""
    rng = np.random.default_rng(_SEED)
    columns = {
        p.name: np.array(p.values)[rng.integers(len(p.values), size=_PROBES)] for p in space
    }
    losses = losses_of(columns)
    worst: list[float] = (losses.max(axis=0) + _MARGIN * np.ptp(losses, axis=0)).tolist()
    return worst
