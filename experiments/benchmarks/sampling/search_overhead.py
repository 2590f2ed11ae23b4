"""What a sampler costs by itself, and what asking for the front costs, beside Optuna's own.

``python -m experiments.benchmarks.sampling.search_overhead``

*Proposing*: seconds of one ask and tell in a study in memory of the conditional space ``layers``
that already has so many finished trials. The first ask also reads the study and fits from
nothing; the mean is over those that follow, a tenth of the trials there were (from ``--asks`` to
120), each told as it goes. Ours proposes in batches, and fits hyperparameters anew when trials
are a tenth more: both are in the mean, the latter at 10,000 trials in the first ask alone.
*Memory*: growth of the resident set over ``--memory-asks`` asks from an empty study, in a process
of its own; a random sampler's growth is that of the study. *Front*: which of ``--points`` trials
are on the front, and their hypervolume.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, create_trial

from experiments.benchmarks.sampling import optuna_internals
from experiments.benchmarks.sampling.problems.problem import MINIMISED, Array, Problem
from experiments.benchmarks.sampling.problems.space import walk
from experiments.benchmarks.sampling.problems.synthetic import layers
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.pareto.dominance import non_dominated_mask
from nas.pareto.hypervolume import hypervolume
from nas.samplers.ehvi import EhviSampler

_MOST_ASKS = 120
_SIZES = (100, 300, 1_000, 10_000)
# Seconds an ask beyond this.
_MOST_TRIALS = {"Optuna GP": 300}
_REFERENCE = (1.5, 1.5)


def _samplers() -> dict[str, Callable[[], BaseSampler]]:
    return {
        "ours": lambda: EhviSampler(seed=0),
        "random": lambda: RandomSampler(seed=0),
        "Optuna NSGA-II": lambda: NSGAIISampler(seed=0),
        "Optuna TPE": lambda: TPESampler(
            seed=0, multivariate=True, warn_independent_sampling=False
        ),
        "Optuna GP": lambda: GPSampler(
            seed=0, deterministic_objective=True, warn_independent_sampling=False
        ),
    }


@dataclass(frozen=True)
class Proposing:
    """Seconds of one ask and tell."""

    sampler: str
    n_trials: int
    asks: int
    first_wall_s: float
    first_cpu_s: float
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Memory:
    """Megabytes by which the resident set has grown after the first, the half and all asks."""

    sampler: str
    asks: int
    first_mb: float
    half_mb: float
    all_mb: float


@dataclass(frozen=True)
class Front:
    """Seconds of one query over ``n_trials``, of which ``n_front`` are on the front."""

    what: str
    n_trials: int
    n_front: int
    ours_s: float
    optuna_s: float


def finished(problem: Problem, n: int, seed: int) -> list[FrozenTrial]:
    """Complete trials with random parameters and true losses."""
    rng = np.random.default_rng(seed)
    configs = [
        walk(problem.parameters, lambda p: p.values[int(rng.integers(len(p.values)))])
        for _ in range(n)
    ]
    distributions = {p.name: CategoricalDistribution(p.values) for p in problem.parameters}
    return [
        create_trial(
            params=config,
            distributions={name: distributions[name] for name in config},
            values=losses.tolist(),
        )
        for config, losses in zip(configs, problem.truth(configs), strict=True)
    ]


def study_of(sampler: BaseSampler, trials: Sequence[FrozenTrial] = ()) -> optuna.Study:
    """A study in memory that has ``trials``."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    study.add_trials(trials)
    return study


def step(study: optuna.Study, problem: Problem) -> tuple[float, float]:
    """Clock and CPU seconds of one ask and tell."""
    wall, cpu = time.perf_counter(), time.process_time()
    trial = study.ask()
    config = walk(problem.parameters, lambda p: trial.suggest_categorical(p.name, p.values))
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    losses = problem.truth([config])[0].tolist()
    wall, cpu = time.perf_counter(), time.process_time()
    study.tell(trial, losses)
    return wall_s + time.perf_counter() - wall, cpu_s + time.process_time() - cpu


def proposing(name: str, n_trials: int, asks: int) -> Proposing:
    """Cost of one sampler in a study of ``n_trials``."""
    problem = layers()
    study = study_of(_samplers()[name](), finished(problem, n_trials, seed=1))
    asks = min(max(asks, n_trials // 10 + 1), max(_MOST_ASKS, asks))
    first = step(study, problem)
    spent = np.array([step(study, problem) for _ in range(asks)])
    wall_s, cpu_s = spent.mean(axis=0)
    return Proposing(name, n_trials, asks, *first, float(wall_s), float(cpu_s))


def memory(name: str, asks: int) -> Memory:
    """Growth in this process, which should be fresh."""
    problem = layers()
    study = study_of(_samplers()[name]())
    before, grown = resident_mb(), []
    for _ in range(asks):
        step(study, problem)
        grown.append(resident_mb() - before)
    # Libraries are loaded at the first fit, after the startup trials.
    return Memory(name, asks, grown[min(20, asks) - 1], grown[asks // 2 - 1], grown[-1])


def resident_mb() -> float:
    """This process's resident set.

    Raises:
        ValueError: the system does not tell.
    """
    path = Path("/proc/self/statm")
    if not path.exists():
        raise ValueError("memory must be read from /proc/self/statm, which is not there")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def losses_near_front(n: int, seed: int) -> Array:
    """Points ``(n, 2)`` over a curved front, most of them near it."""
    rng = np.random.default_rng(seed)
    first = rng.random(n)
    second = 1 - np.sqrt(first) + rng.exponential(0.05, n)
    return np.column_stack([first, second])


def front_queries(n: int) -> list[Front]:
    """Both queries, by ours and by Optuna's functions.

    Raises:
        ValueError: they do not agree.
    """
    losses = losses_near_front(n, seed=2)
    trials = [create_trial(values=row) for row in losses.tolist()]
    study = study_of(RandomSampler(), trials)

    def ours() -> Any:
        values = np.array([trial.values for trial in trials])
        return [trials[i] for i in np.flatnonzero(non_dominated_mask(values, MINIMISED))]

    front, ours_s = _best_of(ours)
    others, optuna_s = _best_of(lambda: study.best_trials)
    if [t.values for t in front] != [t.values for t in others]:
        raise ValueError("fronts must agree, and do not")
    corner = np.array(_REFERENCE)
    volume, ours_volume_s = _best_of(lambda: hypervolume(losses, _REFERENCE, MINIMISED))
    same, optuna_volume_s = _best_of(lambda: optuna_internals.hypervolume(losses, corner))
    if not np.isclose(volume, same, rtol=1e-9):
        raise ValueError(f"hypervolumes must agree, got {volume} and {same}")
    return [
        Front("front of trials", n, len(front), ours_s, optuna_s),
        Front("hypervolume", n, len(front), ours_volume_s, optuna_volume_s),
    ]


def _best_of(call: Callable[[], Any], repeats: int = 3) -> tuple[Any, float]:
    found, least = None, np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        found = call()
        least = min(least, time.perf_counter() - start)
    return found, least


def tables(
    costs: Sequence[Proposing], memories: Sequence[Memory], fronts: Sequence[Front]
) -> list[Table]:
    """Up to three tables: milliseconds and megabytes."""

    def rows(part: Sequence[Any]) -> list[dict[str, Any]]:
        return [dict(_in_ms(*item) for item in asdict(row).items()) for row in part]

    proposing = {
        "sampler": "{sampler}",
        "trials": "{n_trials:,d}",
        "first ask, ms": "{first_wall_ms:,.1f}",
        "CPU ms": "{first_cpu_ms:,.1f}",
        "later asks": "{asks}",
        "ask, ms (mean)": "{wall_ms:,.1f}",
        "CPU ms (mean)": "{cpu_ms:,.1f}",
    }
    growth = {
        "memory growth, MB": "{sampler}",
        "asks": "{asks:,d}",
        "after 20": "{first_mb:.1f}",
        "after half": "{half_mb:.1f}",
        "after all": "{all_mb:.1f}",
    }
    queries = {
        "query": "{what}",
        "trials": "{n_trials:,d}",
        "on the front": "{n_front:,d}",
        "ours, ms": "{ours_ms:.1f}",
        "Optuna, ms": "{optuna_ms:.1f}",
    }
    parts = (("proposing", proposing, costs), ("memory", growth, memories))
    found = [Table.of(name, columns, rows(part)) for name, columns, part in parts if part]
    return [*found, Table.of("front", queries, rows(fronts))]


def _in_ms(name: str, value: Any) -> tuple[str, Any]:
    if not name.endswith("_s"):
        return name, value
    return name.removesuffix("_s") + "_ms", 1e3 * value


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.sampling.search_overhead", description=__doc__
    )
    parser.add_argument("--trials", type=int, nargs="+", default=list(_SIZES))
    parser.add_argument("--asks", type=int, default=24, help="at least (default: 24)")
    parser.add_argument("--memory-asks", type=int, default=1_000, help="0: no memory")
    parser.add_argument("--points", type=int, default=100_000)
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "search-overhead")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    # A fresh interpreter for each: what one has loaded or grown is not another's.
    spawn = multiprocessing.get_context("spawn")
    costs, memories = [], []
    for name in _samplers():
        for n in arguments.trials:
            if n <= _MOST_TRIALS.get(name, n):
                print(f"{name}, {n} trials ...", file=sys.stderr)
                with spawn.Pool(1, initializer=_quiet) as pool:
                    costs.append(pool.apply(proposing, (name, n, arguments.asks)))
    for name in ("random", "ours", "Optuna TPE") if arguments.memory_asks else ():
        print(f"{name}, memory ...", file=sys.stderr)
        with spawn.Pool(1, initializer=_quiet) as pool:
            memories.append(pool.apply(memory, (name, arguments.memory_asks)))
    sheet.show(*tables(costs, memories, front_queries(arguments.points)))
    return 0


def _quiet() -> None:
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    sys.exit(main())
