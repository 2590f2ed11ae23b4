"""What a warm start saves: searches of HW-GPT-Bench that begin cold, or with an earlier search.

``python -m experiments.benchmarks.sampling.warm_start --hwgpt FOLDER --seeds 10``

The earlier search is of ``--earlier`` evaluations by the same sampler and another seed. *Same*: it
ran on the same device, so that both objectives are known and its front is proposed again first,
as ``nas search --warm-start`` does. *Other*: it ran on ``--device``, of which perplexity compares
and joules do not; its front there is proposed first. Figures are shares of the best known
hypervolume that the later search evaluated itself, as medians over seeds: what it was told
beforehand counts for nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna

from experiments.benchmarks.sampling.curves import quartiles, volume_curve
from experiments.benchmarks.sampling.peers.optuna_peers import suggest
from experiments.benchmarks.sampling.problems.problem import Array, Problem
from experiments.benchmarks.sampling.problems.registry import ProblemName, make_problem
from experiments.benchmarks.sampling.problems.space import walk
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.pareto.dominance import non_dominated_mask
from nas.samplers.ehvi import EhviSampler
from nas.samplers.prior import PriorTrial

_MARKS = (10, 20, 30, 50)
# Of the later search's evaluations, those that go to the front of the earlier one at most.
_FIRST_SHARE = 4


def run(problem: Problem, sampler: EhviSampler, n: int, first: Sequence[dict] = ()) -> Array:
    """Losses of ``n`` evaluations in their order, ``first`` before what the sampler proposes."""
    return _study(problem, sampler, n, first)[1]


def _study(
    problem: Problem, sampler: EhviSampler, n: int, first: Sequence[dict]
) -> tuple[list[dict], Array]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    for params in first:
        study.enqueue_trial(params)
    configs, losses = [], []
    for _ in range(n):
        trial = study.ask()
        config = walk(problem.parameters, lambda p, trial=trial: suggest(trial, p))
        found = problem.truth([config])[0]
        study.tell(trial, list(found))
        configs.append(config)
        losses.append(found)
    return configs, np.array(losses)


def earlier(problem: Problem, seed: int, n: int, *, same: bool) -> tuple[list[PriorTrial], list]:
    """What an earlier search knows of the later one's objectives, and its front, spread evenly."""
    configs, losses = _study(problem, EhviSampler(seed=seed), n, ())
    trials = [
        PriorTrial(config, (loss[0], loss[1] if same else np.nan))
        for config, loss in zip(configs, losses, strict=True)
    ]
    on_front = np.flatnonzero(non_dominated_mask(losses, (False, False)))
    return trials, [configs[i] for i in on_front[np.argsort(losses[on_front, 1])]]


def spread(front: Sequence[dict], most: int) -> list[dict]:
    """Up to ``most`` members, ends included."""
    chosen = np.unique(np.linspace(0, len(front) - 1, min(most, len(front))).round())
    return [front[int(i)] for i in chosen]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.sampling.warm_start",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--hwgpt", type=Path, required=True, help="folder with oracle.py (is run)")
    parser.add_argument("--device", default="rtx3080", help="of the other earlier search")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--earlier", type=int, default=50, help="evaluations of earlier searches")
    parser.add_argument("--evaluations", type=int, default=50)
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "warm-start")
    try:
        problem = make_problem(ProblemName("hwgpt", arguments.hwgpt))
        other = make_problem(ProblemName("hwgpt", arguments.hwgpt, device=arguments.device))
    except (ValueError, OSError) as error:
        print(f"warm_start: {error}", file=sys.stderr)
        return 2
    n, best = arguments.evaluations, problem.best()
    curves: dict[str, list[Array]] = {"cold": [], "same": [], "other": []}
    for seed in range(arguments.seeds):
        curves["cold"].append(run(problem, EhviSampler(seed=seed), n))
        for name, source in (("same", problem), ("other", other)):
            known, front = earlier(source, seed + 1000, arguments.earlier, same=name == "same")
            sampler = EhviSampler(seed=seed, prior_trials=known)
            curves[name].append(run(problem, sampler, n, spread(front, n // _FIRST_SHARE)))
    marks = [mark for mark in _MARKS if mark <= n]
    milestone = problem.milestone or 1.0
    rows = []
    for name, losses in curves.items():
        shares = [volume_curve(loss, problem.reference) / best for loss in losses]
        median = quartiles(shares)[1]
        reached = np.flatnonzero(median >= milestone)
        to = f"{reached[0] + 1}" if len(reached) else "never"
        rows.append({"start": name, "to": to} | {f"at_{m}": median[m - 1] for m in marks})
    columns = {"start": "{start}"} | {f"at {m}": f"{{at_{m}:.4f}}" for m in marks}
    note = f"{problem.name}; earlier searches of {arguments.earlier}, other: {arguments.device}"
    sheet.show(Table.of("start", columns | {f"to {milestone}": "{to}"}, rows, note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
