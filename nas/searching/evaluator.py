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
class ScratchEvaluator:
    """Trains every candidate from random weights.

    ``lock_folder`` holds the device's lock; ``workers`` trials share the device.
    """

    config: SearchConfig
    inputs: Path
    lock_folder: Path
    workers: int

    def evaluate(self, candidate: TrialRecord, folder: Path, measure: Measure) -> TrialRecord:
        """See ``Evaluator.evaluate``."""
        # Imported here: the driver process, which only ships this object, stays light.
        import torch

        from nas.tasks.registry import get_task
        from nas.training.checkpoint import save_weights
        from nas.training.evaluate import evaluate
        from nas.training.loop import train
        from predictors.campaign.accounting import EnergySpan
        from predictors.campaign.exclusive import DeviceLock
        from search_spaces.compression.apply import compress, run_eagerly
        from search_spaces.counting import count
        from search_spaces.models.build import build

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
            model = build(architecture, workload, generator_seed=seed).to(config.device)
            # A shape that has no kernel must fail now, not after it cost its training.
            compress(model, architecture)
            train(
                model,
                task.split("train"),
                config.training,
                seed=seed,
                device=config.device,
                step_guard=lock.shared,
            )
            weights = folder / "model.safetensors"
            save_weights(model, weights)
            with lock.shared():
                # Op by op: a few batches would never pay for compiling, which measuring needs.
                runner = run_eagerly(compress(model, architecture))
                validation, test = (
                    evaluate(
                        runner.call,
                        task.split(name),
                        batch_size=config.batch_size,
                        device=config.device,
                    )
                    for name in ("validation", "test")
                )
        record = measure(architecture, workload, weights, self.inputs)
        return TrialRecord(
            number=candidate.number,
            state="complete",
            architecture=architecture,
            accuracy=validation.value,
            accuracy_se=validation.standard_error,
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
