"""What early stopping saves: rules replayed on recorded learning curves in many random orders.

    python -m experiments.benchmarks.sampling.early_stopping CURVES.jsonl

The curves are those of ``experiments.learning_curves``. Candidates come one by one in
a random order, and each rule decides at its rungs which of them train on. The plain search trains
all. A search is charged for the seconds of the epochs that it trains; hypervolume is of (quality,
log joules) of complete trials, as a share of that of all candidates. *Near* are the half of the
candidates that the fewest others dominate, since a sampler's proposals are near the front.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.learning_curves import Curve, read_curves
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.pareto.dominance import non_dominated_mask
from nas.pareto.hypervolume import hypervolume, reference_point
from nas.records.rungs import HalvingConfig, RungPoint
from nas.searching.early_stopping import Contender, dominating

Floats = NDArray[np.float64]
# Whether a trial trains on, among those that reached its rung before.
Rule = Callable[[Contender, Sequence[Contender]], bool]

# Trials that no rule stops, as in a search.
_STARTUP = HalvingConfig().startup_trials
# The share of the whole hypervolume that seconds are counted to.
_GOAL = 0.99


def trains_on(trial: Contender, others: Sequence[Contender], *, least_errors: float) -> bool:
    """The project's rule: stop what another trial dominates by so many standard errors."""
    return dominating(trial, others, least_errors) is None


def is_ranked(trial: Contender, others: Sequence[Contender], *, eta: int) -> bool:
    """MO-ASHA (Schmucker et al. 2021) by non-dominated sorting: the best 1/eta train on."""
    rung = [*others, trial]
    left = np.array([(-c.point.quality, c.energy_j) for c in rung])
    positions, n_better = np.arange(len(rung)), 0
    while True:
        is_front = non_dominated_mask(left[positions], (False, False))
        if len(rung) - 1 in positions[is_front]:
            return n_better < math.ceil(len(rung) / eta)
        n_better += int(is_front.sum())
        positions = positions[~is_front]


@dataclass(frozen=True, slots=True)
class Replay:
    """One search: seconds and hypervolume after each candidate, and positions of the stopped."""

    seconds: Floats
    volumes: Floats
    stopped: tuple[int, ...]

    def at(self, seconds: float) -> float:
        """The hypervolume that ``seconds`` reached."""
        return float(self.volumes[self.seconds <= seconds].max(initial=0.0))

    def seconds_to(self, volume: float) -> float:
        """The seconds to a hypervolume, infinite where it was not reached."""
        reached = self.seconds[self.volumes >= volume]
        return float(reached[0]) if len(reached) else math.inf


def replay(
    curves: Sequence[Curve],
    order: Sequence[int],
    rungs: Sequence[int],
    rule: Rule,
    reference: Sequence[float],
) -> Replay:
    """Replay one search of ``curves`` in ``order``."""
    reached: dict[int, list[Contender]] = {epoch: [] for epoch in rungs}
    points: list[tuple[float, float]] = []
    seconds, volumes, stopped = [0.0], [0.0], []
    for place, position in enumerate(order):
        curve = curves[position]
        epochs = trained = len(curve.qualities)
        for epoch in rungs:
            point = RungPoint(epoch, curve.qualities[epoch - 1], curve.standard_errors[epoch - 1])
            trial = Contender(position, point, curve.energy_j)
            goes_on = place < _STARTUP or rule(trial, reached[epoch])
            reached[epoch].append(trial)
            if not goes_on:
                trained = epoch
                stopped.append(position)
                break
        else:
            points.append((-curve.qualities[-1], math.log(curve.energy_j)))
        seconds.append(seconds[-1] + curve.train_s * trained / epochs)
        volumes.append(hypervolume(points, reference, (False, False)))
    return Replay(np.array(seconds), np.array(volumes), tuple(stopped))


def near_front(curves: Sequence[Curve]) -> list[Curve]:
    """The half of ``curves`` that the fewest others dominate, in their order."""
    losses = _losses(curves)
    no_worse = np.all(losses[:, None] <= losses[None], axis=2)
    better = no_worse & np.any(losses[:, None] < losses[None], axis=2)
    chosen = np.argsort(better.sum(axis=0), kind="stable")[: len(curves) // 2]
    return [curves[position] for position in sorted(chosen)]


def compare(
    curves: Sequence[Curve], rules: Sequence[tuple[str, Rule, Sequence[int]]], n_orders: int
) -> list[dict[str, Any]]:
    """Return a row of means over ``n_orders`` random orders for each of ``rules``."""
    losses = _losses(curves)
    is_front = non_dominated_mask(losses, (False, False))
    reference = reference_point(losses[is_front], losses).tolist()
    whole = hypervolume(losses, reference, (False, False))
    total_s = sum(curve.train_s for curve in curves)
    front = set(np.flatnonzero(is_front).tolist())
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(curves)) for _ in range(n_orders)]
    plain = [replay(curves, order, (), lambda *_: True, reference) for order in orders]
    rows = []
    for name, rule, rungs in rules:
        runs = [replay(curves, order, rungs, rule, reference) for order in orders]
        lost = np.array([1 - run.volumes[-1] / whole for run in runs])
        pairs = list(zip(runs, plain, strict=True))
        at_half = [(r.at(total_s / 2) - p.at(total_s / 2)) / whole for r, p in pairs]
        to_goal = np.array([r.seconds_to(_GOAL * whole) for r in runs])
        is_reached = np.isfinite(to_goal)
        plain_s = np.array([p.seconds_to(_GOAL * whole) for p in plain])
        rows.append(
            {
                "rule": name,
                "rungs": ", ".join(map(str, rungs)),
                "stopped": float(np.mean([len(run.stopped) for run in runs])),
                "stopped_front": float(np.mean([len(front & {*run.stopped}) for run in runs])),
                "seconds": float(np.mean([run.seconds[-1] for run in runs])) / total_s,
                "lost": float(lost.mean()),
                "lost_95": float(np.quantile(lost, 0.95)),
                "at_half": float(np.mean(at_half)),
                "at_half_se": float(np.std(at_half) / math.sqrt(n_orders)),
                "reached": float(is_reached.mean()),
                "to_goal": float(to_goal[is_reached].sum() / plain_s[is_reached].sum())
                if is_reached.any()
                else None,
            }
        )
    return rows


def rules_for(epochs: int) -> list[tuple[str, Rule, Sequence[int]]]:
    """The rules that are compared, with their rungs."""
    few, every = HalvingConfig.for_epochs(epochs).rungs(epochs), tuple(range(1, epochs))
    return [
        ("plain", lambda *_: True, ()),
        *((f"best 1/{eta}", partial(is_ranked, eta=eta), few) for eta in (2, 3)),
        *(
            (f"not dominated by {k:g} SE", partial(trains_on, least_errors=k), rungs)
            for rungs in (few, every)
            for k in (0, 0.5, 1, 2)
        ),
    ]


def _losses(curves: Sequence[Curve]) -> Floats:
    return np.array([(-curve.qualities[-1], math.log(curve.energy_j)) for curve in curves])


def main(argv: Sequence[str] | None = None) -> int:
    """Replay all rules on one file of curves, and on the half of them near the front."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.sampling.early_stopping",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("curves", type=Path)
    parser.add_argument("--orders", type=int, default=1000)
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, f"early-stopping-{arguments.curves.stem}")
    curves = read_curves(arguments.curves)
    epochs = len(curves[0].qualities)
    rules = rules_for(epochs)
    columns = {
        "rule": "{rule}",
        "at epochs": "{rungs}",
        "stopped (of the front)": "{stopped:.1f} ({stopped_front:.1f})",
        "seconds": "{seconds:.0%}",
        "hypervolume lost (95% of orders)": "{lost:.2%} ({lost_95:.2%})",
        "more at half of the seconds": "{at_half:+.1%} ± {at_half_se:.1%}",
        "seconds to 99% (orders that reach it)": "x {to_goal:.2f} ({reached:.0%})",
    }
    tables = []
    for name, some in (("all", curves), ("near", near_front(curves))):
        mean_s = sum(curve.train_s for curve in some) / len(some)
        note = f"{len(some)} candidates of {epochs} epochs, {mean_s:.0f} CPU s each on average"
        tables.append(Table.of(name, columns, compare(some, rules, arguments.orders), note))
    sheet.show(*tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
