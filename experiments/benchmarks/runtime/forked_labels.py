"""Labels and CPU seconds of measuring by fresh interpreters and by forks, interleaved.

``python -m experiments.benchmarks.runtime.forked_labels``

Each candidate of the digits' space is measured three times by the protocol of CPU searches: by a
fork that compiles it first, then, in random order, by a fresh interpreter and by another fork,
both of which find its code in the compiler's cache. *Labels*: the ratio of fork to fresh over
candidates, and the share of candidates whose 95% intervals overlap. The two forks of a candidate
give the same figures for the spread between processes alone. *CPU seconds*: of a measurement, its
compilers included; the server's own are charged to its first fork.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Sequence
from statistics import mean, median

import numpy as np

from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.core.estimate import Estimate
from nas.tasks.registry import get_task
from predictors.measurement.forked_worker import kept_server
from predictors.measurement.process import worker_environment
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import EnergyRecord
from predictors.measurement.runner import measure_fresh
from predictors.meters.estimate import watts_per_core
from search_spaces.architecture import Architecture
from search_spaces.space.presets import get_space
from search_spaces.space.sampling import sample

_BATCH = 512
_LEAST = 6


def candidates(n: int, seed: int) -> list[Architecture]:
    """Return ``n`` different architectures of the digits' space that run on CPUs."""
    space = get_space("digits-tiny")
    space = space.restrict(precisions=("fp32", "bf16", "int8"), sparsities=("dense",))
    rng = np.random.default_rng(seed)
    chosen: dict[Architecture, None] = {}
    while len(chosen) < n:
        chosen[sample(space, rng)] = None
    return list(chosen)


def measure(architecture: Architecture, *, is_forked: bool) -> EnergyRecord:
    """Measure ``architecture`` once."""
    return measure_fresh(
        architecture,
        get_task("digits").workload(_BATCH),
        protocol=get_protocol("quick"),
        meter="estimate",
        is_forked=is_forked,
    )


def agreement(pair: str, pairs: Sequence[tuple[EnergyRecord, EnergyRecord]]) -> dict[str, object]:
    """Return the ratio of labels with its 95% interval, and the share of those that overlap."""
    readings = [(a.reading, b.reading) for a, b in pairs]
    ratio = Estimate.of_median([a.energy_j / b.energy_j for a, b in readings])
    overlapping = [a.low_j <= b.high_j and b.low_j <= a.high_j for a, b in readings]
    return {
        "pair": pair,
        "n": len(pairs),
        "ratio": ratio.mean,
        "low": ratio.low,
        "high": ratio.high,
        "spread": median(abs(np.log(a.energy_j / b.energy_j)) for a, b in readings),
        "overlap": mean(overlapping),
    }


def cpu_s(record: EnergyRecord) -> float:
    """Return the CPU seconds of a measurement; its joules are estimated by them."""
    return record.spent_energy_j / watts_per_core()


def spent(
    way: str, records: Sequence[EnergyRecord], fresh: Sequence[EnergyRecord]
) -> dict[str, object]:
    """Return the CPU seconds of ``records``, and their ratio to those of ``fresh``."""
    seconds, whole = [cpu_s(record) for record in records], sum(map(cpu_s, fresh))
    return {
        "way": way,
        "mean": mean(seconds),
        "median": median(seconds),
        "ratio": sum(seconds) / whole,
        "compile": median(record.compile_s for record in records),
    }


def _line(*ways: Sequence[EnergyRecord]) -> str:
    """Return the last label and CPU seconds of each way."""
    return ", ".join(
        f"{1e6 * way[-1].reading.energy_j:.3g} uJ by {cpu_s(way[-1]):.2f} s" for way in ways
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.runtime.forked_labels", description=__doc__
    )
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no candidate after these minutes"
    )
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "forked-labels")
    if arguments.candidates < _LEAST:
        print(
            f"forked_labels: candidates must be >= {_LEAST}, got {arguments.candidates}",
            file=sys.stderr,
        )
        return 2
    order = random.Random(arguments.seed)
    until_s = time.monotonic() + 60 * arguments.minutes
    first, forked, fresh = [], [], []
    # As the driver of a search keeps it.
    with kept_server(worker_environment("cpu", get_protocol("quick").threads)):
        for architecture in candidates(arguments.candidates, arguments.seed):
            if len(fresh) >= _LEAST and time.monotonic() > until_s:
                break
            first.append(measure(architecture, is_forked=True))
            for is_forked in order.sample((False, True), 2):
                record = measure(architecture, is_forked=is_forked)
                (forked if is_forked else fresh).append(record)
            print(f"{architecture.describe()}: {_line(first, forked, fresh)}", file=sys.stderr)
    sheet.show(
        Table.of(
            "labels",
            {
                "labels": "{pair}",
                "candidates": "{n}",
                "median ratio": "{ratio:.3f} [{low:.3f}, {high:.3f}]",
                "median difference": "{spread:.1%}",
                "intervals overlap": "{overlap:.0%}",
            },
            [
                agreement("fork to fresh", list(zip(forked, fresh, strict=True))),
                agreement("fork to fork", list(zip(forked, first, strict=True))),
            ],
            "medians with 95% intervals over candidates",
        ),
        Table.of(
            "cpu-seconds",
            {
                "a candidate's CPU seconds": "{way}",
                "mean": "{mean:.2f}",
                "median": "{median:.2f}",
                "mean to fresh": "{ratio:.2f}",
                "median compile s": "{compile:.1f}",
            },
            [
                spent("fresh, code cached", fresh, fresh),
                spent("fork, code cached", forked, fresh),
                spent("fork, compiles first", first, fresh),
            ],
        ),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
