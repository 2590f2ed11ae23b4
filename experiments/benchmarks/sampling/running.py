"""One sampler on one problem with one seed; many of them in processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from experiments.benchmarks.sampling.curves import volume_curve
from experiments.benchmarks.sampling.peers.registry import PEERS
from experiments.benchmarks.sampling.problems.registry import ProblemName, make_problem
from experiments.benchmarks.sampling.results import Run

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_DIGITS = 9


@dataclass(frozen=True)
class Job:
    """What one process does at a time."""

    problem: ProblemName
    sampler: str
    seed: int
    evaluations: int


def run_one(job: Job) -> Run:
    """All evaluations of a job."""
    problem, peer = make_problem(job.problem), PEERS[job.sampler]
    noise = np.random.default_rng([job.seed, 7])
    cpu, wall = time.process_time(), time.perf_counter()
    searcher = peer.make(problem, job.seed)
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    losses, spent_cpu, spent_wall, seen = [], [], [], set()
    for _ in range(job.evaluations):
        cpu, wall = time.process_time(), time.perf_counter()
        config = searcher.ask()
        cpu_s, wall_s = cpu_s + time.process_time() - cpu, wall_s + time.perf_counter() - wall
        true = problem.truth([config])[0]
        seen.add(problem.row_of(config))
        told = [float(true[0]) + problem.noise_sd * float(noise.standard_normal()), float(true[1])]
        cpu, wall = time.process_time(), time.perf_counter()
        searcher.tell(told)
        cpu_s, wall_s = cpu_s + time.process_time() - cpu, wall_s + time.perf_counter() - wall
        losses.append(true)
        spent_cpu.append(round(cpu_s, 6))
        spent_wall.append(round(wall_s, 6))
    volumes = volume_curve(np.array(losses), problem.reference)
    return Run(
        problem=problem.name,
        sampler=job.sampler,
        seed=job.seed,
        version=peer.version(),
        reference=problem.reference,
        distinct_rows=len(seen),
        volumes=[round(float(v), _DIGITS) for v in volumes],
        cpu_s=spent_cpu,
        wall_s=spent_wall,
    )


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
