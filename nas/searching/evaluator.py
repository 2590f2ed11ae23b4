"""From a candidate to its accuracy and joules: train, compress, evaluate, measure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nas.searching.config import SearchConfig
from nas.searching.trial import TrialRecord
from predictors.campaign.records import EnergyRecord
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload


class Measure(Protocol):
    """Measures one architecture while nothing else of ours runs on the device."""

    def __call__(
        self, architecture: Architecture, workload: Workload, weights: Path, inputs: Path
    ) -> EnergyRecord:
        """The measured record.

        Raises:
            MeasureError: no trustworthy figure could be had.
        """
        ...


class Evaluator(Protocol):
    """Turns a running trial into a complete one."""

    def evaluate(self, candidate: TrialRecord, folder: Path, measure: Measure) -> TrialRecord:
        """Evaluate ``candidate``, keeping what is worth keeping under ``folder``.

        Any exception is a failed trial; the search goes on.
        """
        ...


@dataclass(frozen=True, slots=True)
class TrainingEvaluator:
    """Trains every candidate by the one recipe of the search.

    ``lock_folder`` holds the device's lock; ``workers`` trials share the device. ``teacher`` is
    the folder of the run's teacher, where the search has one.
    """

    config: SearchConfig
    inputs: Path
    lock_folder: Path
    workers: int
    teacher: Path | None = None

    def evaluate(self, candidate: TrialRecord, folder: Path, measure: Measure) -> TrialRecord:
        """See ``Evaluator.evaluate``."""
        # Imported here: the driver process, which only ships this object, stays light.
        import torch

        from nas.searching.teacher import load_teacher
        from nas.tasks.registry import get_task
        from nas.training.checkpoint import save_weights
        from nas.training.evaluate import evaluate
        from nas.training.fit import fit
        from predictors.campaign.accounting import EnergySpan
        from predictors.campaign.exclusive import DeviceLock
        from search_spaces.compression.apply import compress, run_eagerly
        from search_spaces.counting import count

        config, architecture = self.config, candidate.architecture
        started = time.perf_counter()
        if config.device == "cpu":
            # One thread per trial: small models gain nothing from more, and trials run abreast.
            torch.set_num_threads(1)
        task = get_task(config.task)
        workload = task.workload(config.batch_size)
        # A trial's seed follows from the search's and its number, so a resumed trial repeats it.
        seed = config.seed * 1_000_003 + candidate.number
        lock = DeviceLock(self.lock_folder, config.device)
        with EnergySpan(config.device, share=1 / self.workers) as span:
            teacher = None
            if self.teacher is not None:
                teacher = load_teacher(self.teacher, config.task, config.device)
            fitted = fit(
                architecture,
                workload,
                task,
                config.training,
                seed=seed,
                device=config.device,
                teacher=teacher,
                step_guard=lock.shared,
            )
            weights = folder / "model.safetensors"
            save_weights(fitted.model, weights)
            with lock.shared():
                # Only now, when nothing is left to choose.
                runner = run_eagerly(compress(fitted.model, architecture))
                test = evaluate(
                    runner.call,
                    task.split("test"),
                    batch_size=config.batch_size,
                    device=config.device,
                )
        record = measure(architecture, workload, weights, self.inputs)
        return TrialRecord(
            number=candidate.number,
            state="complete",
            architecture=architecture,
            accuracy=fitted.validation.value,
            accuracy_se=fitted.validation.standard_error,
            uncompressed_accuracy=fitted.uncompressed.value,
            start=fitted.start,
            qat=fitted.qat,
            test_accuracy=test.value,
            test_accuracy_se=test.standard_error,
            reading=record.reading,
            params=count(architecture, workload).params,
            predicted_energy_j=candidate.predicted_energy_j,
            predicted_low_j=candidate.predicted_low_j,
            predicted_high_j=candidate.predicted_high_j,
            audit=candidate.audit,
            baseline=candidate.baseline,
            duration_s=time.perf_counter() - started,
            train_energy_j=span.energy_j,
            measure_energy_j=record.spent_energy_j,
        )
