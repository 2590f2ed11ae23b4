"""One sampler on one problem with one seed; many of them in processes of one thread each."""

from __future__ import annotations

import heapq
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from experiments.benchmarks.sampling.curves import measured_front_curve, volume_curve
from experiments.benchmarks.sampling.peers.registry import PEERS
from experiments.benchmarks.sampling.problems.noise import noise_rng
from experiments.benchmarks.sampling.problems.registry import ProblemName, make_problem
from experiments.benchmarks.sampling.problems.space import Config
from experiments.benchmarks.sampling.results import Run

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_DIGITS = 9
# Evaluations take from one half to three halves of their mean, so that they end in another order.
_SHORTEST, _LONGEST = 0.5, 1.5


@dataclass(frozen=True)
class Job:
    """What one process does at a time: ``in_flight`` evaluations are under way at once."""

    problem: ProblemName
    sampler: str
    seed: int
    evaluations: int
    in_flight: int = 1


def run_one(job: Job) -> Run:
    """All evaluations of a job, by the order in which they end."""
    problem, peer = make_problem(job.problem), PEERS[job.sampler]
    clock = _Clock()
    with clock:
        searcher = peer.make(problem, job.seed)
    durations = np.random.default_rng([job.seed, 11])
    under_way: list[tuple[float, int, Config]] = []
    now, n_asked, n_of_row = 0.0, 0, Counter[Hashable]()
    true, measured, spent_cpu, spent_wall = [], [], [], []
    while len(true) < job.evaluations:
        while n_asked < job.evaluations and len(under_way) < job.in_flight:
            with clock:
                config = searcher.ask()
            end = now + float(durations.uniform(_SHORTEST, _LONGEST))
            heapq.heappush(under_way, (end, n_asked, config))
            n_asked += 1
        now, number, config = heapq.heappop(under_way)
        loss, row = problem.truth([config])[0], problem.row_of(config)
        seen = loss
        if problem.noise is not None:
            seen = problem.noise(loss, noise_rng(job.seed, row, n_of_row[row]))
        n_of_row[row] += 1
        with clock:
            searcher.tell(number, seen.tolist())
        true.append(loss)
        measured.append(seen)
        spent_cpu.append(round(clock.cpu_s, 6))
        spent_wall.append(round(clock.wall_s, 6))
    volumes = volume_curve(np.array(true), problem.reference)
    scored = volumes
    if problem.is_scored_by_front:
        scored = measured_front_curve(np.array(measured), np.array(true), problem.reference)
    return Run(
        problem=problem.name,
        sampler=job.sampler,
        seed=job.seed,
        version=peer.version(),
        reference=problem.reference,
        distinct_rows=len(n_of_row),
        volumes=[round(float(v), _DIGITS) for v in scored],
        cpu_s=spent_cpu,
        wall_s=spent_wall,
        evaluated_volume=round(float(volumes[-1]), _DIGITS),
        in_flight=job.in_flight,
    )


class _Clock:
    """CPU and wall seconds spent within its ``with`` blocks."""

    def __init__(self) -> None:
        self.cpu_s, self.wall_s = 0.0, 0.0

    def __enter__(self) -> None:
        self._began = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        cpu, wall = self._began
        self.cpu_s += time.process_time() - cpu
        self.wall_s += time.perf_counter() - wall


def run_all(
    jobs: Sequence[Job],
    *,
    workers: int,
    deadline: float | None,
    ended: Callable[[Job, Run | Exception], None],
) -> None:
    """Run ``jobs`` in their order; none is started after ``deadline`` by ``time.monotonic``."""
    for name in _THREAD_VARIABLES:
        os.environ[name] = "1"
    left = list(reversed(jobs))
    under_way: dict[Future[Run], Job] = {}
    # Fresh interpreters, so that the variables above are read.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_one_thread) as pool:
        while left or under_way:
            is_time = deadline is None or time.monotonic() < deadline
            while left and is_time and len(under_way) < workers:
                job = left.pop()
                under_way[pool.submit(run_one, job)] = job
            if not under_way:
                return
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                job, error = under_way.pop(future), future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                ended(job, error if error is not None else future.result())


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
