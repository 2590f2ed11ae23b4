"""Evaluate sub-networks with inherited weights, and fine-tune finalists from them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nas.core.estimate import Score
from nas.core.files import Place
from nas.evaluation.evaluator import TrainingEvaluator
from nas.evaluation.in_runtimes import Measure, Subject, measure_in_runtimes
from nas.evaluation.supernet_weights import SharedWeights, rebuilt, teacher_of
from nas.records.candidate import Candidate, Measurement, Outcome, Training
from nas.records.config import EvaluationConfig
from nas.records.rungs import OnProgress
from nas.records.spent import Spent
from nas.training.config import DistillConfig
from search_spaces.architecture import Compression

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from nas.training.evaluate import Quality
    from search_spaces.models.supernet import Supernet

_WEIGHTS = "model.safetensors"
# Weight of the teacher in a finalist's loss. It is below 0.5 because the largest sub-network,
# trained jointly with all others, is no better than a fine-tuned finalist.
_TEACHER_SHARE = 0.3


@dataclass(frozen=True)
class SupernetEvaluator:
    """Evaluator that extracts sub-networks of ``weights``; ``trainer`` fine-tunes finalists.

    Quantisation and 2:4 masks by magnitude are applied to a copy of the extracted sub-network.
    Only finalists get a fine-tune that recovers the lost quality.
    """

    trainer: TrainingEvaluator
    weights: SharedWeights

    @classmethod
    def of(
        cls, config: EvaluationConfig, trainer: TrainingEvaluator, folder: Place
    ) -> SupernetEvaluator:
        """Create an evaluator for the supernet in ``folder``.

        Finalists train with the configuration of ``trainer``, for ``finish_share`` of its epochs.
        Their teacher is that of ``trainer``, else the supernet's largest sub-network.

        Raises:
            ValueError: the supernet's weights are missing or corrupt.
        """
        assert config.supernet is not None
        training = config.training
        recovery = replace(training.recovery, inherit_share=config.supernet.finish_share)
        training = replace(training, recovery=recovery)
        teacher = trainer.teacher
        if teacher is None:
            training = replace(training, distill=DistillConfig(logit_weight=_TEACHER_SHARE))
            teacher = teacher_of(folder)
        finishing = replace(config, supernet=None, training=training, teacher=str(teacher))
        return cls(replace(trainer, config=finishing, teacher=teacher), SharedWeights.load(folder))

    def evaluate(
        self, candidate: Candidate, folder: Place, measure: Measure, tell: OnProgress | None = None
    ) -> Outcome:
        """See ``Evaluator.evaluate``."""
        import torch

        from search_spaces.models.device import use_device

        use_device(self.trainer.config.device)
        if self.trainer.config.device == "cpu":
            torch.set_num_threads(1)
        if candidate.finalist_of is None:
            return self._inherited(candidate, folder, measure)
        from predictors.measurement.exclusive import DeviceLock
        from search_spaces.models.extract import extract

        with DeviceLock(self.trainer.lock_folder, self.trainer.config.device).shared():
            initial = extract(self._supernet(), candidate.architecture)
        return self.trainer.evaluate(candidate, folder, measure, None, initial)

    def _supernet(self) -> Supernet:
        from nas.tasks.registry import get_task

        config = self.trainer.config
        workload = get_task(config.task).workload(config.batch_size)
        return rebuilt(config.space, workload, self.weights, config.device)

    def _inherited(self, candidate: Candidate, folder: Place, measure: Measure) -> Outcome:
        from nas.tasks.registry import get_task
        from nas.training.evaluate import evaluate
        from nas.training.objective import objective_of
        from nas.training.weights import save_weights
        from predictors.measurement.accounting import EnergySpan
        from predictors.measurement.exclusive import DeviceLock
        from search_spaces.compression.apply import compress, run_eagerly
        from search_spaces.cost.counting import count
        from search_spaces.cost.memory import peak_memory_of
        from search_spaces.models.extract import extract

        config, architecture = self.trainer.config, candidate.architecture
        started = time.perf_counter()
        lock = DeviceLock(self.trainer.lock_folder, config.device)
        with lock.shared():
            supernet = self._supernet()
        task = get_task(config.task)
        objective = objective_of(task, supernet.workload)
        split = task.split("validation")

        def quality(call: Callable[[Tensor], Tensor]) -> Quality:
            return evaluate(
                call,
                split,
                batch_size=config.batch_size,
                objective=objective,
                device=config.device,
            )

        share = self.trainer.energy_share()
        with EnergySpan(config.device, share) as span, lock.shared():
            model = extract(supernet, architecture).eval()
            uncompressed = quality(run_eagerly(model).call)
            validation = uncompressed
            if any(block.compression != Compression() for block in architecture.blocks):
                validation = quality(run_eagerly(compress(model, architecture)).call)
        score = Score(validation.value, validation.standard_error)
        measurement, measure_j = Measurement(), None
        if candidate.joules == "measured":
            weights = folder / _WEIGHTS
            save_weights(model, weights)
            subject = Subject(supernet.workload, weights, self.trainer.inputs)
            measured = measure_in_runtimes(
                candidate, score, subject, measure, folder, max_latency_s=config.max_latency_s
            )
            measurement, measure_j = measured.measurement, measured.spent_j
            # The supernet contains them.
            weights.unlink()
        return Outcome(
            "complete",
            quality=score,
            uncompressed_quality=uncompressed.value,
            params=count(architecture, supernet.workload).params,
            peak_memory_bytes=peak_memory_of(
                architecture, supernet.workload, config.measured_device
            ),
            training=Training(start="supernet"),
            measurement=measurement,
            spent=Spent(time.perf_counter() - started, span.energy_j, measure_j),
        )
