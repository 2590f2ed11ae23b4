"""Wall time and front of the quickstart search beside those of another checkout, interleaved.

``python -m experiments.benchmarks.runtime.quickstart_time --beside CHECKOUT``

For each seed both checkouts run ``nas search quickstart`` with the same seed, one after the other
and in random order, each with a compiler cache of its own that lasts over seeds. *Wall* and *CPU*
seconds are of the whole command with its workers. *Hypervolume* is of each front's quality and
decades of joules, beyond one reference point for all fronts of a seed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from experiments.results.sheet import ROOT, Sheet, add_keep_option
from experiments.results.table import Table
from nas.pareto.hypervolume import hypervolume


@dataclass(frozen=True, slots=True)
class Search:
    """One search: its seconds, its trials, and its front as quality and decades of joules."""

    wall_s: float
    cpu_s: float
    trials: int
    front: tuple[tuple[float, float], ...]


def run_search(
    checkout: Path, options: Sequence[str], cache: Path, runs: Path | None = None
) -> Search:
    """Run the quickstart of ``checkout``; ``runs`` keeps its run directory, else it is removed.

    Raises:
        RuntimeError: the search failed.
    """
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "XDG_CACHE_HOME": str(cache),
        # Ray gives its workers a low priority, so that other processes of a machine stop them.
        "RAY_worker_niceness": "0",
    }
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        environment.pop(name, None)
    with tempfile.TemporaryDirectory() as removed:
        folder = removed if runs is None else runs
        command = [sys.executable, "-m", "nas.cli.main", "search", "quickstart", *options]
        before, started = _children_cpu_s(), time.perf_counter()
        done = subprocess.run(
            [*command, "--run", f"{folder}/run", "--json", "--quiet"],
            cwd=removed,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        wall_s, used_s = time.perf_counter() - started, _children_cpu_s() - before
    if done.returncode:
        raise RuntimeError(f"{checkout}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return read_search(json.loads(done.stdout), wall_s, used_s)


def read_search(printed: Mapping[str, Any], wall_s: float, cpu_s: float) -> Search:
    """Return the search that ``nas search --json`` printed."""
    members = printed["front"]["members"]
    # Checkouts from before scores were called quality say accuracy.
    front = tuple(
        (member["quality"] if "quality" in member else member["accuracy"], _decades(member))
        for member in members
    )
    return Search(wall_s, cpu_s, int(printed["summary"]["complete"]), front)


def _decades(member: Mapping[str, Any]) -> float:
    return math.log10(member["energy_j"])


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def volumes(searches: Sequence[Search]) -> list[float]:
    """Return each front's hypervolume beyond the worst quality and joules of all."""
    points = [point for search in searches for point in search.front]
    reference = (min(q for q, _ in points) - 0.01, max(e for _, e in points) + 0.1)
    return [hypervolume(search.front, reference, (True, False)) for search in searches]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.runtime.quickstart_time", description=__doc__
    )
    parser.add_argument("--beside", type=Path, required=True, help="a checkout to compare with")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="to add seeds to an earlier run")
    parser.add_argument("--trials", type=int, help="as of nas search (default: the recipe's)")
    parser.add_argument("--epochs", type=int, help="as of nas search (default: the recipe's)")
    parser.add_argument("--runs", type=Path, help="keep the run directories in this folder")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    first: int = arguments.first_seed
    theme = f"quickstart-time-from-{first}" if first else "quickstart-time"
    sheet = Sheet(parser, arguments, theme)
    if arguments.seeds < 1 or not (arguments.beside / "nas").is_dir():
        print(
            f"quickstart_time: seeds must be >= 1 and beside a checkout, got {arguments.seeds} "
            f"and {arguments.beside}",
            file=sys.stderr,
        )
        return 2
    shared = [
        text
        for name in ("trials", "epochs")
        if (value := getattr(arguments, name)) is not None
        for text in (f"--{name}", str(value))
    ]
    order, rows = random.Random(0), []
    with tempfile.TemporaryDirectory() as caches:
        for seed in range(first, first + arguments.seeds):
            found: dict[Path, Search] = {}
            checkouts = (ROOT, arguments.beside.resolve())
            for checkout in order.sample(checkouts, 2):
                cache = Path(caches) / str(checkouts.index(checkout))
                runs = arguments.runs and arguments.runs.resolve() / cache.name / str(seed)
                options = [*shared, "--seed", str(seed)]
                found[checkout] = run_search(checkout, options, cache, runs)
            ours, theirs = (found[checkout] for checkout in checkouts)
            volume, their_volume = volumes((ours, theirs))
            rows.append(
                {
                    "seed": str(seed),
                    "wall_s": ours.wall_s,
                    "their_wall_s": theirs.wall_s,
                    "wall_ratio": ours.wall_s / theirs.wall_s,
                    "cpu_ratio": ours.cpu_s / theirs.cpu_s if theirs.cpu_s else None,
                    "trials": ours.trials,
                    "their_trials": theirs.trials,
                    "volume": volume,
                    "their_volume": their_volume,
                }
            )
            print(f"seed {seed}: {rows[-1]}", file=sys.stderr)
    sheet.show(
        Table.of(
            "searches",
            {
                "seed": "{seed}",
                "wall s": "{wall_s:.0f}",
                "theirs": "{their_wall_s:.0f}",
                "ratio": "{wall_ratio:.2f}",
                "CPU ratio": "{cpu_ratio:.2f}",
                "trials": "{trials}",
                "their trials": "{their_trials}",
                "hypervolume": "{volume:.3f}",
                "their hypervolume": "{their_volume:.3f}",
            },
            rows,
            f"median ratio of wall time: {median(float(row['wall_ratio']) for row in rows):.2f}",
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
