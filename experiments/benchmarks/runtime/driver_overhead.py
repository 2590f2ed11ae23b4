"""Trials a second through the driver where a trial costs nothing, next to bare Ray Tune.

``python -m experiments.benchmarks.runtime.driver_overhead --trials 200 --sampler random``

*Ours* is the driver of ``nas search``: its session with gate and sampler, the study on disk, a
trial folder each. *No surrogates* is the same driver with a gate whose surrogates are never fitted
(not with ``ehvi``, which proposes by them): bare Tune has none either. *Bare* is ``tune.Tuner``
with ``OptunaSearch`` (at random with ``--sampler random``, else TPE; two objectives) and Tune's
defaults, in memory, and the same with ``reuse_actors``, as ours has it. All propose genes of
``--space`` and evaluate the same formula (``scale/law.py``) on as many workers of one local Ray,
which is up before the clock starts. Each variant runs in a process of its own and ends after
``--budget-s`` seconds, bare Tune after ``--bare-budget-s``: one that had not ended has the rate of
the trials that it completed, which are the first and fastest. *Idle* is the driver's CPU, as a
share of a core, while its trials sleep.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TypeVar

from experiments.benchmarks.runtime.driver_variants import BARE, REUSED, Rate, bare, ours
from experiments.results.sheet import ROOT, Sheet, add_keep_option
from experiments.results.table import Table

T = TypeVar("T")
_SLEEP_S = 20.0


def table_of(rates: Sequence[Rate], idle: float | None) -> Table:
    """Return a row a variant, with its rate over those of bare Tune for as many trials."""
    rows = []
    for rate in rates:
        over = {
            base.variant: rate.per_s / base.per_s
            for base in rates
            if base.asked == rate.asked and base.trials
        }
        rows.append(
            asdict(rate)
            | {
                "per_s": rate.per_s,
                "over_bare": over.get(BARE),
                "over_reused": over.get(REUSED),
                "cpu_ms": 1e3 * rate.driver_cpu_s / max(1, rate.trials),
            }
        )
    columns = {
        "variant": "{variant}",
        "asked": "{asked:,d}",
        "came to": "{trials:,d}",
        "ended": "{is_whole}",
        "seconds": "{wall_s:.1f}",
        "trials/s": "{per_s:.2f}",
        "over bare": "{over_bare:.1f}",
        "over reused": "{over_reused:.2f}",
        "driver CPU ms/trial": "{cpu_ms:.1f}",
        "peak MB": "{peak_mb:,.0f}",
        "MB in second half": "{grown_mb:.1f}",
    }
    note = "" if idle is None else f"idle driver: {idle:.2%} of a core"
    return Table.of("rates", columns, rows, note)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.runtime.driver_overhead", description=__doc__
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[200, 5_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--sampler", default="ehvi", help="of ours; bare Tune has TPE unless it is random"
    )
    parser.add_argument("--space", default="digits-tiny", help="a preset")
    parser.add_argument("--budget-s", type=float, default=300.0, help="of each variant")
    parser.add_argument("--bare-budget-s", type=float, help="of bare Tune, if another")
    parser.add_argument("--no-idle", action="store_true")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "driver-overhead")
    # Workers, which are processes of their own, import the formula.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    os.environ["OMP_NUM_THREADS"] = "1"
    space, workers, budget_s = arguments.space, arguments.workers, arguments.budget_s
    bare_s = arguments.bare_budget_s or budget_s
    rates: list[Rate] = []
    for trials in arguments.trials:
        asked = arguments.sampler, space, trials, workers
        variants = [
            partial(_ours, *asked, budget_s, is_gated=True),
            partial(_ours, *asked, budget_s, is_gated=False),
            partial(bare, *asked, bare_s, reuse_actors=True),
            partial(bare, *asked, bare_s, reuse_actors=False),
        ]
        if arguments.sampler == "ehvi":
            # It proposes by the surrogates.
            del variants[1]
        for variant in variants:
            rates.append(_alone(variant))
            print(rates[-1], file=sys.stderr, flush=True)
            # Kept now, should a later variant fail.
            sheet.keep(table_of(rates, None))
    idle = None
    if not arguments.no_idle:
        idle = _alone(partial(ours, "random", space, workers, workers, 600.0, sleep_s=_SLEEP_S))[1]
    sheet.show(table_of(rates, idle))
    return 0


def _ours(
    sampler: str, space: str, trials: int, workers: int, budget_s: float, *, is_gated: bool
) -> Rate:
    return ours(sampler, space, trials, workers, budget_s, is_gated=is_gated)[0]


def _alone(function: Callable[[], T]) -> T:
    """Call ``function`` in a process of its own, without another variant's memory and Ray."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function)


if __name__ == "__main__":
    sys.exit(main())
