"""Our driver and bare Ray Tune with trials that cost nothing, each for a limited time.

Each function is one variant, to be run in a process of its own. Ray is up before the clock starts;
it stops at the last trial, or when the time is over.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from experiments.benchmarks.one_process import open_session
from experiments.benchmarks.runtime.scale.law import evaluated
from experiments.benchmarks.runtime.scale.simulate import STARTUP_TRIALS, resident_mb
from nas.evaluation.executor import Measuring
from nas.evaluation.in_runtimes import Measure
from nas.records.candidate import Candidate, Outcome
from nas.records.config import GateConfig, SamplerName, SearchConfig
from nas.records.rungs import OnProgress
from nas.records.trial import Trial
from nas.searching.controller.session import Snapshot
from nas.searching.gating.surrogates import FIT_SHARE, ArchitectureSurrogates
from nas.searching.loop import search
from nas.store.driver import Driver
from nas.store.new_run import create
from nas.tasks.registry import get_task
from search_spaces.space.encoding import decode, repair
from search_spaces.space.presets import get_space
from search_spaces.workload import Workload

BARE, REUSED = "bare Tune", "bare Tune, actors reused"


@dataclass(frozen=True)
class Rate:
    """How many trials one variant completed in its time.

    ``grown_mb`` is the growth of its driver's memory in the second half of the time.
    """

    variant: str
    asked: int
    trials: int
    wall_s: float
    driver_cpu_s: float
    peak_mb: float
    grown_mb: float
    is_whole: bool

    @property
    def per_s(self) -> float:
        """Trials a second."""
        return self.trials / self.wall_s


@dataclass(frozen=True)
class Formula:
    """An ``Evaluator`` that sleeps for ``sleep_s`` and trains nothing."""

    workload: Workload
    sleep_s: float = 0.0

    def evaluate(
        self, candidate: Candidate, folder: Path, measure: Measure, tell: OnProgress | None = None
    ) -> Outcome:
        """See ``nas.evaluation.evaluator.Evaluator``."""
        time.sleep(self.sleep_s)
        return evaluated(candidate, self.workload)


class UnfittedSurrogates(ArchitectureSurrogates):
    """Surrogates that are never fitted, for what the driver costs without them."""

    def refit(self, records: Sequence[Trial]) -> None:
        """Ignore all trials."""

    def add(self, record: Trial, records: Callable[[], Sequence[Trial]]) -> None:
        """Ignore the trial."""


class _Watch:
    """Memory and CPU of this process, sampled each second."""

    def __init__(self) -> None:
        self.looks: list[tuple[float, float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.looks.append((time.perf_counter(), time.process_time(), resident_mb()))
            if self._over.wait(1.0):
                return

    @property
    def peak_mb(self) -> float:
        return max(look[2] for look in self.looks)

    @property
    def grown_mb(self) -> float:
        """Memory at the end beyond that at half of the time."""
        return self.looks[-1][2] - self.looks[len(self.looks) // 2][2]

    @property
    def idle_share(self) -> float | None:
        """CPU as a share of a core in the middle: before it workers start, after it they end."""
        middle = self.looks[len(self.looks) // 3 : -max(2, len(self.looks) // 5)]
        if len(middle) < 2:
            return None
        return (middle[-1][1] - middle[0][1]) / (middle[-1][0] - middle[0][0])


class _Counting:
    """A listener that counts, and ends the search as Ctrl-C does when its time is over."""

    def __init__(self, budget_s: float) -> None:
        self.complete = 0
        self._end_s = time.perf_counter() + budget_s

    def on_change(self, snapshot: Snapshot, record: Trial | None) -> None:
        self.complete = snapshot.complete
        if time.perf_counter() > self._end_s:
            raise KeyboardInterrupt

    def on_teacher(self, epoch: int, epochs: int) -> None: ...

    def on_supernet(self, epoch: int, epochs: int) -> None: ...

    def on_refine(self, done: int, total: int) -> None: ...

    def on_wait(self, reason: str) -> None: ...


def ours(
    sampler: str,
    space: str,
    trials: int,
    workers: int,
    budget_s: float,
    *,
    sleep_s: float = 0.0,
    is_gated: bool = True,
) -> tuple[Rate, float | None]:
    """Run our driver; the second value is its CPU, as a share of a core, while trials sleep."""
    from nas.cluster.connect import cluster
    from nas.cluster.driver import TuneExecutor
    from predictors.measurement.protocol import get_protocol

    config = SearchConfig(
        task="digits",
        space=get_space(space),
        trials=trials,
        sampler=cast(SamplerName, sampler),
        gate=GateConfig(confidence=1 - 1e-12, startup_trials=STARTUP_TRIALS),
    )
    with tempfile.TemporaryDirectory() as name, cluster(None, workers, "cpu"):
        run = create(Path(name) / "run", config, "formula")
        listener = _Counting(budget_s)
        evaluator, folder = Formula(run.workload, sleep_s), run.folder / "trials"
        protocol = get_protocol("quick")
        measuring = Measuring("cpu", "estimate", protocol, Path(name) / "locks")
        with _Watch() as watch:
            started, cpu_s = time.perf_counter(), time.process_time()
            # As ``nas.searching.study`` makes it.
            make_surrogates = partial(
                ArchitectureSurrogates if is_gated else UnfittedSurrogates, fit_share=FIT_SHARE
            )
            session = open_session(
                config,
                run.workload,
                run.folder,
                run.name,
                listener=listener,
                make_surrogates=make_surrogates,
            )
            is_whole = True
            try:
                with closing(TuneExecutor(evaluator, folder, measuring, Driver(workers))) as tune:
                    search(session, tune, folder)
            except KeyboardInterrupt:
                is_whole = False
            wall_s = time.perf_counter() - started
            cpu_s = time.process_time() - cpu_s
    done = listener.complete
    return (
        Rate(
            f"ours ({sampler}{'' if is_gated else ', no surrogates'})",
            trials,
            done,
            wall_s,
            cpu_s,
            watch.peak_mb,
            watch.grown_mb,
            is_whole and done >= trials,
        ),
        watch.idle_share,
    )


def bare(
    sampler: str, space: str, trials: int, workers: int, budget_s: float, *, reuse_actors: bool
) -> Rate:
    """Run Ray Tune with OptunaSearch of two objectives, else its defaults.

    It proposes at random where ``sampler`` is "random", else by Optuna's default, TPE.
    """
    import optuna
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    from nas.cluster.connect import cluster

    found = get_space(space)
    workload = get_task("digits").workload(128)

    def objective(config: dict[str, Any]) -> None:
        architecture = decode(repair(config, found), found)
        candidate = Candidate(0, architecture)
        record = Trial(candidate, evaluated(candidate, workload))
        quality, energy_j = record.objectives
        tune.report({"quality": quality, "energy_j": energy_j})

    with tempfile.TemporaryDirectory() as name, cluster(None, workers, "cpu"), _Watch() as watch:
        started, cpu_s = time.perf_counter(), time.process_time()
        results = tune.Tuner(
            objective,
            param_space={
                gene: tune.choice(list(domain.values)) for gene, domain in found.genes().items()
            },
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(
                    metric=["quality", "energy_j"],
                    mode=["max", "min"],
                    sampler=optuna.samplers.RandomSampler() if sampler == "random" else None,
                ),
                num_samples=trials,
                max_concurrent_trials=workers,
                time_budget_s=budget_s,
                reuse_actors=reuse_actors,
            ),
            run_config=tune.RunConfig(storage_path=name, name="bare", verbose=0),
        ).fit()
        wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
        done = sum("energy_j" in (result.metrics or {}) for result in results)
    name = REUSED if reuse_actors else BARE
    return Rate(name, trials, done, wall_s, cpu_s, watch.peak_mb, watch.grown_mb, done >= trials)
