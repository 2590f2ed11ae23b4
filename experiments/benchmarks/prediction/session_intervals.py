"""How often a label's interval contains the medians of later sessions.

``python -m experiments.benchmarks.prediction.session_intervals measure FOLDER`` measures one
session: ten models and the reference before, between and after them, each in a process of its own.
Run it several times, hours or loads apart. ``... report FOLDER`` compares each session with all
later ones.

An interval is that of a search that began with the labels of the sessions before it: the windows'
interval, widened by the deviation between sessions that those labels show, or by the default
without history (``predictors.labels.repeatability``). *Windows only* is the interval of one
process. *Ratio* divides each median by the median of its session's references.
"""

from __future__ import annotations

import argparse
import math
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.core.estimate import Estimate
from nas.tasks.registry import get_task
from predictors.campaign.plan import reference_architecture
from predictors.labels.cache import Label, LabelCache
from predictors.labels.repeatability import Repeatability
from predictors.measurement.protocol import get_protocol
from predictors.measurement.runner import measure_candidate
from search_spaces.architecture import Architecture
from search_spaces.space.presets import get_space
from search_spaces.space.sampling import sample

_BATCH, _MODELS = 512, 10


def models(n: int = _MODELS) -> list[Architecture]:
    """Return ``n`` different architectures of the digits' space that run on CPUs."""
    space = get_space("digits-tiny")
    space = space.restrict(precisions=("fp32", "bf16", "int8"), sparsities=("dense",))
    rng = np.random.default_rng(0)
    chosen: dict[Architecture, None] = {}
    while len(chosen) < n:
        chosen[sample(space, rng)] = None
    return list(chosen)


def measure_session(cache: LabelCache) -> None:
    """Measure every model and the reference once in a session of its own."""
    workload = get_task("digits").workload(_BATCH)
    reference = reference_architecture(workload, "cpu")
    chosen = models()
    half = len(chosen) // 2
    order = [reference, *chosen[:half], reference, *chosen[half:], reference]
    session = uuid.uuid4().hex[:16]
    for architecture in order:
        record = measure_candidate(
            architecture, workload, protocol=get_protocol("screening"), meter="estimate"
        )
        is_reference = architecture == reference
        cache.add(Label(architecture, record.reading, session, is_reference=is_reference))
        reading = record.reading
        print(
            f"{architecture.describe()}: {1e6 * reading.energy_j:.4g} uJ "
            f"±{reading.half_width:.1%} (estimate)",
            file=sys.stderr,
        )


def by_session(labels: Iterable[Label]) -> list[list[Label]]:
    """Return the labels of each session, in order."""
    sessions: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        sessions[label.session].append(label)
    return list(sessions.values())


def shares(sessions: Sequence[Sequence[Label]]) -> list[dict[str, object]]:
    """Return how often the intervals of each session contain later medians."""
    rows = []
    for number, session in enumerate(sessions[:-1]):
        before = [label for earlier in sessions[: number + 1] for label in earlier]
        repeatability = Repeatability.of(before, is_estimate=True)
        later = [label for other in sessions[number + 1 :] for label in other]
        inside = inside_windows = n = 0
        widths = []
        for label in session:
            if label.is_reference:
                continue
            narrow = label.reading
            wide = narrow.between_sessions(repeatability.interval_sd)
            widths.append(wide.half_width)
            for other in later:
                if other.architecture != label.architecture:
                    continue
                median_j = other.reading.energy_j
                n += 1
                inside += wide.low_j <= median_j <= wide.high_j
                inside_windows += narrow.low_j <= median_j <= narrow.high_j
        rows.append(
            {
                "session": number + 1,
                "sd": repeatability.sd,
                "width": float(np.median(widths)),
                "n": n,
                "inside": inside,
                "inside_windows": inside_windows,
            }
        )
    return rows


def spreads(sessions: Sequence[Sequence[Label]]) -> list[dict[str, object]]:
    """Return the deviation between sessions of medians, and of ratios to the reference."""
    logs: dict[str, list[float]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    references = []
    for session in sessions:
        of_references = [math.log(x.reading.energy_j) for x in session if x.is_reference]
        reference = float(np.median(of_references))
        references.append(reference)
        for label in session:
            if not label.is_reference:
                log_j = math.log(label.reading.energy_j)
                logs[label.architecture.hash].append(log_j)
                ratios[label.architecture.hash].append(log_j - reference)
    return [
        {"of": "medians", "sd": _pooled(logs.values())},
        {"of": "ratios to the reference", "sd": _pooled(ratios.values())},
        {"of": "the reference", "sd": float(np.std(references, ddof=1))},
    ]


def _pooled(groups: Iterable[Sequence[float]]) -> float:
    return math.sqrt(float(np.mean([np.var(group, ddof=1) for group in groups])))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one session, or print both tables."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.prediction.session_intervals", description=__doc__
    )
    parser.add_argument("verb", choices=("measure", "report"))
    parser.add_argument("folder", type=Path, help="folder of the sessions' labels")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    cache = LabelCache(arguments.folder / "labels.jsonl")
    if arguments.verb == "measure":
        measure_session(cache)
        return 0
    sheet = Sheet(parser, arguments, "session-intervals")
    sessions = by_session(cache.read())
    if len(sessions) < 3:
        print(
            f"session_intervals: {arguments.folder} must hold 3 sessions or more, "
            f"got {len(sessions)}",
            file=sys.stderr,
        )
        return 2
    rows = shares(sessions)
    n, inside = (sum(int(str(row[name])) for row in rows) for name in ("n", "inside"))
    narrow = sum(int(str(row["inside_windows"])) for row in rows)
    total = [
        {"interval": "widened", "share": Estimate.of_share(inside, n), "n": n},
        {"interval": "windows only", "share": Estimate.of_share(narrow, n), "n": n},
    ]
    sheet.show(
        Table.of(
            "coverage",
            {"interval": "{interval}", "later medians inside": "{share:.0%}", "pairs": "{n}"},
            [
                {"interval": row["interval"], "share": row["share"].mean, "n": row["n"]}
                for row in total
            ],
            f"{len(sessions)} sessions, {_MODELS} models",
        ),
        Table.of(
            "sessions",
            {
                "session": "{session}",
                "deviation learnt": "{sd:.1%}",
                "median half-width": "{width:.1%}",
                "later medians inside": "{inside} of {n}",
                "windows only": "{inside_windows}",
            },
            rows,
        ),
        Table.of(
            "spread", {"deviation between sessions of": "{of}", "": "{sd:.1%}"}, spreads(sessions)
        ),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
