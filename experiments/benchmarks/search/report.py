"""Tables of search quality as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.benchmarks.search.curves import evaluations_to, quartiles, regret
from experiments.benchmarks.search.peers import OURS, PEERS
from experiments.benchmarks.search.problem import Array, Problem
from experiments.benchmarks.search.results import Run

Runs = Mapping[str, Sequence[Run]]
MARKS = (50, 100, 200, 300)


def render(problem: Problem, best: float, runs: Runs, evaluations: int) -> str:
    """One problem: a line for each sampler, and how many evaluations ours needs."""
    marks = [mark for mark in MARKS if mark < evaluations] + [evaluations]
    head = f"{'sampler':12} {'seeds':>5}" + "".join(f"  {f'at {m}':^22}" for m in marks)
    head += f"  {'distinct':>8} {'CPU s':>8} {'wall s':>8}"
    if problem.milestone is not None:
        head += f"  {f'to {problem.milestone:.3f}':>8}"
    lines = [
        f"{problem.name}: {problem.about}",
        f"  reference {problem.reference[0]:.6g}, {problem.reference[1]:.6g}; best known "
        f"hypervolume {best:.6g}; share of it, median [quartiles] over seeds",
        head,
    ]
    regrets = {n: [regret(np.array(r.volumes), best) for r in found] for n, found in runs.items()}
    for name, found in runs.items():
        curves = [1 - np.array(curve) for curve in regrets[name]]
        cells = "".join(f"  {_cell(curves, mark)}" for mark in marks)
        cost = [np.median([getattr(r, kind)[-1] for r in found]) for kind in ("cpu_s", "wall_s")]
        distinct = np.median([r.distinct / r.evaluations for r in found])
        line = f"{name:12} {len(found):5}{cells}  {distinct:8.0%} {cost[0]:8.1f} {cost[1]:8.1f}"
        if problem.milestone is not None:
            line += f"  {_reached(regrets[name], 1 - problem.milestone):>8}"
        lines.append(line)
        shortest = min(r.evaluations for r in found)
        if shortest < evaluations:
            lines.append(f"{'':18}  {name} was given {shortest} evaluations only")
        versions = sorted({r.version for r in found})
        if len(versions) > 1:
            lines.append(f"{'':18}  {name} has runs of versions {', '.join(versions)}")
    return "\n".join([*lines, *_against_peers(regrets, evaluations)])


def _cell(shares: Sequence[Array], mark: int) -> str:
    if any(len(share) < mark for share in shares):
        return f"{'-':^22}"
    low, median, high = np.quantile([share[mark - 1] for share in shares], (0.25, 0.5, 0.75))
    return f"{median:.4f} [{low:.4f}, {high:.4f}]"


def _reached(regrets: Sequence[Array], target: float) -> str:
    found = [evaluations_to(curve, target) for curve in regrets]
    reached = [np.inf if n is None else float(n) for n in found]
    median = float(np.median(reached))
    return "never" if np.isinf(median) else f"{median:.0f}"


def _against_peers(regrets: Mapping[str, Sequence[Array]], evaluations: int) -> list[str]:
    """Ours against the peer whose median regret is least after all evaluations."""
    ends = {
        name: float(quartiles(curves)[1, evaluations - 1])
        for name, curves in regrets.items()
        if name != OURS and min(len(c) for c in curves) >= evaluations
    }
    if OURS not in regrets or not ends:
        return []
    lines = []
    ours = quartiles(regrets[OURS])[1]
    best = min(ends, key=lambda name: ends[name])
    for name in dict.fromkeys([best, *sorted(ends, key=lambda n: ends[n])]):
        needed = evaluations_to(ours, ends[name])
        words = (
            f"not reached in {len(ours)}"
            if needed is None
            else f"{needed} evaluations, {evaluations / needed:.1f}x fewer"
        )
        mark = " (the best peer)" if name == best else ""
        lines.append(
            f"  ours to {name}'s median at {evaluations} ({1 - ends[name]:.4f}): {words}{mark}"
        )
    return lines


def legend(names: Sequence[str]) -> str:
    """What the samplers' names stand for, and what the columns are."""
    lines = [f"{name:12} {PEERS[name].about}" for name in names]
    return "\n".join(
        [
            *lines,
            "Repeated candidates count as evaluations; distinct: share that was new.",
            "CPU and wall: asking and telling of one run, one thread, without the objective.",
            "to X: evaluations that pass the share X, median over seeds; fewer: by median curves.",
        ]
    )
