"""How well a predictor of one device adapts to another from a few measured rows.

``python -m experiments.benchmarks.prediction.predictor_transfer --hat SOURCE.csv``
``  --hat TARGET.csv``

A regressor fitted to all of the first table adapts to the second from a few rows, random ones or
those it chooses itself, beside training from scratch. Rows are taken from one half of the second
table and judged on the other; means over seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from experiments.benchmarks.tables.hat import read_hat
from experiments.benchmarks.tables.table import Array, Table
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table as Shown
from predictors.energy.regressor import CostRegressor, Predictions, Terms, TrainingRows
from predictors.energy.transfer import rows_to_adapt, transfer_terms


def run(source: Table, target: Table, seeds: int) -> dict[str, Array]:
    """Mean tau, MAPE (percent) and coverage of each way, by its name."""
    everything = np.arange(len(source))
    fitted = CostRegressor.fit(source.training(everything))
    predicted = fitted.predict(target.terms, target.features).mean
    prior = transfer_terms(target.terms, fitted.costs, predicted, target.term_groups)
    scores: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(target))
        pool, test = np.array_split(order, 2)

        def judge(name: str, terms: Terms, rows: Array, test: Array = test) -> None:
            training = target.training(rows)
            model = CostRegressor.fit(
                TrainingRows(
                    (Terms(terms.values[rows], terms.prior, terms.pull),),
                    training.features,
                    training.target,
                    training.relative_sd,
                    training.groups,
                )
            )
            found = model.predict(terms.values[test], target.features[test])
            scores.setdefault(name, []).append(_score(found, target.target[test]))

        for n in (10, 20, 30):
            chosen = rows_to_adapt(target.terms[pool], predicted[pool], target.term_groups, n)
            judge(f"adapted, {n} rows of its choice", prior, pool[chosen])
            judge(f"adapted, {n} random rows", prior, pool[:n])
        for n in (20, 50, 100, 200):
            judge(f"from scratch, {n} random rows", Terms(target.terms), pool[:n])
    return {name: np.mean(found, axis=0) for name, found in scores.items()}


def _score(found: Predictions, truth: Array) -> tuple[float, float, float]:
    return (
        float(kendalltau(found.mean, truth).statistic),
        100 * float(np.mean(np.abs(found.mean / truth - 1))),
        float(np.mean((found.low <= truth) & (truth <= found.high))),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.prediction.predictor_transfer", description=__doc__
    )
    parser.add_argument("--hat", type=Path, action="append", required=True, help="source, target")
    parser.add_argument("--seeds", type=int, default=10)
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "predictor-transfer")
    try:
        if len(arguments.hat) != 2:
            raise ValueError(f"--hat must be given twice, got {len(arguments.hat)}")
        source, target = (read_hat(path) for path in arguments.hat)
    except (ValueError, OSError) as error:
        print(f"predictor_transfer: {error}", file=sys.stderr)
        return 2
    rows = [
        {"way": name, "tau": tau, "mape": mape, "coverage": coverage}
        for name, (tau, mape, coverage) in run(source, target, arguments.seeds).items()
    ]
    columns = {
        f"{source.name} to {target.name}": "{way}",
        "tau": "{tau:.3f}",
        "MAPE %": "{mape:.2f}",
        "90% interval holds": "{coverage:.1%}",
    }
    sheet.show(Shown.of("ways", columns, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
