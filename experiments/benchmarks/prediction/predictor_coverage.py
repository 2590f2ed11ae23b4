"""How often a nominal 90% interval holds a label of a measuring session it has not seen.

``python -m experiments.benchmarks.prediction.predictor_coverage``: rows of the made-up device of
``active_measuring``, measured in sessions that each read high or low as a whole by a few percent
(as clocks and temperature do), plus noise of each row. The predictor is fitted to some sessions,
asked about others, and judged by whether its intervals hold the labels measured there. Sizes of
session effects are drawn anew for each seed, so that no one setting is tuned to.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.benchmarks.prediction.active_measuring import Labelled, made_up
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from predictors.energy.regressor import CostRegressor, Terms, TrainingRows

ROWS_A_SESSION = 20
TEST_SESSIONS = 20
SESSIONS = (4, 6, 10, 20)
# Standard deviation of a session's and of a row's own error, relative.
SESSION_SD = (0.01, 0.05)
ROW_SD = 0.01


@dataclass(frozen=True)
class Coverage:
    """One seed: the share of labels held, and the mean relative half-width."""

    sessions: int
    covered: float
    half_width: float


def measure(data: Labelled, sessions: int, confidence: float, seed: int) -> Coverage:
    """Fit to ``sessions`` sessions, and ask about others."""
    rng = np.random.default_rng([seed, sessions])
    n = (sessions + TEST_SESSIONS) * ROWS_A_SESSION
    rows = rng.permutation(len(data.truth))[:n]
    session = np.repeat(np.arange(sessions + TEST_SESSIONS), ROWS_A_SESSION)
    session_sd = rng.uniform(*SESSION_SD)
    error = rng.normal(0, session_sd, sessions + TEST_SESSIONS)[session]
    label = data.truth[rows] * np.exp(error + rng.normal(0, ROW_SD, n))
    seen = session < sessions
    known = rows[seen]
    predictor = CostRegressor.fit(
        TrainingRows(
            tuple(Terms(t.values[known], t.prior, t.pull) for t in data.terms),
            data.features[known],
            label[seen],
            np.full(len(known), ROW_SD),
            session[seen],
        ),
        seed=seed,
    )
    asked = rows[~seen]
    found = predictor.predict(
        data.terms[predictor.choice].values[asked], data.features[asked], confidence
    )
    held = (found.low <= label[~seen]) & (label[~seen] <= found.high)
    width = (found.high - found.low) / (2 * found.mean)
    return Coverage(sessions, float(held.mean()), float(width.mean()))


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each number of sessions."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.prediction.predictor_coverage", description=__doc__
    )
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--sessions", type=int, nargs="+", default=list(SESSIONS))
    parser.add_argument("--confidence", type=float, default=0.9)
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    if arguments.seeds < 2 or min(arguments.sessions) < 2 or not 0 < arguments.confidence < 1:
        print(
            "predictor_coverage: seeds and sessions must be >= 2 and confidence in (0, 1), got "
            f"{arguments.seeds}, {arguments.sessions} and {arguments.confidence}",
            file=sys.stderr,
        )
        return 2
    sheet = Sheet(parser, arguments, "predictor-coverage")
    data, rows = made_up(), []
    for sessions in arguments.sessions:
        found = [
            measure(data, sessions, arguments.confidence, seed) for seed in range(arguments.seeds)
        ]
        covered = np.array([f.covered for f in found])
        error = 1.96 * covered.std(ddof=1) / np.sqrt(len(covered))
        rows.append(
            {
                "sessions": sessions,
                "covered": covered.mean(),
                "low": covered.mean() - error,
                "high": covered.mean() + error,
                "half_width": np.mean([f.half_width for f in found]),
            }
        )
        print(f"{sessions} sessions", file=sys.stderr)
    columns = {
        "sessions measured": "{sessions}",
        f"nominal {arguments.confidence:.0%} holds": "{covered:.1%} [{low:.1%}, {high:.1%}]",
        "half-width": "{half_width:.1%}",
    }
    sheet.show(Table.of("coverage", columns, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
