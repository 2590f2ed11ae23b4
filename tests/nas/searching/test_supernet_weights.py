"""A run's supernet: trained once, kept, shared; what candidates and finalists get of it."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from search_fakes import evaluated, make_trial, reading

from nas.core.estimate import Estimate
from nas.evaluation.evaluator import TrainingEvaluator
from nas.evaluation.supernet_evaluator import SupernetEvaluator
from nas.evaluation.supernet_weights import (
    SharedWeights,
    prepare_supernet,
    rebuilt,
    teacher_of,
)
from nas.evaluation.teacher import load_teacher, prepare_teacher, read_progress
from nas.records.config import LARGEST, SearchConfig
from nas.records.supernet import SupernetConfig
from nas.records.trained_once import read_record, read_supernet
from nas.tasks.registry import get_task
from nas.training import supernet_loop
from nas.training.config import DistillConfig, SupernetRecipe, TrainingConfig
from nas.training.evaluate import evaluate
from search_spaces.models.extract import extract
from search_spaces.space import SearchSpace
from search_spaces.space.sampling import largest, sample

SPACE = SearchSpace.from_dict(
    {
        "name": "small",
        "d_model": [16, 64],
        "depth": [1, 2],
        "n_heads": [1, 2],
        "n_kv_heads": [1, 2],
        "ffn_ratio": [1, 2],
        "ffn_rank": [None, 0.25],
        "patch_size": [4],
        "attention_precision": ["fp32", "bf16"],
        "ffn_precision": ["fp32", "bf16", "int8"],
        "ffn_sparsity": ["dense", "2:4"],
    }
)
CONFIG = SearchConfig(
    task="digits",
    space=SPACE,
    trials=1,
    batch_size=64,
    training=TrainingConfig(epochs=4, batch_size=64, learning_rate=5e-3),
    supernet=SupernetConfig(SupernetRecipe(epochs_factor=2.0), finish_share=0.5),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "supernet"
    assert read_supernet(folder) is None and read_progress(folder) is None
    prepare_supernet(CONFIG, folder, folder.parent / "locks")
    return folder


def evaluator_of(folder, config=CONFIG, teacher=None):
    config = config.evaluation()
    trainer = TrainingEvaluator(config, folder / "in.npy", folder.parent / "locks", teacher)
    return SupernetEvaluator.of(config, trainer, folder)


def no_measuring(*_):
    raise AssertionError("joules are predicted")


def measured(architecture, workload, weights, inputs, runtime=None):
    assert weights.is_file()
    return type("Record", (), {"reading": reading(1e-4), "spent_energy_j": 2.5, "versions": {}})()


def candidate(architecture, **changes):
    prediction = Estimate(1e-4, 5e-5, 2e-4, "predicted")
    return make_trial(7, "running", architecture, prediction=prediction, **changes).candidate


def test_a_supernet_is_trained_kept_and_accounted_for(made, monkeypatch):
    record = read_supernet(made)
    assert record.epochs == 8 and record.params > 10_000 and record.energy_j > 0
    assert read_record(teacher_of(made)).quality > 0.5
    assert read_progress(made) == (8, 8)
    assert not (made / "loop.safetensors").exists()
    teacher = load_teacher(teacher_of(made), "digits", "cpu")
    assert teacher.architecture == largest(SPACE) and teacher.outputs.shape == (1077, 9)

    def never(*_, **__):
        raise AssertionError("it is trained already")

    monkeypatch.setattr(supernet_loop, "train_supernet", never)
    prepare_supernet(CONFIG, made, made.parent / "locks")
    assert read_supernet(made) == record


def test_a_training_that_was_killed_is_paid_for_once_more_and_ends_the_same(
    made, tmp_path, monkeypatch
):
    original = supernet_loop.train_supernet

    def killed(*arguments, options, **rest):
        options.checkpoints._interval_s = 0.0

        def die(epoch, loss):
            options.on_epoch(epoch, loss)
            if epoch == 3:
                raise KeyboardInterrupt

        return original(*arguments, options=replace(options, on_epoch=die), **rest)

    monkeypatch.setattr(supernet_loop, "train_supernet", killed)
    folder = tmp_path / "supernet"
    with pytest.raises(KeyboardInterrupt):
        prepare_supernet(CONFIG, folder, tmp_path / "locks")
    assert read_supernet(folder) is None and read_progress(folder) == (3, 8)
    before = json.loads((folder / "progress.json").read_text())["energy_j"]
    monkeypatch.setattr(supernet_loop, "train_supernet", original)
    prepare_supernet(CONFIG, folder, tmp_path / "locks")
    assert read_supernet(folder).energy_j > before > 0
    assert SharedWeights.load(folder) == SharedWeights.load(made)


def test_weights_are_shared_as_arrays_and_rebuilt_once_in_a_process(made):
    weights = SharedWeights.load(made)
    workload = get_task("digits").workload(64)
    supernet = rebuilt(SPACE, workload, weights, "cpu")
    # As Ray hands them out: other objects, read-only, the same digest.
    sent = pickle.loads(pickle.dumps(weights))
    for array in sent.arrays.values():
        array.flags.writeable = False
    assert rebuilt(SPACE, workload, sent, "cpu") is supernet
    rebuilt.cache_clear()
    again = rebuilt(SPACE, workload, sent, "cpu")
    assert again is not supernet
    for name, value in again.state_dict().items():
        assert torch.equal(value, supernet.state_dict()[name])
    (made / "broken").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="must hold a supernet's weights"):
        SharedWeights.load(made / "broken")


def test_a_candidate_has_the_quality_that_it_inherits_and_what_compression_leaves_of_it(
    made, tmp_path
):
    evaluator, rng = evaluator_of(made), np.random.default_rng(1)
    members = [sample(SPACE, rng) for _ in range(24)]
    kinds = {block.compression for member in members for block in member.blocks}
    assert {(k.precision, k.sparsity) for k in kinds} >= {("bf16", "2:4"), ("int8", "dense")}
    n_lossy = 0
    for member in members:
        inherited = candidate(member, weights="inherited", joules="predicted")
        record = evaluated(evaluator, inherited, tmp_path, no_measuring)
        supernet = rebuilt(SPACE, get_task("digits").workload(64), evaluator.weights, "cpu")
        plain = evaluate(
            extract(supernet, member).eval(), get_task("digits").split("validation"), batch_size=64
        )
        assert record.state == "complete" and record.uncompressed_quality == plain.value
        assert record.start == "supernet" and record.weights == "inherited"
        assert record.reading is None and record.energy_j == 1e-4 and record.train_energy_j > 0
        assert record.params > 0 and record.test_quality is None
        n_lossy += record.quality != plain.value
    assert n_lossy > 0
    assert list(tmp_path.iterdir()) == []


def test_a_candidate_that_is_measured_leaves_no_weights_behind(made, tmp_path):
    inherited = candidate(largest(SPACE), weights="inherited")
    record = evaluated(evaluator_of(made), inherited, tmp_path, measured)
    assert record.energy_j == 1e-4 and record.measure_energy_j == 2.5
    assert list(tmp_path.iterdir()) == []


def test_a_finalist_starts_where_the_supernet_left_it_and_gains(made, tmp_path):
    evaluator = evaluator_of(made)
    inherited = evaluated(
        evaluator,
        candidate(largest(SPACE), weights="inherited", joules="predicted"),
        tmp_path,
        no_measuring,
    )
    running = candidate(largest(SPACE), finalist_of=3, inherited_quality=inherited.quality)
    record = evaluated(evaluator, running, tmp_path, measured)
    assert (record.weights, record.finalist_of, record.start) == ("own", 3, "supernet")
    assert record.quality >= inherited.quality - 0.02
    assert record.inherited_quality == inherited.quality
    assert record.test_quality > 0.1 and record.energy_j == 1e-4
    assert (tmp_path / "model.safetensors").is_file()
    # The supernet that others share stays as it was.
    again = evaluated(
        evaluator,
        candidate(largest(SPACE), weights="inherited", joules="predicted"),
        tmp_path,
        no_measuring,
    )
    assert again.quality == inherited.quality


def test_with_a_teacher_of_the_search_finalists_learn_from_that(tmp_path):
    training = replace(CONFIG.training, epochs=1, distill=DistillConfig())
    config = replace(CONFIG, teacher=LARGEST, training=training)
    prepare_supernet(config, tmp_path / "supernet", tmp_path / "locks")
    assert not teacher_of(tmp_path / "supernet").exists()
    prepare_teacher(config.evaluation(), tmp_path / "teacher", tmp_path / "locks")
    found = evaluator_of(tmp_path / "supernet", config, tmp_path / "teacher")
    assert found.trainer.teacher == tmp_path / "teacher"
    running = candidate(largest(SPACE), finalist_of=3)
    assert found.evaluate(running, tmp_path, measured).state == "complete"
