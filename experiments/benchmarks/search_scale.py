"""What a search's driver costs with a thousand workers and a hundred thousand trials.

``python -m experiments.benchmarks.search_scale --plot scale.png``

Workers and their clock are simulated; accuracy and joules are formulas of counts
(``scale.law``). Session, gate, sampler and the journal on disk are the driver's own. All that the
gate would drop is evaluated all the same, so that the search does not end for want of candidates.
Seconds are CPU seconds of one thread. Growth is the exponent of the number of trials, over the
last decade of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from threadpoolctl import threadpool_limits

from experiments.benchmarks.scale.growth import SERIES, exponent
from experiments.benchmarks.scale.simulate import Point, simulate
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table

_POINTS = (100, 300, 1_000, 3_000, 10_000, 20_000, 30_000, 50_000, 70_000, 85_000, 100_000)


def table_of(points: Sequence[Point]) -> Table:
    """A row a point, and the growth of each figure."""
    rows = [
        asdict(p)
        | {
            "propose_ms": 1e3 * p.propose_cpu_s,
            "most_propose_ms": 1e3 * p.most_propose_cpu_s,
            "finish_ms": 1e3 * p.finish_cpu_s,
            "storage_mb": p.storage_bytes / 1e6,
            "simulated_h": p.simulated_s / 3600,
        }
        for p in points
    ]
    columns = {
        "trials": "{trials:,d}",
        "proposal ms (longest)": "{propose_ms:.1f} ({most_propose_ms:,.0f})",
        "result ms": "{finish_ms:.1f}",
        "driver CPU s": "{cpu_s:,.0f}",
        "storage MB": "{storage_mb:.1f}",
        "memory MB": "{resident_mb:,.0f}",
        "front CPU s (MB)": "{front_cpu_s:.2f} ({front_peak_mb:,.0f})",
        "members": "{front_members}",
        "simulated h": "{simulated_h:.2f}",
    }
    growth = [f"{label} {exponent(points, value):.2f}" for label, value in SERIES.items()]
    return Table.of("points", columns, rows, f"growth: {', '.join(growth)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.search_scale", description=__doc__
    )
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--sampler", default="ehvi")
    parser.add_argument("--space", default="digits-tiny", help="a preset")
    parser.add_argument("--cpu-s", type=float, help="end after so many CPU seconds")
    parser.add_argument("--plot", type=Path)
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "search-scale")
    os.environ["OMP_NUM_THREADS"] = "1"
    marks = sorted({min(n, arguments.trials) for n in (*_POINTS, arguments.trials)})
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        for point in simulate(
            Path(folder) / "run",
            trials=arguments.trials,
            workers=arguments.workers,
            sampler=arguments.sampler,
            space=arguments.space,
            points=marks,
            said=lambda line: print(line, file=sys.stderr, flush=True),
        ):
            points.append(point)
            # What there is by now, should the rest never come.
            sheet.keep(table_of(points))
            if arguments.cpu_s is not None and time.process_time() > arguments.cpu_s:
                print(f"ended after {time.process_time():,.0f} CPU s", file=sys.stderr)
                break
    sheet.show(table_of(points))
    if arguments.plot is not None:
        from experiments.benchmarks.scale.plots import draw

        draw(points, arguments.plot, f"{arguments.workers:,} workers, {arguments.sampler}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
