"""Evaluate a candidate: train, compress, score on held-out data, measure joules."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nas.core.estimate import Score
from nas.core.files import Place, read_json, write_json
from nas.core.plain import from_plain, to_plain
from nas.core.time_limit import check_time
from nas.evaluation.in_runtimes import MEASURED, Measure, Subject, measure_in_runtimes
from nas.records.candidate import Candidate, Outcome, Training
from nas.records.config import EvaluationConfig
from nas.records.replicas import save_scores
from nas.records.rungs import OnProgress, Progress, RungPoint
from nas.records.spent import SPENT, Spending
from predictors.measurement.accounting import whole_device

if TYPE_CHECKING:
    from nas.training.fit import EpochResult
    from predictors.measurement.accounting import EnergySpan
    from predictors.measurement.exclusive import DeviceLock
    from search_spaces.models.transformer import Transformer

# Distance between the seeds of a trial and its replicas: larger than any trial number.
_REPLICA_STRIDE = 500_009
# Files of an unfinished trial: the training checkpoint and its progress.
_LOOP, _PROGRESS = "loop.safetensors", "progress.json"


class Evaluator(Protocol):
    """Interface to evaluate candidates."""

    def evaluate(
        self, candidate: Candidate, folder: Place, measure: Measure, tell: OnProgress | None = None
    ) -> Outcome:
        """Evaluate ``candidate``, with its files in ``folder``, and return a complete outcome.

        ``tell`` is called with the trial's progress at each rung and may stop the trial early. An
        exception fails the trial, not the search.
        """


@dataclass(frozen=True, slots=True)
class TrainingEvaluator:
    """Evaluator that trains every candidate with the search's ``TrainingConfig``.

    ``lock_folder`` contains the device's lock; ``None`` is the default folder of the training
    machine. ``teacher`` is the folder of the run's teacher, if there is one. ``energy_share``
    returns a trial's share of the device's joules; the training worker calls it.
    """

    config: EvaluationConfig
    inputs: Place
    lock_folder: Path | None = None
    teacher: Place | None = None
    energy_share: Callable[[], float] = whole_device

    def evaluate(
        self,
        candidate: Candidate,
        folder: Place,
        measure: Measure,
        tell: OnProgress | None = None,
        initial: Transformer | None = None,
    ) -> Outcome:
        """See ``Evaluator``; training starts from the weights of ``initial``, if set."""
        # Imported here to keep the driver process light: it only serialises this object.
        import torch

        from nas.evaluation.teacher import load_teacher, needs_features
        from nas.tasks.registry import get_task
        from nas.training.checkpoint import CheckpointManager
        from nas.training.evaluate import evaluate
        from nas.training.fit import Setting, Watch, fit
        from nas.training.objective import objective_of
        from nas.training.weights import save_weights
        from predictors.measurement.accounting import EnergySpan
        from predictors.measurement.exclusive import DeviceLock
        from search_spaces.compression.apply import compress, run_eagerly
        from search_spaces.cost.counting import count
        from search_spaces.cost.memory import peak_memory_of
        from search_spaces.models.device import use_device

        config, architecture = self.config.here(), candidate.architecture
        if config.checkpoint is not None and candidate.finalist_of is not None:
            config = config.for_finalists()
        use_device(config.device)
        if config.device == "cpu":
            # One thread per trial: small models gain nothing from more, trials run in parallel.
            torch.set_num_threads(1)
        task = get_task(config.task)
        workload = task.workload(config.batch_size)
        # The seed depends only on the search's seed and the trial number: a resumed trial reuses
        # it. Replicas differ in the seed alone.
        seed = config.seed * 1_000_003 + candidate.number + _REPLICA_STRIDE * candidate.replica
        lock = DeviceLock(self.lock_folder, config.device)
        epochs = config.training.epochs
        rungs = () if config.halving is None or tell is None else config.halving.rungs(epochs)
        share = self.energy_share()
        with (
            EnergySpan(config.device, share) as span,
            Spending(folder, config.device, share) as spending,
        ):
            watcher = _Watcher(folder, span, spending, tell)
            checkpoints = CheckpointManager(folder / _LOOP, {*rungs, epochs})
            teacher = None
            if self.teacher is not None:
                with lock.shared():
                    teacher = load_teacher(
                        self.teacher,
                        config.task,
                        config.device,
                        has_features=needs_features(config.training),
                    )
            guard = partial(checked_step, lock)
            fitted = fit(
                architecture,
                Setting(task, workload, seed, config.device, teacher, guard),
                config.training,
                initial=initial,
                watch=Watch(rungs, watcher.record),
                checkpoints=checkpoints,
            )
            if fitted.validation.scores is not None:
                save_scores(folder, fitted.validation.scores)
            weights = folder / "model.safetensors"
            save_weights(fitted.model, weights)
            with lock.shared():
                # The test split is read only after all choices are made.
                runner = run_eagerly(compress(fitted.model, architecture))
                test = evaluate(
                    runner.call,
                    task.split("test"),
                    batch_size=config.batch_size,
                    objective=objective_of(task, workload),
                    device=config.device,
                )
                task.save_examples(runner.call, config.device, folder)
        if config.device != "cpu":
            # Free the GPU memory for the measurement process.
            del runner
            fitted.model.to("cpu")
            torch.cuda.empty_cache()
        quality = Score(fitted.validation.value, fitted.validation.standard_error)
        measured = measure_in_runtimes(
            candidate,
            quality,
            Subject(workload, weights, self.inputs),
            measure,
            folder,
            max_latency_s=config.max_latency_s,
        )
        return Outcome(
            "complete",
            quality=quality,
            test_quality=Score(test.value, test.standard_error),
            uncompressed_quality=fitted.uncompressed.value,
            params=count(architecture, workload).params,
            peak_memory_bytes=peak_memory_of(architecture, workload, config.measured_device),
            training=Training(
                watcher.curve,
                watcher.planned_epochs,
                fitted.start,
                fitted.qat,
                checkpoints.trained_by,
            ),
            measurement=measured.measurement,
            spent=spending.total(span.energy_j, measured.spent_j),
        )


def checked_step(lock: DeviceLock) -> AbstractContextManager[object]:
    """Check the time limit and return the shared device lock for one step."""
    check_time()
    return lock.shared()


class _Watcher:
    """Recorder of a trial's progress: writes each rung to disk, then reports it."""

    def __init__(
        self, folder: Place, span: EnergySpan, spending: Spending, tell: OnProgress | None
    ) -> None:
        self._path = folder / _PROGRESS
        self._span, self._spending, self._tell = span, spending, tell
        earlier = unfinished(folder)
        self.curve: tuple[RungPoint, ...] = () if earlier is None else earlier.curve
        self.planned_epochs = None if earlier is None else earlier.planned_epochs

    def record(self, result: EpochResult) -> None:
        """Record a rung; a resumed training may repeat its last one."""
        point = RungPoint(result.epoch, result.quality.value, result.quality.standard_error)
        self.curve = (*(p for p in self.curve if p.epoch < result.epoch), point)
        self.planned_epochs = result.epochs
        spent = self._spending.total(self._span.lap())
        progress = Progress(self.curve, result.epochs, result.start, spent)
        write_json(self._path, to_plain(progress))
        if self._tell is not None:
            self._tell(progress)


def unfinished(folder: Place) -> Progress | None:
    """Return the progress of the unfinished trial in ``folder`` at its last rung.

    ``None`` if it reached no rung or the file is unreadable; its rungs are then judged again.
    """
    try:
        return from_plain(Progress, read_json(folder / _PROGRESS), _PROGRESS)
    except ValueError:
        return None


def kept_epoch(folder: Place) -> int:
    """Return the epoch from which the unfinished trial in ``folder`` would resume.

    In an object store this is the epoch of the last rung, a lower bound: the checkpoint's header
    could only be read with the whole file.
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
    """Remove the files that only an unfinished trial needs."""
    for name in (_LOOP, _PROGRESS, SPENT, MEASURED):
        (folder / name).unlink(missing_ok=True)
