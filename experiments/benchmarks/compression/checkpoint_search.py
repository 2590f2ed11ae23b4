"""A search around a checkpoint, and what its front has: joules within a loss of quality.

    python -m experiments.sst2 DATA work
    python -m experiments.benchmarks.compression.checkpoint_search \
        --from build/checkpoints/all-minilm-l6-v2 --task work/sst2.yaml --run work/minilm

The search is that of ``nas search --from``, in this process. After ``--minutes`` it stops, and
goes on when the command is called again. Members are chosen by validation quality alone. When the
search has ended, their quality on the test split is shown beside it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nas
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.analysis.summary import SearchSummary, summarise
from nas.cli.output.progress import SearchProgress
from nas.pareto.queries import FrontMember
from nas.records.config import FINALISTS
from nas.records.trial import Trial
from nas.searching.from_checkpoint import CutOptions
from nas.store.run import Run
from nas.store.run_file import is_run
from nas.tasks.base.metric import Metric

# Allowed losses: of a share in points, of bits relative.
_LOSSES = (0.0, 0.01, 0.02, 0.03)


@contextmanager
def interrupted_after(minutes: float | None) -> Iterator[None]:
    """Send this process Ctrl-C's signal after so many minutes; a search then keeps its trials."""
    if minutes is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def searched(arguments: argparse.Namespace) -> Run:
    """Start the search, or go on with it; it may be interrupted."""
    with interrupted_after(arguments.minutes), SearchProgress() as progress:
        if is_run(arguments.run):
            return nas.resume(arguments.run, workers=0, listener=progress)
        cuts: CutOptions = {
            "trials": arguments.trials,
            "finalists": arguments.finalists,
            "epochs": arguments.epochs,
            "loadable": arguments.loadable,
            "fields": {"seed": arguments.seed},
        }
        if arguments.space is not None:
            cuts["space"] = arguments.space
        return nas.search(
            checkpoint=arguments.checkpoint,
            task=arguments.task,
            to=arguments.run,
            cuts=cuts,
            workers=0,
            listener=progress,
        )


def least_quality(metric: Metric, quality: float, loss: float) -> float:
    """Return the least quality that has lost no more than ``loss`` of ``quality``."""
    if metric.falls:
        return metric.share(metric.score(quality) * (1 + loss))
    return quality - loss


def within(
    members: Sequence[FrontMember], metric: Metric, quality: float, loss: float
) -> FrontMember | None:
    """Return the member of fewest joules that has lost no more than ``loss`` of ``quality``."""
    least = least_quality(metric, quality, loss)
    fitting = [m for m in members if not m.baseline and m.quality >= least]
    return min(fitting, key=lambda m: m.energy_j, default=None)


def goals(run: Run, parent: Trial, summary: SearchSummary) -> Table | None:
    """Return the cheapest member within each loss, any and loadable ones; ``None`` if none is."""
    assert parent.quality is not None and parent.energy_j is not None
    metric, members = run.metric, run.front().members
    rows: list[dict[str, Any]] = []
    for loss in _LOSSES:
        for kind, fitting in (
            ("any", members),
            ("loadable", [m for m in members if m.loadable]),
        ):
            member = within(fitting, metric, parent.quality, loss)
            if member is None:
                continue
            saved_j = parent.energy_j - member.energy_j
            rows.append(
                {
                    "loss": f"{loss:.0%}" if metric.falls else f"{100 * loss:g} points",
                    "kind": kind,
                    "trial": member.trial,
                    "architecture": member.architecture_text,
                    "quality": metric.text(member.quality),
                    "test": None
                    if member.test_quality is None
                    else metric.text(member.test_quality),
                    "energy_mj": 1e3 * member.energy_j,
                    "ratio": parent.energy_j / member.energy_j,
                    "pays_after": summary.spent_energy_j / saved_j if saved_j > 0 else None,
                }
            )
    if not rows:
        return None
    kind = "estimates" if summary.is_estimate else summary.meter
    note = (
        f"the checkpoint in fp32 (trial {parent.number}) has "
        f"{metric.text(parent.quality)} on validation data, "
        f"{metric.text(parent.test_quality or 0.0)} on the test split (never used to choose), and "
        f"{1e3 * parent.energy_j:.3g} mJ per {run.unit}; joules are {kind}; the search spent "
        f"{summary.spent_energy_j / 1e3:.1f} kJ on {summary.complete} trials"
    )
    columns = {
        "loss at most": "{loss}",
        "members": "{kind}",
        "trial": "{trial}",
        "architecture": "{architecture}",
        metric.name: "{quality}",
        f"test {metric.name}": "{test}",
        f"mJ per {run.unit}": "{energy_mj:.3f}",
        "fewer joules": "{ratio:.2f}x",
        "pays after": "{pays_after:,.0f}",
    }
    return Table.of("within-a-loss", columns, rows, note)


def front_table(run: Run, parent: Trial) -> Table:
    """Return every member of the front."""
    assert parent.energy_j is not None
    rows = [
        {
            "trial": m.trial,
            "architecture": m.architecture_text,
            "quality": run.metric.text(m.quality, m.quality_se),
            "test": None if m.test_quality is None else run.metric.text(m.test_quality),
            "energy_mj": 1e3 * m.energy_j,
            "low_mj": 1e3 * m.energy_low_j,
            "high_mj": 1e3 * m.energy_high_j,
            "ratio": parent.energy_j / m.energy_j,
            "loadable": m.loadable,
        }
        for m in run.front().members
    ]
    columns = {
        "trial": "{trial}",
        "architecture": "{architecture}",
        run.metric.name: "{quality}",
        f"test {run.metric.name}": "{test}",
        f"mJ per {run.unit} [95%]": "{energy_mj:.3f} [{low_mj:.3f}, {high_mj:.3f}]",
        "fewer joules": "{ratio:.2f}x",
        "loadable": "{loadable}",
    }
    return Table.of("front", columns, rows)


def spent_until(run: Run, quality: float) -> float | None:
    """Return the joules of a search until its first trial of at least this quality."""
    teacher = run.teacher()
    spent_j = 0.0 if teacher is None else teacher.energy_j
    for record in run.records():
        spent_j += record.spent.energy_j
        if record.state == "complete" and (record.quality or 0.0) >= quality:
            return spent_j
    return None


def against_scratch(run: Run, scratch: Run) -> Table:
    """Return the joules of both searches until the best quality from scratch."""
    best = max(r.quality or 0.0 for r in scratch.records() if r.state == "complete")
    alone_j, ours_j = spent_until(scratch, best), spent_until(run, best)
    row = {
        "quality": run.metric.text(best),
        "scratch_kj": None if alone_j is None else alone_j / 1e3,
        "ours_kj": None if ours_j is None else ours_j / 1e3,
        "ratio": None if alone_j is None or not ours_j else alone_j / ours_j,
    }
    columns = {
        f"{run.metric.name} reached": "{quality}",
        "from scratch, kJ": "{scratch_kj:.2f}",
        "from the checkpoint, kJ": "{ours_kj:.2f}",
        "ratio": "{ratio:.1f}x",
    }
    note = "training and measuring until the first trial of this quality on validation data"
    return Table.of("joules-of-search", columns, [row], note)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.compression.checkpoint_search",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--from", dest="checkpoint", type=Path, required=True, help="checkpoint")
    parser.add_argument("--task", required=True, help="task file")
    parser.add_argument("--run", type=Path, required=True, help="run folder, new or begun")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--finalists", type=int, default=FINALISTS)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--space", type=Path, help="genes to change")
    parser.add_argument("--loadable", action="store_true")
    parser.add_argument("--scratch", type=Path, help="run of a search of the task from scratch")
    parser.add_argument("--minutes", type=float, help="stop after so many")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, f"checkpoint-search-{arguments.run.name}")
    try:
        run = searched(arguments)
    except KeyboardInterrupt:
        print("stopped before the search began: call the command again", file=sys.stderr)
        return 0
    summary = summarise(run)
    if not summary.finished:
        print(
            f"{summary.complete} of {run.config.trials} trials and the finalists are complete: "
            f"call the command again",
            file=sys.stderr,
        )
        return 0
    parent = run.trial(0)
    if parent.state != "complete":
        parser.error(f"the checkpoint must be a complete trial, and {parent.reason}")
    of_goals = goals(run, parent, summary)
    tables = (
        [front_table(run, parent)] if of_goals is None else [of_goals, front_table(run, parent)]
    )
    if arguments.scratch is not None:
        tables.append(against_scratch(run, nas.load(arguments.scratch)))
    sheet.show(*tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
