"""How well a short recovery ranks a checkpoint's cuts: Kendall's tau with the long recovery.

    python -m experiments.sst2 DATA work --samples 2400
    python -m experiments.benchmarks.compression.short_distillation \
        --from build/checkpoints/all-minilm-l6-v2 --task work/sst2-2400.yaml --work work/tau

Cuts drawn evenly from the space of a search, in fp32, are distilled for each of ``--lengths``
epochs and for the long training, each from the cut anew and by the recipe of a search. Length 0 is
the cut as it is. Every recovery is kept in ``--work`` when it is done: after ``--minutes`` the
command stops, and goes on when it is called again. The length of a search's candidates is the
shortest whose tau is at least 0.6.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from experiments.benchmarks.compression.recoveries import (
    Recoveries,
    add_parent_options,
    dense_config,
    members,
)
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.evaluation.fidelity import LEAST_PAIRS, LEAST_TAU_OF_RECOVERIES, Fidelity
from search_spaces.architecture import Architecture
from search_spaces.cost.counting import count


def complete(
    recoveries: Recoveries, cuts: Sequence[Architecture], lengths: Sequence[int]
) -> list[Architecture]:
    """Return the cuts with a recovery of every length."""
    return [cut for cut in cuts if all(recoveries.has(cut, length) for length in lengths)]


def recover(
    recoveries: Recoveries, cuts: Sequence[Architecture], lengths: Sequence[int], until_s: float
) -> None:
    """Recover each cut by each length, cut by cut, until the clock passes ``until_s``."""
    began_s, n_new = time.monotonic(), 0
    for number, cut in enumerate(cuts, 1):
        if len(complete(recoveries, [cut], lengths)):
            continue
        for length in lengths:
            if time.monotonic() > until_s:
                return
            recoveries.of(cut, length)
        n_new += 1
        each_s = (time.monotonic() - began_s) / n_new
        qualities = ", ".join(f"{recoveries.of(cut, n).quality:.2%} ({n})" for n in lengths)
        print(
            f"{number} of {len(cuts)}: {cut.describe()}: {qualities}; "
            f"{each_s * (len(cuts) - number) / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )


def tables(
    recoveries: Recoveries, cuts: Sequence[Architecture], lengths: Sequence[int], long: int
) -> list[Table]:
    """Return tau by length, and the qualities of all cuts."""
    finals = [recoveries.of(cut, long) for cut in cuts]
    long_s = sum(r.cpu_s for r in finals)
    rows: list[dict[str, Any]] = []
    for length in lengths:
        found = [recoveries.of(cut, length) for cut in cuts]
        fidelity = Fidelity.of([r.quality for r in found], [r.quality for r in finals])
        tau = None if fidelity is None else fidelity.tau
        rows.append(
            {
                "length": length,
                "tau": tau and tau.mean,
                "low": tau and tau.low,
                "high": tau and tau.high,
                "n": len(cuts),
                "cost": sum(r.cpu_s for r in found) / long_s,
                "enough": tau is not None and tau.mean >= LEAST_TAU_OF_RECOVERIES,
            }
        )
    counts = [count(cut, recoveries.workload) for cut in cuts]
    for name, sizes in (
        ("parameters", [float(c.params) for c in counts]),
        ("MACs", [float(c.macs) for c in counts]),
    ):
        fidelity = Fidelity.of(sizes, [r.quality for r in finals])
        tau = None if fidelity is None else fidelity.tau
        rows.append(
            {
                "length": name,
                "tau": tau and tau.mean,
                "low": tau and tau.low,
                "high": tau and tau.high,
                "n": len(cuts),
                "cost": None,
                "enough": None,
            }
        )
    parent = recoveries.setting.quality(recoveries.teacher.model)
    error = max(r.standard_error for r in finals)
    note = (
        f"cuts of {recoveries.config.space.parent and recoveries.config.space.parent.describe()} "
        f"on {recoveries.task.name}, whose validation quality is {parent.value:.2%}; the long "
        f"training has {long} epochs; a quality's standard error is at most {100 * error:.1f} "
        f"points, which limits tau"
    )
    columns = {
        "ranked by, epochs": "{length}",
        "tau [95%]": "{tau:.2f} [{low:.2f}, {high:.2f}]",
        "cuts": "{n}",
        "CPU s of the long one": "{cost:.0%}",
        f"at least {LEAST_TAU_OF_RECOVERIES}": "{enough}",
    }
    own = [
        {
            "cut": cut.describe(),
            "macs": count(cut, recoveries.workload).macs,
            **{f"at_{n}": 100 * recoveries.of(cut, n).quality for n in (*lengths, long)},
        }
        for cut in cuts
    ]
    shown = {"cut": "{cut}", "MACs": "{macs:,}"} | {
        f"{n} epochs": f"{{at_{n}:.2f}}" for n in (*lengths, long)
    }
    return [
        Table.of("tau", columns, rows, note),
        Table.of("qualities", shown, own, "validation quality in percent"),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.compression.short_distillation",
        description=__doc__.splitlines()[0],
    )
    add_parent_options(parser)
    parser.add_argument("--n", type=int, default=24, help="cuts (default: 24)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[0, 1], help="epochs")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    if arguments.n < LEAST_PAIRS:
        parser.error(f"--n must be at least {LEAST_PAIRS}, got {arguments.n}")
    if not all(0 <= length < arguments.epochs for length in arguments.lengths):
        parser.error(f"--lengths must be below --epochs, {arguments.epochs}")
    torch.set_num_threads(1)
    until_s = time.monotonic() + 60 * arguments.minutes
    sheet = Sheet(parser, arguments, f"short-distillation-{arguments.checkpoint.name}")
    config = dense_config(
        arguments.checkpoint,
        arguments.task,
        arguments.work,
        epochs=arguments.epochs,
        seed=arguments.seed,
        genes={},
    )
    recoveries = Recoveries(config, arguments.work)
    cuts = members(config.space, arguments.n, arguments.seed)
    every = [*dict.fromkeys(arguments.lengths), arguments.epochs]
    recover(recoveries, cuts, every, until_s)
    done = complete(recoveries, cuts, every)
    if len(done) < LEAST_PAIRS:
        print(f"{len(done)} of {len(cuts)} cuts: call the command again", file=sys.stderr)
        return 0
    found = tables(recoveries, done, every[:-1], arguments.epochs)
    missing = len(cuts) - len(done)
    note = f"{missing} of {len(cuts)} cuts are not recovered yet" if missing else ""
    sheet.show(*found, note=note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
