"""Tables of search quality."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks.sampling.curves import evaluations_to, quartiles, regret
from experiments.benchmarks.sampling.peers.registry import OURS, PEERS
from experiments.benchmarks.sampling.problems.problem import Array, Problem
from experiments.benchmarks.sampling.results import Run
from experiments.results.table import Table

Runs = Mapping[str, Sequence[Run]]
MARKS = (50, 100, 200, 300)


def table_of(problem: Problem, best: float, runs: Runs, evaluations: int) -> Table:
    """One problem: a row for each sampler, and below how many evaluations ours needs."""
    marks = [mark for mark in MARKS if mark < evaluations] + [evaluations]
    columns = {"sampler": "{sampler}", "seeds": "{seeds}"}
    columns |= {f"at {m}": f"{{at_{m}:.4f}} [{{low_{m}:.4f}}, {{high_{m}:.4f}}]" for m in marks}
    if problem.is_scored_by_front:
        columns["of all evaluated"] = "{evaluated:.4f}"
    columns |= {"distinct rows": "{distinct:.0f}", "repeats": "{repeats:.0f}"}
    columns |= {"CPU s": "{cpu_s:.1f}", "wall s": "{wall_s:.1f}"}
    if problem.milestone is not None:
        columns[f"to {problem.milestone:.3f}"] = "{reached}"
    notes = [
        f"{problem.about}; reference {', '.join(f'{x:.6g}' for x in problem.reference)}; best "
        f"known hypervolume {best:.6g}; share of it, median [quartiles] over seeds"
    ]
    regrets = {n: [regret(np.array(r.volumes), best) for r in found] for n, found in runs.items()}
    rows = []
    for name, found in runs.items():
        row: dict[str, Any] = {"sampler": name, "seeds": len(found)}
        for mark in marks:
            row |= _quartiles([1 - np.array(curve) for curve in regrets[name]], mark)
        if problem.is_scored_by_front:
            volumes = [r.evaluated_volume or 0.0 for r in found]
            row["evaluated"] = float(np.median(volumes)) / best
        row["distinct"] = np.median([r.distinct_rows for r in found])
        row["repeats"] = np.median([r.evaluations - r.distinct_rows for r in found])
        row |= {
            kind: np.median([getattr(r, kind)[-1] for r in found]) for kind in ("cpu_s", "wall_s")
        }
        goal = problem.milestone
        row["reached"] = None if goal is None else _reached(regrets[name], 1 - goal)
        rows.append(row)
        shortest = min(r.evaluations for r in found)
        if shortest < evaluations:
            notes.append(f"{name} was given {shortest} evaluations only")
        versions = sorted({r.version for r in found})
        if len(versions) > 1:
            notes.append(f"{name} has runs of versions {', '.join(versions)}")
    notes += _against_peers(regrets, evaluations)
    return Table.of(_slug(problem.name), columns, rows, "\n".join(notes))


def workers_table(
    problem: Problem, best: float, runs: Mapping[int, Runs], evaluations: int
) -> Table:
    """One problem by evaluations in flight: median shares, and their ratios to sequential ones."""
    marks = [mark for mark in MARKS if mark < evaluations] + [evaluations]
    columns = {"sampler": "{sampler}", "in flight": "{in_flight}", "seeds": "{seeds}"}
    columns |= {f"at {m}": f"{{at_{m}:.4f}} ({{ratio_{m}:.3f}})" for m in marks}
    columns |= {"proposals a second": "{rate:.1f}", "a CPU second": "{cpu_rate:.1f}"}
    rows = []
    for in_flight, by_sampler in runs.items():
        for name, found in by_sampler.items():
            row: dict[str, Any] = {"sampler": name, "in_flight": in_flight, "seeds": len(found)}
            for mark in marks:
                share = _median_share(found, best, mark)
                alone = _median_share(runs.get(1, {}).get(name, ()), best, mark)
                row[f"at_{mark}"] = share
                row[f"ratio_{mark}"] = share / alone if share and alone else None
            row["rate"] = float(np.median([r.evaluations / r.wall_s[-1] for r in found]))
            row["cpu_rate"] = float(np.median([r.evaluations / r.cpu_s[-1] for r in found]))
            rows.append(row)
    note = (
        f"{problem.name}: share of the best known hypervolume, median over seeds, by evaluations "
        "that ended; in brackets its ratio to that with one in flight"
    )
    return Table.of(_slug(f"{problem.name} workers"), columns, rows, note)


def _median_share(runs: Sequence[Run], best: float, mark: int) -> float | None:
    if not runs or any(r.evaluations < mark for r in runs):
        return None
    return float(np.median([r.volumes[mark - 1] for r in runs])) / best


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _quartiles(shares: Sequence[Array], mark: int) -> dict[str, float | None]:
    names = (f"low_{mark}", f"at_{mark}", f"high_{mark}")
    if any(len(share) < mark for share in shares):
        return dict.fromkeys(names)
    values = np.quantile([share[mark - 1] for share in shares], (0.25, 0.5, 0.75))
    return {name: float(value) for name, value in zip(names, values, strict=True)}


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
            f"ours to {name}'s median at {evaluations} ({1 - ends[name]:.4f}): {words}{mark}"
        )
    return lines


def legend(names: Sequence[str]) -> str:
    """What the samplers' names stand for, and what the columns are."""
    lines = [f"{name:12} {PEERS[name].about}" for name in names]
    return "\n".join(
        [
            *lines,
            "repeats: proposals of a row evaluated before; each costs any sampler an evaluation.",
            "CPU and wall: asking and telling of one run, one thread, without the objective.",
            "to X: evaluations that pass the share X, median over seeds; fewer: by median curves.",
        ]
    )
