"""Our predictor beside the usual ones on tables that others measured.

``python -m experiments.benchmarks.prediction.predictor_tables --hat A.csv --hat B.csv``
``  --edgetran C.json --hwgpt FOLDER --plain D.csv:target``

Each learner gets ``n`` random rows and is judged on all others; the same rows for all, means over
seeds. Baselines are log-log regression on FLOPs, ridge, a random forest, gradient boosting and a
Gaussian process (scikit-learn), each on the table's own columns, once more with our counts beside
them, and on their logarithms where a table has no other counts; ours is judged against the best of
all in either figure.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.benchmarks.tables.edgetran import read_edgetran
from experiments.benchmarks.tables.hat import read_hat
from experiments.benchmarks.tables.hwgpt import read_hwgpt
from experiments.benchmarks.tables.plain import read_plain
from experiments.benchmarks.tables.table import Array, Table
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table as Shown
from predictors.energy.regressor import LEAST_ROWS, CostRegressor

_LEARNERS: dict[str, Callable[[], object]] = {
    "ridge": lambda: make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13))),
    "forest": lambda: RandomForestRegressor(200, min_samples_leaf=2, random_state=0),
    "boosting": lambda: GradientBoostingRegressor(
        n_estimators=200, max_depth=3, learning_rate=0.05, subsample=0.7, random_state=0
    ),
    "process": lambda: make_pipeline(
        StandardScaler(),
        GaussianProcessRegressor(
            ConstantKernel(1.0) * RBF(5.0) + WhiteKernel(0.1), normalize_y=True, random_state=0
        ),
    ),
}


@dataclass(frozen=True)
class Score:
    """Kendall's tau and MAPE (percent) of one method; ``coverage`` of the 90% interval."""

    tau: float
    mape: float
    coverage: float | None = None
    half_width: float | None = None


@dataclass(frozen=True)
class Cell:
    """One table and number of rows: scores by method, means over seeds."""

    table: str
    n: int
    seeds: int
    scores: dict[str, Score]

    @property
    def best_tau(self) -> tuple[str, float]:
        """The best baseline by tau."""
        return max(((k, s.tau) for k, s in self._baselines()), key=lambda item: item[1])

    @property
    def best_mape(self) -> tuple[str, float]:
        """The best baseline by MAPE."""
        return min(((k, s.mape) for k, s in self._baselines()), key=lambda item: item[1])

    def _baselines(self) -> list[tuple[str, Score]]:
        return [(name, score) for name, score in self.scores.items() if name != "ours"]


def run_cell(table: Table, n: int, seeds: int, *, baselines: bool = True) -> Cell:
    """Scores of every method with ``n`` training rows."""
    found = []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(table))
        found.append(scores_of(table, order[:n], order[n:], seed, baselines=baselines))
    return Cell(table.name, n, seeds, mean_scores(found))


def scores_of(
    table: Table,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    seed: int,
    *,
    baselines: bool = True,
) -> dict[str, Score]:
    """Scores of every method that is fitted to some rows and judged on others."""
    truth = table.target[test]
    fitted = CostRegressor.fit(table.training(train), seed=seed)
    ours = fitted.predict(table.terms[test], table.inputs[test])
    inside = float(np.mean((ours.low <= truth) & (truth <= ours.high)))
    width = float(np.median(np.log(ours.high / ours.low))) / 2
    scores = {"ours": Score(*errors(ours.mean, truth), coverage=inside, half_width=width)}
    if baselines:
        for name, predicted in baseline_predictions(table, train, test).items():
            scores[name] = Score(*errors(predicted, truth))
    return scores


def baseline_predictions(
    table: Table, train: NDArray[np.int64], test: NDArray[np.int64]
) -> dict[str, Array]:
    """What the usual models predict, by their names."""
    log_y, log_flops = np.log(table.target), np.log(table.flops)
    line = np.polyfit(log_flops[train], log_y[train], 1)
    predicted = {"flops": np.exp(np.polyval(line, log_flops[test]))}
    kinds = {"": table.raw, "+counts": table.features}
    if table.logs is not None:
        kinds["+logs"] = table.inputs
    with warnings.catch_warnings():
        # Hyperparameters at a bound are no fault with a few dozen rows.
        warnings.simplefilter("ignore")
        for suffix, columns in kinds.items():
            for name, make in _LEARNERS.items():
                model = make()
                model.fit(columns[train], log_y[train])  # type: ignore[attr-defined]
                log_test = model.predict(columns[test])  # type: ignore[attr-defined]
                predicted[name + suffix] = np.exp(log_test)
    return predicted


def errors(predicted: Array, truth: Array) -> tuple[float, float]:
    """Kendall's tau, and MAPE in percent."""
    # Equal predictions have no order and count as 0.
    tau = 0.0 if np.ptp(predicted) == 0 else float(kendalltau(predicted, truth).statistic)
    return tau, 100 * float(np.mean(np.abs(predicted / truth - 1)))


def mean_scores(found: Sequence[dict[str, Score]]) -> dict[str, Score]:
    """Means by method."""
    return {name: _mean([scores[name] for scores in found]) for name in found[0]}


def _mean(scores: Sequence[Score]) -> Score:
    def of(name: str) -> float | None:
        values = [getattr(score, name) for score in scores]
        return None if values[0] is None else float(np.mean(values))

    return Score(of("tau") or 0.0, of("mape") or 0.0, of("coverage"), of("half_width"))


def shown(cells: Sequence[Cell]) -> list[Shown]:
    """Ours beside the best of the others, and every method by itself."""
    rows = [_row(cell) for cell in cells]
    columns = {
        "table": "{table}",
        "rows": "{n}",
        "tau": "{tau:.3f}",
        "MAPE %": "{mape:.2f}",
        "90% interval holds": "{coverage:.1%}",
        "half-width": "{half_width:.1%}",
    }
    if any(row["best_tau"] is not None for row in rows):
        columns |= {
            "best other tau": "{best_tau:.3f} ({best_by_tau})",
            "best other MAPE %": "{best_mape:.2f} ({best_by_mape})",
            "ours is": "{verdict}",
        }
    methods = [
        {"table": cell.table, "n": cell.n, "method": name, "tau": s.tau, "mape": s.mape}
        for cell in cells
        for name, s in cell.scores.items()
    ]
    each = {
        "table": "{table}",
        "rows": "{n}",
        "method": "{method}",
        "tau": "{tau:.3f}",
        "MAPE %": "{mape:.2f}",
    }
    return [Shown.of("best", columns, rows), Shown.of("methods", each, methods)]


def _row(cell: Cell) -> dict[str, Any]:
    ours = cell.scores["ours"]
    row: dict[str, Any] = {"table": cell.table, "n": cell.n, **asdict(ours)}
    names = ("best_tau", "best_by_tau", "best_mape", "best_by_mape", "verdict")
    if len(cell.scores) == 1:
        return row | dict.fromkeys(names)
    (by_tau, tau), (by_mape, mape) = cell.best_tau, cell.best_mape
    is_behind = {"tau": ours.tau < tau - 5e-4, "MAPE": ours.mape > mape + 5e-3}
    behind = [name for name, is_so in is_behind.items() if is_so]
    verdict = f"behind in {' and '.join(behind)}" if behind else "ahead"
    return row | dict(zip(names, (tau, by_tau, mape, by_mape, verdict), strict=True))


def read_tables(arguments: argparse.Namespace) -> list[Table]:
    """The tables that the command line names.

    Raises:
        ValueError: none, or one that cannot be read.
    """
    tables = [read_edgetran(path, arguments.metric) for path in arguments.edgetran]
    tables += [read_hat(path) for path in arguments.hat]
    tables += [
        read_hwgpt(path, scale=arguments.scale, device=arguments.hw_device)
        for path in arguments.hwgpt
    ]
    for text in arguments.plain:
        # From the right: a path may have colons too, as C:\\tables.
        path, _, target = text.rpartition(":")
        if not path or not target:
            raise ValueError(f"--plain must be FILE.csv:TARGET, got {text!r}")
        tables.append(
            read_plain(
                Path(path),
                target,
                flops=arguments.flops,
                group=arguments.group,
                ignore=tuple(arguments.ignore),
            )
        )
    if not tables:
        raise ValueError("name one table or more: --edgetran, --hat, --hwgpt or --plain")
    return tables


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """The options by which tables are named."""
    for name, what in (
        ("edgetran", "JSON of EdgeTran"),
        ("hat", "CSV of HAT"),
        ("hwgpt", "folder of HW-GPT-Bench with oracle.py (is run: give one you trust)"),
    ):
        parser.add_argument(f"--{name}", type=Path, action="append", default=[], help=what)
    parser.add_argument("--plain", action="append", default=[], help="FILE.csv:TARGET")
    parser.add_argument("--flops", help="column of --plain used as the proxy")
    parser.add_argument("--group", help="column of --plain: equal values were measured together")
    parser.add_argument("--ignore", action="append", default=[], help="no feature of --plain")
    parser.add_argument("--metric", default="energy", help="of EdgeTran (default: energy)")
    parser.add_argument("--scale", default="s", help="of HW-GPT-Bench (default: s)")
    parser.add_argument("--hw-device", default="h100", help="of HW-GPT-Bench (default: h100)")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.prediction.predictor_tables", description=__doc__
    )
    add_table_arguments(parser)
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 100, 200, 500])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ours-only", action="store_true", help="leave the baselines out")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "predictor-tables")
    try:
        if min(arguments.rows) < LEAST_ROWS:
            raise ValueError(f"--rows must be >= {LEAST_ROWS}, got {min(arguments.rows)}")
        if arguments.seeds < 1:
            raise ValueError(f"--seeds must be >= 1, got {arguments.seeds}")
        tables = read_tables(arguments)
    except (ValueError, OSError) as error:
        print(f"predictor_tables: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    cells = []
    for table in tables:
        for n in arguments.rows:
            if n > len(table) - 20:
                print(f"{table.name}: {len(table)} rows, too few for n={n}", file=sys.stderr)
                continue
            print(f"{table.name}, n={n} ...", file=sys.stderr)
            cells.append(run_cell(table, n, arguments.seeds, baselines=not arguments.ours_only))
    if not cells:
        print("predictor_tables: no table has rows enough", file=sys.stderr)
        return 2
    sheet.show(*shown(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
