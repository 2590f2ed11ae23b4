"""How near a sampler comes to the best-known front, and at what cost, beside other samplers.

``python -m experiments.benchmarks.sampling.search_quality --hwgpt FOLDER --synthetic``
``  --table FILE.csv:error,energy --table FILE.csv:accuracy,energy:max,min --out FOLDER``

Hypervolume by evaluation and by CPU time over seeds; see ``problems/registry.py`` for the problems
and ``peers/registry.py`` for the samplers (``pip install 'joulenas[peers]'`` for those of BoTorch,
pymoo and Syne Tune). Every run is written to ``--out`` when it ends; the same command goes on
where a broken one was, and ``--render`` prints and draws what is there. Runs of another version
of a sampler (of ours: of its code) are made again.

``--noise 0.05`` gives measurements in place of exact values, ``--in-flight 1 8 64`` tells results
while others are under way, ``--objectives 3 4`` adds objectives.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from experiments.benchmarks.sampling.peers.registry import CHEAP, PEERS
from experiments.benchmarks.sampling.plots import plot_regret
from experiments.benchmarks.sampling.problems.problem import Problem
from experiments.benchmarks.sampling.problems.registry import (
    MADE_TABLES,
    SYNTHETIC,
    ProblemName,
    make_problem,
    parse_canonical,
    parse_table,
)
from experiments.benchmarks.sampling.report import legend, table_of, workers_table
from experiments.benchmarks.sampling.results import Results, Run
from experiments.benchmarks.sampling.running import Job, run_all
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table

_log = logging.getLogger("search_quality")


def problems_of(arguments: argparse.Namespace) -> list[ProblemName]:
    """The problems that the command line names.

    Raises:
        ValueError: none, or one that cannot be read.
    """
    counts = list(dict.fromkeys(arguments.objectives))
    made, synthetic = (
        _names(arguments.made_tables, MADE_TABLES),
        _names(arguments.synthetic, SYNTHETIC),
    )
    if counts != [2] and (arguments.table or made):
        raise ValueError(f"--objectives of a table must be 2, got {' '.join(map(str, counts))}")
    found = [
        ProblemName("hwgpt", path, n_objectives=n) for path in arguments.hwgpt for n in counts
    ]
    canonical = parse_canonical(arguments.canonical)
    if canonical is not None and not arguments.table:
        raise ValueError("--canonical is of a --table, and none is named")
    tables = [parse_table(text, arguments.ignore) for text in arguments.table]
    found += [replace(table, canonical=canonical) for table in tables]
    found += [ProblemName(kind) for kind in synthetic if 2 in counts]
    found += [ProblemName("dtlz2", n_objectives=n) for n in counts if n > 2 and synthetic]
    found += [ProblemName(kind) for kind in made]
    if not found:
        raise ValueError(
            "name one problem or more: --hwgpt, --table, --synthetic or --made-tables"
        )
    if arguments.noise:
        size = arguments.validation_size
        found = [
            replace(name, noise=sd, validation_size=size)
            for name in found
            for sd in arguments.noise
        ]
    for name in found:
        for question in name.doubtful:
            _log.warning("table %s: %s", name.path, question)
        make_problem(name)
    return found


def caps_of(texts: Sequence[str]) -> dict[str, int]:
    """``SAMPLER=EVALUATIONS``, each.

    Raises:
        ValueError: one has another form.
    """
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in PEERS or not number.isdigit() or int(number) < 1:
            raise ValueError(f"--cap must be SAMPLER=EVALUATIONS, got {text!r}")
        found[name] = int(number)
    return found


def jobs_of(
    problems: Sequence[ProblemName],
    samplers: Sequence[str],
    results: Results,
    *,
    seeds: int,
    evaluations: int,
    caps: dict[str, int],
    in_flight: Sequence[int] = (1,),
    any_version: bool = False,
) -> list[Job]:
    """What is not there yet: sampler by sampler in the order given, seed by seed.

    Raises:
        ValueError: a sampler that proposes one at a time is to have more in flight.
    """
    jobs = []
    for sampler in samplers:
        if max(in_flight) > 1 and not PEERS[sampler].is_parallel:
            raise ValueError(f"--in-flight of {sampler} must be 1, got {max(in_flight)}")
        try:
            version = PEERS[sampler].version()
        except ValueError as error:
            _log.warning("%s", error)
            continue
        n = min(evaluations, caps.get(sampler, evaluations))
        for name, workers in product(problems, in_flight):
            problem = make_problem(name)
            missing = results.missing(
                problem.name,
                sampler,
                range(seeds),
                version=None if any_version else version,
                evaluations=n,
                reference=problem.reference,
                in_flight=workers,
            )
            jobs += [Job(name, sampler, seed, n, workers) for seed in missing]
    return jobs


def tables_of(
    problems: Sequence[ProblemName],
    results: Results,
    folder: Path,
    evaluations: int,
    in_flight: Sequence[int] = (1,),
) -> tuple[list[Table], str]:
    """All that is there, the legend, and a plot for each problem beside the results.

    Runs with other numbers of evaluations in flight than 1 are in tables of their own.
    """
    tables: list[Table] = []
    shown: set[str] = set()
    for name in problems:
        problem = make_problem(name)
        runs = _runs(problem, results, 1)
        if not runs:
            continue
        shown.update(runs)
        best = problem.best()
        tables.append(table_of(problem, best, runs, evaluations))
        if max(in_flight) > 1:
            by_workers = {q: _runs(problem, results, q) for q in in_flight}
            tables.append(workers_table(problem, best, by_workers, evaluations))
        plot = folder / f"{problem.name}.png"
        plot_regret(runs, best, plot, title=problem.name)
        _log.info("plot: %s", plot)
    return tables, legend([name for name in PEERS if name in shown])


def _runs(problem: Problem, results: Results, in_flight: int) -> dict[str, list[Run]]:
    """Return the runs that are there, by sampler, seeds in order."""
    runs = {}
    for sampler in PEERS:
        found = results.find(problem.name, sampler, in_flight)
        if found:
            runs[sampler] = [found[seed] for seed in sorted(found)]
    return runs


def theme_of(arguments: argparse.Namespace) -> str:
    """Return the first part of a kept result's name."""
    if arguments.noise:
        return "search-noise"
    if max(arguments.in_flight) > 1:
        return "search-workers"
    if max(arguments.objectives) > 2:
        return "search-objectives"
    others = arguments.hwgpt or arguments.table or arguments.synthetic is not None
    return "search-quality" if others or arguments.made_tables is None else "made-tables"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, theme_of(arguments))
    logging.basicConfig(level=logging.WARNING, format="search_quality: %(message)s")
    _log.setLevel(logging.INFO)
    results = Results(arguments.out)
    try:
        problems, caps = problems_of(arguments), caps_of(arguments.cap)
        jobs = []
        if not arguments.render:
            jobs = jobs_of(
                problems,
                arguments.peers,
                results,
                seeds=arguments.seeds,
                evaluations=arguments.evaluations,
                caps=caps,
                in_flight=arguments.in_flight,
                any_version=arguments.any_version,
            )
        # Before hours of work rather than after them.
        arguments.out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        print(
            f"search_quality: --out must be a folder, got {arguments.out}, where a file is",
            file=sys.stderr,
        )
        return 2
    except (ValueError, OSError) as error:
        print(f"search_quality: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    n_left, n_failed = len(jobs), 0

    def ended(job: Job, run: Run | Exception) -> None:
        nonlocal n_left, n_failed
        n_left -= 1
        if isinstance(run, Exception):
            n_failed += 1
            _log.error("%s, %s, seed %d: %s", job.problem.kind, job.sampler, job.seed, run)
            return
        results.add(run)
        _log.info(
            "%s, %s, seed %d: %.1f CPU s; %d runs left",
            run.problem,
            run.sampler,
            run.seed,
            run.cpu_s[-1],
            n_left,
        )

    deadline = None
    if arguments.minutes is not None:
        deadline = time.monotonic() + 60 * arguments.minutes
    if jobs:
        run_all(jobs, workers=arguments.workers, deadline=deadline, ended=ended)
    tables, note = tables_of(
        problems, results, arguments.out, arguments.evaluations, arguments.in_flight
    )
    if not tables:
        _log.error("no run of these problems has ended in %s", arguments.out)
        return 1
    # Where a run failed, what is there is not what the command asked for.
    sheet.show(*tables, note=note, keep=not n_failed)
    return 1 if n_failed else 0


def _names(named: Sequence[str] | None, every: Sequence[str]) -> Sequence[str]:
    """Return what an option names: nothing without it, everything without a name."""
    return () if named is None else named or every


def _share(text: str) -> float:
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 1, got {text}")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.sampling.search_quality", description=__doc__
    )
    parser.add_argument(
        "--hwgpt",
        type=Path,
        action="append",
        default=[],
        help="folder of HW-GPT-Bench with oracle.py (is run: give one you trust)",
    )
    parser.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="FILE:A,B[:max,min[:linear,log]]",
        help="a table of candidates, CSV or Parquet; all columns but A, B and --ignore are "
        "parameters; log scores decades (few of their grid's candidates: a surrogate is fitted)",
    )
    parser.add_argument("--ignore", action="append", default=[], help="no parameter of --table")
    parser.add_argument(
        "--canonical",
        metavar="FILE.py:FUNCTION",
        help="maps a candidate of --table, a dictionary, to the one form of all that equal it; "
        "the file is run: give one you trust",
    )
    parser.add_argument(
        "--synthetic",
        nargs="*",
        choices=SYNTHETIC,
        metavar="SPACE",
        help=f"spaces in closed form: {', '.join(SYNTHETIC)} (default: all); DTLZ2 over choices "
        "for each of --objectives above 2",
    )
    parser.add_argument(
        "--made-tables",
        nargs="*",
        choices=MADE_TABLES,
        metavar="TABLE",
        help="made-up tables: graphs in isomorphic encodings, a sparse grid, a full grid of cells "
        f"with linear and with logarithmic joules; of {', '.join(MADE_TABLES)} (default: all)",
    )
    parser.add_argument(
        "--objectives",
        type=int,
        nargs="+",
        choices=(2, 3, 4),
        default=[2],
        help="of --hwgpt and --synthetic (default: 2)",
    )
    parser.add_argument(
        "--noise",
        type=_share,
        nargs="+",
        default=[],
        metavar="FRACTION",
        help="relative standard deviation of measured costs, above 0 and below 1; rates are those "
        "of --validation-size samples, and what was measured best is scored by its true values",
    )
    parser.add_argument(
        "--validation-size", type=_positive, default=5000, metavar="N", help="default: 5,000"
    )
    parser.add_argument(
        "--in-flight",
        type=_positive,
        nargs="+",
        default=[1],
        metavar="N",
        help="evaluations under way at once, which end in another order (default: 1)",
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=list(PEERS),
        default=list(CHEAP),
        metavar="SAMPLER",
        help=f"in this order; of {', '.join(PEERS)} (default: all but the dear ones)",
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument(
        "--cap", action="append", default=[], metavar="SAMPLER=N", help="fewer evaluations of it"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--minutes", type=float, help="start no run after this long")
    parser.add_argument(
        "--any-version", action="store_true", help="keep runs of other versions of a sampler"
    )
    parser.add_argument("--render", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, required=True, help="folder of results and plots")
    add_keep_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
