"""The teacher of a run: made once, kept, taken over from artifacts, or refused."""

import json
from dataclasses import replace

import pytest
import torch
from search_fakes import SPACE

from nas.core.files import write_json
from nas.core.plain import from_plain, to_plain
from nas.evaluation import teacher as teacher_module
from nas.evaluation.teacher import (
    check_artifact,
    is_ready,
    load_teacher,
    prepare_teacher,
    read_progress,
)
from nas.records.config import LARGEST, SearchConfig
from nas.records.trained_once import TeacherRecord, read_record
from nas.tasks.registry import get_task
from nas.training import distill
from nas.training import loop as loop_module
from nas.training.config import DistillConfig, RecoveryConfig, TrainingConfig
from nas.training.weights import save_weights
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build
from search_spaces.space import SearchSpace
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import largest

SMALL = SearchSpace.from_dict(
    {
        "name": "small",
        "d_model": [8, 16],
        "depth": [1, 2],
        "n_heads": [1, 2],
        "n_kv_heads": [1, 2],
        "ffn_ratio": [1, 2],
        "ffn_rank": [None, 0.25],
        "patch_size": [4, 8],
        "ffn_precision": ["bf16", "fp32"],
    }
)
CONFIG = SearchConfig(
    task="digits",
    space=SMALL,
    trials=1,
    batch_size=64,
    training=TrainingConfig(epochs=2, batch_size=128, distill=DistillConfig()),
    teacher=LARGEST,
)


def test_the_largest_member_is_larger_than_all_others():
    import numpy as np

    from search_spaces.cost.counting import count
    from search_spaces.space.sampling import sample

    found = largest(SMALL)
    assert found.describe() == "d16 L2 h2/2 ff32 p4 fp32" and SMALL.contains(found)
    rng = np.random.default_rng(0)
    for space in (SPACE, *PRESETS.values()):
        found = largest(space)
        assert space.contains(found)
        if space.name != "digits-tiny":
            continue
        workload = get_task("digits").workload(1)
        most = count(found, workload).macs
        assert all(count(sample(space, rng), workload).macs <= most for _ in range(200))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "teacher"
    assert not is_ready(folder) and read_record(folder) is None
    record = prepare_teacher(CONFIG.evaluation(), folder, folder.parent / "locks")
    return folder, record


def test_a_teacher_is_trained_kept_and_accounted_for(made):
    folder, record = made
    assert is_ready(folder) and read_record(folder) == record
    assert record.architecture == largest(SMALL) and record.source == LARGEST
    assert 0.1 < record.quality <= 1 and record.tabulated
    assert record.energy_j == record.train_energy_j + record.outputs_energy_j
    assert record.train_energy_j > 0 and record.outputs_energy_j > 0
    assert read_progress(folder) == (2, 2)
    loaded = load_teacher(folder, "digits", "cpu")
    assert loaded.outputs.shape == (1077, 9)
    assert load_teacher(folder, "digits", "cpu") is loaded


def test_what_is_there_is_not_made_again(made, monkeypatch, tmp_path):
    folder, record = made

    def never(*_, **__):
        raise AssertionError("the teacher is trained already")

    monkeypatch.setattr(loop_module, "train", never)
    assert prepare_teacher(CONFIG.evaluation(), folder, tmp_path / "locks") == record
    # Killed between its weights and its outputs: only those are made.
    (folder / "outputs.safetensors").unlink()
    before = replace(record, outputs_energy_j=None, tabulated=False)
    write_json(folder / "teacher.json", to_plain(before))
    assert not is_ready(folder)
    again = prepare_teacher(CONFIG.evaluation(), folder, tmp_path / "locks")
    assert again.train_energy_j == record.train_energy_j and again.tabulated
    assert is_ready(folder) and (folder / "outputs.safetensors").is_file()


def test_a_table_that_would_be_too_large_is_not_kept(made, monkeypatch, tmp_path):
    folder = tmp_path / "teacher"
    monkeypatch.setattr(distill, "TABLE_LIMIT_BYTES", 1000)
    record = prepare_teacher(CONFIG.evaluation(), folder, tmp_path / "locks")
    assert not record.tabulated and not (folder / "outputs.safetensors").exists()
    live = load_teacher(folder, "digits", "cpu").outputs
    assert isinstance(live, distill.LiveTeacher)
    # The same seed, the same weights: both kinds say the same of a sample as it is.
    table = load_teacher(made[0], "digits", "cpu").outputs
    image = torch.from_numpy(get_task("digits").split("train").inputs[:1])
    middle = torch.tensor([4])
    first = live.outputs(torch.tensor([0]), middle, image).logits
    assert torch.allclose(first, table.outputs(torch.tensor([0]), middle, image).logits, atol=1e-4)


def artifact(folder, found, workload):
    folder.mkdir()
    write_json(folder / "architecture.json", found.to_dict())
    write_json(folder / "workload.json", workload.to_dict())
    save_weights(build(found, workload, generator_seed=1), folder / "model.safetensors")
    return folder


OWN = Architecture(24, (LayerSpec(AttentionSpec(2, 2, 12), FfnSpec(24)),), 4)


def test_an_artifact_is_taken_over_and_costs_no_training(tmp_path):
    workload = get_task("digits").workload(7)
    folder = artifact(tmp_path / "artifact", OWN, workload)
    config = replace(CONFIG, teacher=str(folder))
    record = prepare_teacher(config.evaluation(), tmp_path / "teacher", tmp_path / "locks")
    assert record.train_energy_j is None and record.architecture == OWN
    # The run keeps its own copy.
    for path in folder.iterdir():
        path.unlink()
    loaded = load_teacher(tmp_path / "teacher", "digits", "cpu")
    assert loaded.architecture == OWN and loaded.outputs.d_model == 24
    assert from_plain(TeacherRecord, json.loads(json.dumps(to_plain(record))), "") == record


def test_folders_that_are_no_teacher_are_one_clear_line(tmp_path):
    workload = get_task("digits").workload(64)
    good = artifact(tmp_path / "good", OWN, workload)
    check_artifact(good, workload.with_batch_size(3))
    other = artifact(tmp_path / "other", OWN, replace(workload, n_classes=7))
    broken = artifact(tmp_path / "broken", OWN, workload)
    (broken / "model.safetensors").write_text("no")
    wrong = artifact(tmp_path / "wrong", OWN, workload)
    write_json(wrong / "architecture.json", largest(SMALL).to_dict())
    for folder in (tmp_path / "nowhere", other, broken, wrong):
        with pytest.raises(ValueError, match="teacher must be") as caught:
            check_artifact(folder, workload)
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_configuration_needs_teacher_and_distillation_together():
    plain = replace(CONFIG.training, distill=None)
    for change in ({"teacher": None}, {"training": plain}):
        with pytest.raises(ValueError, match="teacher must be set exactly where"):
            replace(CONFIG, **change)
    orphan = replace(plain, recovery=RecoveryConfig(inherit_share=0.5))
    with pytest.raises(ValueError, match="inherit_share must have a teacher"):
        replace(CONFIG, teacher=None, training=orphan)
    assert SearchConfig.from_dict(CONFIG.to_dict()) == CONFIG
    assert teacher_module.LARGEST == "largest"
