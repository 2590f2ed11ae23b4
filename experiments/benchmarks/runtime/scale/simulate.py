"""A search by a thousand workers with a simulated clock: the driver's own code, and nothing else.

Session, gate, sampler and the study on disk are those of every search; workers are entries of a
queue that is ordered by when they will be done.
"""

from __future__ import annotations

import heapq
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from experiments.benchmarks.one_process import open_session
from experiments.benchmarks.runtime.scale.law import evaluated, training_s
from nas.records.candidate import Candidate
from nas.records.config import GateConfig, SamplerName, SearchConfig
from nas.records.trial import Trial
from nas.store.new_run import create
from nas.store.storage import records_path
from search_spaces.space.presets import get_space

STARTUP_TRIALS = 50
# In a process of its own, as a user's command is.
_QUERY = """
import json, resource, sys, time
import nas
started = time.process_time()
front = nas.load(sys.argv[1]).front()
spent = time.process_time() - started
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps({"cpu_s": spent, "members": len(front), "peak_mb": peak_mb}))
"""


@dataclass(frozen=True)
class Point:
    """What a search cost when ``trials`` were complete; CPU seconds are of one thread.

    ``propose_cpu_s`` is the mean of a proposal since the last point, judged and stored,
    ``most_propose_cpu_s`` the longest, ``finish_cpu_s`` the mean of taking up a result.
    """

    trials: int
    simulated_s: float
    cpu_s: float
    propose_cpu_s: float
    most_propose_cpu_s: float
    finish_cpu_s: float
    storage_bytes: int
    resident_mb: float
    front_cpu_s: float
    front_peak_mb: float
    front_members: int


def simulate(
    folder: Path,
    *,
    trials: int,
    workers: int,
    sampler: str,
    space: str,
    points: list[int],
    said: Callable[[str], None],
) -> Iterator[Point]:
    """Search in ``folder``, and give a point at each of ``points`` complete trials."""
    config = SearchConfig(
        task="digits",
        space=get_space(space),
        trials=trials,
        sampler=cast(SamplerName, sampler),
        # All is judged and predicted, and what would be dropped is evaluated all the same: a
        # search ends where nothing is left that may be on the front, and this one must not.
        gate=GateConfig(confidence=1 - 1e-12, startup_trials=STARTUP_TRIALS),
    )
    run = create(folder, config, "formula")
    workload = run.workload
    session = open_session(config, workload, run.folder, run.name)
    clock_s, order = 0.0, 0
    busy: list[tuple[float, int, Candidate]] = []
    started = time.process_time()
    proposing: list[float] = []
    finishing: list[float] = []
    left = sorted(points)

    def dispatch() -> None:
        nonlocal order
        while len(busy) < workers:
            before = time.process_time()
            candidate = session.next_candidate()
            if candidate is None:
                return
            proposing.append(time.process_time() - before)
            done_s = clock_s + training_s(candidate.architecture, workload)
            heapq.heappush(busy, (done_s, order, candidate))
            order += 1

    dispatch()
    n_complete = 0
    while busy:
        clock_s, _, candidate = heapq.heappop(busy)
        record = Trial(candidate, evaluated(candidate, workload))
        before = time.process_time()
        session.finish(record)
        finishing.append(time.process_time() - before)
        n_complete += 1
        dispatch()
        if left and n_complete == left[0]:
            left.pop(0)
            cpu_s = time.process_time() - started
            said(f"{n_complete:,} trials, {cpu_s:,.0f} CPU s")
            query = _front_query(folder)
            yield Point(
                n_complete,
                clock_s,
                cpu_s,
                sum(proposing) / max(1, len(proposing)),
                max(proposing, default=0.0),
                sum(finishing) / len(finishing),
                records_path(folder).stat().st_size,
                resident_mb(),
                query["cpu_s"],
                query["peak_mb"],
                int(query["members"]),
            )
            proposing, finishing = [], []


def _front_query(folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", _QUERY, str(folder)], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def resident_mb() -> float:
    """This process's resident set, in megabytes."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
