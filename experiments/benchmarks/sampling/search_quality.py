"""How near a sampler comes to the best-known front, and at what cost, beside other samplers.

``python -m experiments.benchmarks.sampling.search_quality --hwgpt FOLDER --synthetic``
``  --table FILE.csv:error,energy --table FILE.csv:accuracy,energy:max,min --out FOLDER``

Hypervolume by evaluation and by CPU time over seeds; see ``problems/registry.py`` for the problems
and ``peers/registry.py`` for the samplers (``pip install 'joulenas[peers]'`` for those of BoTorch,
pymoo and Syne Tune). Every run is written to ``--out`` when it ends; the same command goes on
where a broken one was, and ``--render`` prints and draws what is there. Runs of another version
of a sampler (of ours: of its code) are made again.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.benchmarks.sampling.peers.registry import CHEAP, PEERS
from experiments.benchmarks.sampling.plots import plot_regret
from experiments.benchmarks.sampling.problems.registry import (
    ProblemName,
    make_problem,
    parse_canonical,
    parse_table,
)
from experiments.benchmarks.sampling.report import legend, table_of
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
    found = [ProblemName("hwgpt", path) for path in arguments.hwgpt]
    canonical = parse_canonical(arguments.canonical)
    if canonical is not None and not arguments.table:
        raise ValueError("--canonical is of a --table, and none is named")
    tables = [parse_table(text, arguments.ignore) for text in arguments.table]
    found += [replace(table, canonical=canonical) for table in tables]
    if arguments.synthetic:
        found += [ProblemName("layers"), ProblemName("mixed")]
    if arguments.made_tables:
        found += [ProblemName("graphs"), ProblemName("sparse")]
    if not found:
        raise ValueError(
            "name one problem or more: --hwgpt, --table, --synthetic or --made-tables"
        )
    for name in found:
        for column in name.doubtful:
            _log.warning("table %s: is %r to be minimised? max is usual for it", name.path, column)
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
    any_version: bool = False,
) -> list[Job]:
    """What is not there yet: sampler by sampler in the order given, seed by seed."""
    jobs = []
    for sampler in samplers:
        try:
            version = PEERS[sampler].version()
        except ValueError as error:
            _log.warning("%s", error)
            continue
        n = min(evaluations, caps.get(sampler, evaluations))
        for name in problems:
            problem = make_problem(name)
            missing = results.missing(
                problem.name,
                sampler,
                range(seeds),
                version=None if any_version else version,
                evaluations=n,
                reference=problem.reference,
            )
            jobs += [Job(name, sampler, seed, n) for seed in missing]
    return jobs


def tables_of(
    problems: Sequence[ProblemName], results: Results, folder: Path, evaluations: int
) -> tuple[list[Table], str]:
    """All that is there, the legend, and a plot for each problem beside the results."""
    tables: list[Table] = []
    shown: set[str] = set()
    for name in problems:
        problem = make_problem(name)
        runs: dict[str, list[Run]] = {}
        for sampler in PEERS:
            found = results.find(problem.name, sampler)
            if found:
                runs[sampler] = [found[seed] for seed in sorted(found)]
        if not runs:
            continue
        shown.update(runs)
        best = problem.best()
        tables.append(table_of(problem, best, runs, evaluations))
        plot = folder / f"{problem.name}.png"
        plot_regret(runs, best, plot, title=problem.name)
        _log.info("plot: %s", plot)
    return tables, legend([name for name in PEERS if name in shown])


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    theme = "made-tables" if arguments.made_tables else "search-quality"
    sheet = Sheet(parser, arguments, theme)
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
    tables, note = tables_of(problems, results, arguments.out, arguments.evaluations)
    if not tables:
        _log.error("no run of these problems has ended in %s", arguments.out)
        return 1
    # Where a run failed, what is there is not what the command asked for.
    sheet.show(*tables, note=note, keep=not n_failed)
    return 1 if n_failed else 0


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
    parser.add_argument("--synthetic", action="store_true", help="two spaces in closed form")
    parser.add_argument(
        "--made-tables",
        action="store_true",
        help="two made-up tables with repeats: graphs in isomorphic encodings, a sparse grid",
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
