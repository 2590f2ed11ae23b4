"""How much did searches prune of what they considered?

    python -m experiments.benchmarks.sampling.pruned_shares quickstart images text

The arguments are folders of ended runs of ``nas search``. Beside the share stand what limits it:
the trials from which the predictors learn, and the standard error of the best quality as a share
of the span of qualities, below which no candidate is certainly worse.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nas
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.analysis.summary import summarise
from nas.store.run import Run


def row_of(name: str, run: Run) -> dict[str, Any]:
    """Return the counts of an ended search, called ``name``.

    Raises:
        ValueError: the search has not ended, or its sampler considers nothing.
    """
    summary = summarise(run)
    counts = summary.pruning
    if not summary.finished or not counts.considered:
        raise ValueError(f"{name} must be an ended search with the sampler ehvi")
    outcomes = [trial.outcome for trial in run.trials() if trial.outcome is not None]
    scores = [outcome.quality for outcome in outcomes if outcome.quality is not None]
    best = max(scores, key=lambda score: score.value)
    span = best.value - min(score.value for score in scores)
    return {
        "run": name,
        "trials": summary.complete,
        "measured": summary.measured,
        "considered": counts.considered,
        "pruned": counts.share,
        "dominated": counts.dominated,
        "over_limit": counts.over_limit,
        "false": f"{summary.audit.n_false} of {summary.audit.n_audited}",
        "error": best.standard_error / span if span > 0 else None,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each run."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.sampling.pruned_shares",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "pruned-shares")
    try:
        rows = [row_of(folder.name, nas.load(folder)) for folder in arguments.runs]
    except ValueError as error:
        parser.error(str(error))
    columns = {
        "search": "{run}",
        "trials (measured)": "{trials} ({measured})",
        "considered": "{considered:,}",
        "pruned": "{pruned:.0%}",
        "dominated": "{dominated:,}",
        "over a limit": "{over_limit:,}",
        "false, of audited": "{false}",
        "standard error, of the span of qualities": "{error:.0%}",
    }
    sheet.show(Table.of("shares", columns, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
