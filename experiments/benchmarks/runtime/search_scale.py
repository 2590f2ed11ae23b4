"""What a search's driver costs with a thousand workers and a hundred thousand trials.

``python -m experiments.benchmarks.runtime.search_scale --plot scale.png``, or with ``--of FILE``
besides, the picture of a result that was kept.

Workers and their clock are simulated; accuracy and joules are formulas of counts
(``scale/law.py``). Session, gate, sampler and the study on disk are the driver's own. All that the
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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from experiments.benchmarks.runtime.scale.growth import SERIES, exponent
from experiments.benchmarks.runtime.scale.simulate import Point, simulate
from experiments.results.record import Result
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


def points_of(result: Result) -> list[Point]:
    """The points of a result that was kept."""
    names = [field.name for field in fields(Point)]
    # The file's own reader has checked that each row has all columns.
    rows: list[dict[str, Any]] = [dict(row) for row in result.table("points").rows]
    return [Point(**{name: row[name] for name in names}) for row in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, or draw that of ``--of``."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.runtime.search_scale", description=__doc__
    )
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--sampler", default="ehvi")
    parser.add_argument("--space", default="digits-tiny", help="a preset")
    parser.add_argument("--cpu-s", type=float, help="end after so many CPU seconds")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--of", type=Path, metavar="FILE", help="draw this kept result alone")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    if arguments.of is not None:
        if arguments.plot is None:
            parser.error("--of needs --plot, where the picture goes")
        try:
            result = Result.read(arguments.of)
            found = points_of(result)
        except (OSError, ValueError, KeyError) as error:
            parser.error(f"--of must be a kept result of this command: {error}")
        _draw(found, arguments.plot, result.config)
        return 0
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
        _draw(points, arguments.plot, vars(arguments))
    return 0


def _draw(points: Sequence[Point], path: Path, config: Mapping[str, Any]) -> None:
    from experiments.benchmarks.runtime.scale.plots import draw

    draw(points, path, f"{config['workers']:,} workers, {config['sampler']}")


if __name__ == "__main__":
    sys.exit(main())
