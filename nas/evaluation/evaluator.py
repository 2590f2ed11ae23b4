"""From a candidate to its quality and joules: train, compress, evaluate, measure."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nas.core.files import Place, read_json, write_json
from nas.core.time_limit import check_time
from nas.records.config import SearchConfig
from nas.records.replicas import save_scores
from nas.records.rungs import Progress, RungPoint, Tell
from nas.records.spent import SPENT, Spending
from nas.records.trial import TrialRecord
from predictors.measurement.accounting import whole_device
from predictors.measurement.records import EnergyRecord
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from nas.training.fit import Look
    from predictors.measurement.accounting import EnergySpan
    from predictors.measurement.exclusive import DeviceLock
    from search_spaces.models.transformer import Transformer

# Between the seeds of a trial and its replicas: beyond the numbers of any search's trials.
_REPLICA_STRIDE = 500_009
# What an unfinished trial keeps in its folder: the loop's state, and its progress.
_LOOP, _PROGRESS = "loop.safetensors", "progress.json"


class Measure(Protocol):
    """Measures one architecture while nothing else of ours runs on the device."""

    def __call__(
        self, architecture: Architecture, workload: Workload, weights: Place, inputs: Place
    ) -> EnergyRecord:
        """The measured record.

        Raises:
            MeasureError: no trustworthy figure could be had.
        """
        ...


class Evaluator(Protocol):
    """Turns a running trial into a complete one."""

    def evaluate(
        self, candidate: TrialRecord, folder: Place, measure: Measure, tell: Tell | None = None
    ) -> TrialRecord:
        """Evaluate ``candidate``, keeping what is worth keeping under ``folder``.

        Where the search stops trials early, ``tell`` hears of its progress at each rung. Any
        exception is a failed trial; the search goes on.
        """
        ...


@dataclass(frozen=True, slots=True)
class TrainingEvaluator:
    """Trains every candidate by the one recipe of the search.

    ``lock_folder`` holds the device's lock, ``None`` is the folder of the machine that trains.
    ``teacher`` is the folder of the run's teacher, where
    the search has one. ``energy_share`` says, where a trial trains, what part of the device's
    joules is that trial's.
    """

    config: SearchConfig
    inputs: Place
    lock_folder: Path | None = None
    teacher: Place | None = None
    energy_share: Callable[[], float] = whole_device

    def evaluate(
        self, candidate: TrialRecord, folder: Place, measure: Measure, tell: Tell | None = None
    ) -> TrialRecord:
        """See ``Evaluator.evaluate``."""
        return self.train(candidate, folder, measure, tell)

    def train(
        self,
        candidate: TrialRecord,
        folder: Place,
        measure: Measure,
        tell: Tell | None = None,
        initial: Transformer | None = None,
    ) -> TrialRecord:
        """Evaluate ``candidate``, starting from the weights of ``initial`` where there is one."""
        # Imported here: the driver process, which only ships this object, stays light.
        import torch

        from nas.evaluation.teacher import load_teacher
        from nas.tasks.registry import get_task
        from nas.training.checkpoint import CheckpointManager
        from nas.training.evaluate import evaluate
        from nas.training.fit import Watch, fit
        from nas.training.objectives import objective_of
        from nas.training.weights import save_weights
        from predictors.measurement.accounting import EnergySpan
        from predictors.measurement.exclusive import DeviceLock
        from search_spaces.compression.apply import compress, run_eagerly
        from search_spaces.cost.counting import count
        from search_spaces.cost.memory import peak_memory_of
        from search_spaces.models.device import use_device

        config, architecture = self.config, candidate.architecture
        started = time.perf_counter()
        use_device(config.device)
        if config.device == "cpu":
            # One thread per trial: small models gain nothing from more, and trials run abreast.
            torch.set_num_threads(1)
        task = get_task(config.task)
        workload = task.workload(config.batch_size)
        # A trial's seed follows from the search's and its number, so a resumed trial repeats it.
        # Replicas repeat all but the seed.
        seed = config.seed * 1_000_003 + candidate.number + _REPLICA_STRIDE * candidate.replica
        lock = DeviceLock(self.lock_folder, config.device)
        epochs = config.training.epochs
        rungs = () if config.halving is None or tell is None else config.halving.rungs(epochs)
        share = self.energy_share()
        with (
            EnergySpan(config.device, share) as span,
            Spending(folder, config.device, share) as spending,
        ):
            watcher = _Watcher(folder, started, span, spending, tell)
            checkpoints = CheckpointManager(folder / _LOOP, {*rungs, epochs})
            teacher = None
            if self.teacher is not None:
                with lock.shared():
                    teacher = load_teacher(self.teacher, config.task, config.device)
            fitted = fit(
                architecture,
                workload,
                task,
                config.training,
                seed=seed,
                device=config.device,
                teacher=teacher,
                initial=initial,
                watch=Watch(rungs, watcher.look),
                checkpoints=checkpoints,
                step_guard=partial(checked_step, lock),
            )
            if fitted.validation.scores is not None:
                save_scores(folder, fitted.validation.scores)
            weights = folder / "model.safetensors"
            save_weights(fitted.model, weights)
            with lock.shared():
                # Only now, when nothing is left to choose.
                runner = run_eagerly(compress(fitted.model, architecture))
                test = evaluate(
                    runner.call,
                    task.split("test"),
                    batch_size=config.batch_size,
                    objective=objective_of(task, workload),
                    device=config.device,
                )
        if config.device != "cpu":
            # What is measured may need the memory.
            del runner
            fitted.model.to("cpu")
            torch.cuda.empty_cache()
        record = measure(architecture, workload, weights, self.inputs)
        # What was known of the candidate stays: predictions, and what it is in the search.
        return replace(
            candidate,
            state="complete",
            quality=fitted.validation.value,
            quality_se=fitted.validation.standard_error,
            uncompressed_quality=fitted.uncompressed.value,
            start=fitted.start,
            qat=fitted.qat,
            test_quality=test.value,
            test_quality_se=test.standard_error,
            reading=record.reading,
            params=count(architecture, workload).params,
            peak_memory_bytes=peak_memory_of(architecture, workload, config.measured_device),
            curve=watcher.curve,
            planned_epochs=watcher.planned_epochs,
            duration_s=watcher.duration_s(),
            train_energy_j=spending.with_earlier(span.energy_j),
            measure_energy_j=record.spent_energy_j,
            trained_by=checkpoints.trained_by,
            measured_by=record.versions,
        )


def checked_step(lock: DeviceLock) -> AbstractContextManager[object]:
    """The device for one step, if there is time left for it."""
    check_time()
    return lock.shared()


class _Watcher:
    """A trial's progress, on disk before anybody hears of it.

    What the trial cost before it was interrupted is counted, that of repeated epochs too.
    """

    def __init__(
        self,
        folder: Place,
        started_s: float,
        span: EnergySpan,
        spending: Spending,
        tell: Tell | None,
    ) -> None:
        self._path = folder / _PROGRESS
        self._started_s, self._span, self._tell = started_s, span, tell
        self._spending = spending
        earlier = unfinished(folder)
        self.curve: tuple[RungPoint, ...] = () if earlier is None else earlier.curve
        self.planned_epochs = None if earlier is None else earlier.planned_epochs

    def look(self, look: Look) -> None:
        """Keep and tell what ``look`` found; a rung that was interrupted is told again."""
        point = RungPoint(look.epoch, look.quality.value, look.quality.standard_error)
        self.curve = (*(p for p in self.curve if p.epoch < look.epoch), point)
        self.planned_epochs = look.epochs
        progress = Progress(
            self.curve,
            look.epochs,
            look.start,
            self.duration_s(),
            self._spending.with_earlier(self._span.lap()),
        )
        write_json(self._path, progress.to_dict())
        if self._tell is not None:
            self._tell(progress)

    def duration_s(self) -> float:
        """Seconds until now, those before an interruption included."""
        return self._spending.earlier.duration_s + time.perf_counter() - self._started_s


def unfinished(folder: Place) -> Progress | None:
    """How far the trial in ``folder`` was at its last rung.

    ``None`` where it came to none, or that cannot be read: then its rungs are looked at again.
    """
    try:
        return Progress.from_dict(read_json(folder / _PROGRESS))
    except (ValueError, TypeError, LookupError):
        return None


def kept_epoch(folder: Place) -> int:
    """The last epoch that the unfinished trial in ``folder`` kept, as far as it is cheap to see.

    In an object store that is the last rung: the state itself would have to be read whole.
    """
    progress = unfinished(folder)
    epoch = 0 if progress is None or not progress.curve else progress.curve[-1].epoch
    if not isinstance(folder, Path):
        return epoch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(folder / _LOOP), framework="numpy") as file:
            return max(epoch, int((file.metadata() or {})["epoch"]))
    except (SafetensorError, OSError, KeyError, ValueError):
        return epoch


def forget_unfinished(folder: Place) -> None:
    """Remove what only an unfinished trial needs."""
    for name in (_LOOP, _PROGRESS, SPENT):
        (folder / name).unlink(missing_ok=True)
