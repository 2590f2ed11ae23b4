"""Every evaluator turns a running trial into a complete one; measuring is handed to it."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "nas"))

from search_fakes import SPACE, changed, evaluated, finished, make_trial, reading

from nas.cluster.trial_worker import evaluate_trial
from nas.core.estimate import Estimate
from nas.evaluation.evaluator import TrainingEvaluator, forget_unfinished, unfinished
from nas.evaluation.supernet_evaluator import SupernetEvaluator
from nas.evaluation.supernet_weights import prepare_supernet
from nas.evaluation.teacher import prepare_teacher
from nas.records.config import LARGEST, SearchConfig
from nas.records.rungs import HalvingConfig
from nas.records.supernet import SupernetConfig
from nas.records.trial import Trial
from nas.training.config import DistillConfig, RecoveryConfig, SupernetRecipe, TrainingConfig
from search_spaces.space import SearchSpace
from search_spaces.space.sampling import largest, sample, smallest

# The space of the teacher only: what is evaluated is any architecture.
TINY = SearchSpace.from_dict(
    {
        "name": "tiny",
        "d_model": [16],
        "depth": [2],
        "patch_size": [4],
        "n_heads": [2],
        "n_kv_heads": [2],
        "ffn_ratio": [2],
    }
)


class FormulaEvaluator:
    """Quality and joules by formula, as the fakes of the session tests have it."""

    def evaluate(self, candidate, folder, measure, tell=None):
        record = finished(candidate)
        measured = measure(candidate.architecture, None, folder / "none", folder / "none")
        return changed(record, reading=measured.reading).outcome


def scratch(tmp_path):
    config = SearchConfig(
        task="digits",
        space=SPACE,
        trials=1,
        batch_size=64,
        training=TrainingConfig(epochs=2, batch_size=128),
    )
    return TrainingEvaluator(config.evaluation(), tmp_path / "inputs.npy", tmp_path / "locks")


def taught(tmp_path):
    """With a teacher that candidates learn and inherit from."""
    plain = scratch(tmp_path)
    training = replace(
        plain.config.training,
        distill=DistillConfig(feature_weight=1.0),
        recovery=RecoveryConfig(inherit_share=0.5),
    )
    config = replace(plain.config, space=TINY, training=training, teacher=LARGEST)
    folder = tmp_path / "teacher"
    prepare_teacher(config, folder, plain.lock_folder)
    return replace(plain, config=config, teacher=folder)


def shared(tmp_path):
    """Sub-networks of one that is trained beforehand."""
    plain = scratch(tmp_path)
    config = replace(plain.config, supernet=SupernetConfig(SupernetRecipe(epochs_factor=0.5)))
    folder = tmp_path / "supernet"
    prepare_supernet(config, folder, plain.lock_folder)
    return SupernetEvaluator.of(config, replace(plain, config=config), folder)


@pytest.fixture(
    params=[scratch, taught, shared, lambda _: FormulaEvaluator()],
    ids=["scratch", "taught", "shared", "formula"],
)
def evaluator(request, tmp_path):
    return request.param(tmp_path)


class Measured:
    def __init__(self):
        self.calls = []

    def __call__(self, architecture, workload, weights, inputs, runtime=None):
        self.calls.append((architecture, weights))

        class Record:
            spent_energy_j = 2.5
            versions: ClassVar = {}

        record = Record()
        record.reading = reading(1.25e-4)
        return record


def candidate(architecture, **changes):
    return make_trial(
        7,
        "running",
        architecture,
        prediction=Estimate(1e-4, 5e-5, 2e-4, "predicted"),
        **changes,
    ).candidate


@pytest.mark.parametrize("seed", [0, 1])
def test_a_running_trial_becomes_complete_and_keeps_what_it_was(evaluator, tmp_path, seed):
    architecture = smallest(SPACE) if seed == 0 else sample(SPACE, np.random.default_rng(3))
    measure = Measured()
    record = evaluated(evaluator, candidate(architecture, audit=True), tmp_path, measure)
    assert record.state == "complete" and record.number == 7 and record.audit
    assert record.architecture == architecture
    assert 0 <= record.quality <= 1 and record.quality_se > 0
    assert record.prediction.mean == 1e-4
    assert record.energy_j == 1.25e-4 and record.train_energy_j > 0
    assert [call[0] for call in measure.calls] == [architecture]
    assert Trial.from_dict(record.to_dict()) == record


def test_a_failed_measurement_is_not_swallowed(evaluator, tmp_path):
    def fail(*_):
        raise RuntimeError("sensor lost")

    with pytest.raises(RuntimeError, match="sensor lost"):
        evaluator.evaluate(candidate(smallest(SPACE)), tmp_path, fail)


def test_training_from_scratch_repeats_itself_and_keeps_the_weights(tmp_path):
    evaluator = scratch(tmp_path)
    records = []
    for name in ("a", "b"):
        measure = Measured()
        record = evaluator.evaluate(candidate(smallest(SPACE)), tmp_path / name, measure)
        records.append(record)
        assert measure.calls[0][1].is_file()
    first, second = (r.quality for r in records)
    assert first == second and records[0].test_quality == records[1].test_quality


def test_candidates_that_fit_start_from_the_teacher(tmp_path):
    evaluator = taught(tmp_path)
    shallow = replace(largest(TINY), layers=largest(TINY).layers[:1])
    narrow = smallest(SPACE)
    starts = [
        evaluator.evaluate(candidate(a), tmp_path / str(i), Measured()).training.start
        for i, a in enumerate((shallow, replace(narrow, patch_size=2)))
    ]
    assert starts == ["teacher", "random"]


def test_a_text_task_from_files_goes_the_whole_way(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("train", 120), ("dev", 40), ("test", 40)):
        lines = []
        for _ in range(n):
            label = int(rng.integers(2))
            words = rng.choice(["the", "a", "of"], size=int(rng.integers(1, 7))).tolist()
            words.insert(int(rng.integers(len(words) + 1)), ["dull", "fine"][label])
            lines.append(f"{label} {' '.join(words)}")
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    (tmp_path / "task.yaml").write_text(
        "name: words\ntrain: train.txt\nvalidation: dev.txt\ntest: test.txt\nsequence_length: 8\n"
    )
    space = SearchSpace.from_dict(TINY.to_dict() | {"name": "text", "patch_size": [1]})
    training = TrainingConfig(
        epochs=12, batch_size=16, learning_rate=1e-2, token_dropout=0.1, distill=DistillConfig()
    )
    config = SearchConfig(
        task=str(tmp_path / "task.yaml"),
        space=space,
        trials=1,
        batch_size=40,
        training=training,
        teacher=LARGEST,
    ).evaluation()
    folder = tmp_path / "teacher"
    teacher = prepare_teacher(config, folder, tmp_path / "locks")
    # Dropped words make no table: the teacher runs beside each step.
    assert not teacher.tabulated and teacher.quality > 0.9
    evaluator = TrainingEvaluator(config, tmp_path / "in.npy", tmp_path / "locks", folder)
    found = evaluator.evaluate(candidate(smallest(space)), tmp_path / "0", Measured())
    assert found.quality.value > 0.9 and found.test_quality.value > 0.9


class StoppedError(Exception):
    """What ends a trial from within ``tell``."""


def test_progress_is_on_disk_before_it_is_told_and_taken_up_after_a_kill(tmp_path):
    plain = scratch(tmp_path)
    training = replace(plain.config.training, epochs=9)
    halving = HalvingConfig(eta=2, min_epochs=2)
    evaluator = replace(plain, config=replace(plain.config, training=training, halving=halving))
    folder = tmp_path / "7"
    folder.mkdir()
    told = []

    def die_at_four(progress):
        assert unfinished(folder) == progress
        told.append(progress)
        if progress.curve[-1].epoch == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        evaluator.evaluate(candidate(smallest(SPACE)), folder, Measured(), die_at_four)
    before = told[-1]
    assert [p.epoch for p in before.curve] == [2, 4] and before.planned_epochs == 9
    assert before.spent.train_energy_j > told[0].spent.train_energy_j > 0
    resumed = []
    record = evaluator.evaluate(candidate(smallest(SPACE)), folder, Measured(), resumed.append)
    # The rung it was left at is told again, nothing before it is trained again.
    assert [p.curve[-1].epoch for p in resumed] == [4, 8]
    assert record.training.curve[:2] == before.curve and record.training.curve[-1].epoch == 8
    assert record.spent.train_energy_j > before.spent.train_energy_j
    assert record.spent.duration_s > before.spent.duration_s
    whole = tmp_path / "whole"
    once = evaluator.evaluate(candidate(smallest(SPACE)), whole, Measured(), lambda _: None)
    assert (once.quality, once.training.curve) == (record.quality, record.training.curve)
    forget_unfinished(folder)
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", "scores.npy"}


def test_a_trial_that_fails_says_what_its_training_cost(tmp_path):
    def refuse(*_):
        raise ValueError("no sensor")

    evaluator = scratch(tmp_path)
    found = evaluate_trial(candidate(smallest(SPACE)), tmp_path / "7", evaluator, refuse)
    assert found.state == "failed"
    assert found.spent.train_energy_j > 0 and found.spent.duration_s > 0
    # Once it is in the record, it is kept nowhere else.
    assert not (tmp_path / "7" / "spent.json").exists()
