import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nas.core.plain import from_plain, to_plain
from nas.tasks.base import Split
from nas.tasks.registry import get_task
from nas.training.augment import augment, make_versions
from nas.training.config import DistillConfig, RecoveryConfig, TrainingConfig
from nas.training.distill import (
    Distillation,
    LiveTeacher,
    TeacherTable,
    matched_layers,
    soft_target_loss,
    table_bytes,
    tabulate,
    teacher_recipe,
)
from nas.training.evaluate import evaluate
from nas.training.loop import train
from nas.training.objective import Classification
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build
from search_spaces.workload import Workload

TASK = get_task("digits")
WORKLOAD = TASK.workload(64)
CONFIG = TrainingConfig(epochs=2, batch_size=32, learning_rate=5e-3)


def architecture(d_model, depth, n_heads=2, patch_size=4):
    layer = LayerSpec(AttentionSpec(n_heads, n_heads, d_model // n_heads), FfnSpec(2 * d_model))
    return Architecture(d_model, (layer,) * depth, patch_size)


def part(n, start=0):
    whole = TASK.split("train")
    return Split(whole.inputs[start : start + n].copy(), whole.targets[start : start + n].copy())


def test_soft_targets_by_hand():
    even = torch.zeros(1, 2)
    student = torch.tensor([[0.0, math.log(3)]])
    # Student (1/4, 3/4) against teacher (1/2, 1/2).
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert soft_target_loss(student, even, 1.0).item() == pytest.approx(by_hand, rel=1e-5)
    # At temperature 2 the student is (1, sqrt 3) / (1 + sqrt 3), and the loss is scaled by 4.
    root = math.sqrt(3)
    by_hand = 0.5 * math.log(0.5 * (1 + root)) + 0.5 * math.log(0.5 * (1 + root) / root)
    assert soft_target_loss(student, even, 2.0).item() == pytest.approx(4 * by_hand, rel=1e-5)
    both = torch.cat([student, even])
    taught = torch.cat([even, even])
    half = soft_target_loss(both, taught, 2.0).item()
    assert half == pytest.approx(2 * by_hand, rel=1e-5)
    assert soft_target_loss(student, student, 3.0).item() == pytest.approx(0, abs=1e-7)


def test_the_gradient_does_not_fade_with_the_temperature():
    # Hinton et al. 2015, equation 4: at high T it is (student - teacher) / n_classes.
    student = torch.tensor([[1.0, -2.0, 1.0]], requires_grad=True)
    teacher = torch.tensor([[0.5, 0.5, -1.0]])
    soft_target_loss(student, teacher, 1000.0).backward()
    assert torch.allclose(student.grad, (student.detach() - teacher) / 3, atol=2e-3)


def test_standardised_logits_leave_magnitude_out():
    student = torch.randn(5, 4)
    teacher = torch.randn(5, 4)
    plain = soft_target_loss(student, teacher, 2.0, standardise=True)
    scaled = soft_target_loss(student * 7 + 3, teacher * 0.1 - 1, 2.0, standardise=True)
    assert scaled.item() == pytest.approx(plain.item(), rel=1e-4)
    ready = [x - x.mean(-1, keepdim=True) for x in (student, teacher)]
    ready = [x / x.square().mean(-1, keepdim=True).sqrt() for x in ready]
    assert soft_target_loss(*ready, 2.0).item() == pytest.approx(plain.item(), rel=1e-4)
    # Of two classes, only which is larger would be left: they stay as they are.
    two = soft_target_loss(student[:, :2], teacher[:, :2], 2.0, standardise=True)
    assert two.item() == pytest.approx(
        soft_target_loss(student[:, :2], teacher[:, :2], 2.0).item()
    )


def test_layers_are_matched_at_even_distances():
    assert matched_layers(1, 3) == [2]
    assert matched_layers(2, 4) == [1, 3]
    assert matched_layers(3, 3) == [0, 1, 2]
    assert matched_layers(4, 2) == [0, 0, 1, 1]
    for student in range(1, 6):
        for teacher in range(1, 6):
            found = matched_layers(student, teacher)
            assert found[-1] == teacher - 1 and min(found) >= 0 and found == sorted(found)


def test_a_table_says_what_the_teacher_would_say():
    split = part(12)
    model = build(architecture(8, 3), WORKLOAD, generator_seed=1).eval()
    table = tabulate(model, split, CONFIG)
    assert table.shape == (12, 9) and (table.n_layers, table.d_model) == (3, 8)
    inputs = torch.from_numpy(split.inputs)
    indices = torch.tensor([3, 0, 11, 5, 5])
    shown, versions = augment(inputs[indices], CONFIG, torch.Generator().manual_seed(0))
    assert len(set(versions.tolist())) > 1
    taught = table.outputs(indices, versions, shown)
    with torch.no_grad():
        logits, _ = model.with_features(shown)
    assert torch.allclose(taught.logits, logits, atol=1e-5)
    everything = torch.cat([make_versions(inputs, torch.full((12,), v), CONFIG) for v in range(9)])
    with torch.no_grad():
        features = model.with_features(everything)[1]
        mine = model.with_features(shown)[1]
    by_hand = (mine - features.mean(0)) / features.std(0, unbiased=False)
    assert torch.allclose(taught.features, by_hand, atol=1e-4)
    assert table_bytes(model, split, CONFIG) == 12 * 9 * (10 + 3 * 8) * 4


def test_a_table_survives_the_disk_and_broken_ones_are_refused(tmp_path):
    model = build(architecture(8, 1), WORKLOAD, generator_seed=1).eval()
    table = tabulate(model, part(5), CONFIG)
    table.save(tmp_path / "t")
    again = TeacherTable.load(tmp_path / "t")
    ask = (torch.tensor([4]), torch.tensor([8]), torch.zeros(0))
    assert torch.equal(again.outputs(*ask).features, table.outputs(*ask).features)
    (tmp_path / "bad").write_text("no")
    for name in ("bad", "missing"):
        with pytest.raises(ValueError, match="teacher's outputs"):
            TeacherTable.load(tmp_path / name)


def test_words_that_drop_out_need_a_live_teacher():
    text = Workload("t", "text_classification", (6,), 2, 4, vocab_size=9)
    split = Split(np.random.default_rng(0).integers(1, 9, (20, 6)), np.arange(20) % 2)
    config = replace(CONFIG, token_dropout=0.5)
    model = build(architecture(8, 2, patch_size=1), text, generator_seed=1).eval()
    assert table_bytes(model, split, config) is None
    with pytest.raises(ValueError, match="token_dropout"):
        tabulate(model, split, config)
    live = LiveTeacher(model, split)
    inputs = torch.from_numpy(split.inputs)
    shown, versions = augment(inputs, config, torch.Generator().manual_seed(1))
    assert versions is None and 0.3 < float((shown == 0).float().mean()) < 0.7
    assert bool(((shown == inputs) | (shown == 0)).all())
    taught = live.outputs(torch.arange(20), versions, shown)
    with torch.no_grad():
        assert torch.equal(taught.logits, model(shown))
        whole = live.outputs(torch.arange(20), None, inputs).features
    assert torch.allclose(whole.mean(0), torch.zeros(2, 8), atol=1e-5)


class Fixed:
    """A teacher that says the same of everything."""

    n_layers, d_model = 2, 3

    def __init__(self, logits, features):
        self._logits, self._features = logits, features

    def outputs(self, indices, versions, batch):
        from nas.training.distill import TeacherOutputs

        n = len(batch)
        return TeacherOutputs(self._logits.expand(n, -1), self._features.expand(n, -1, -1))


def test_the_three_parts_of_the_loss_add_up():
    student = build(architecture(4, 1), WORKLOAD, generator_seed=0)
    batch, targets = torch.randn(6, 1, 8, 8), torch.arange(6)
    teacher = Fixed(torch.randn(1, 10), torch.randn(1, 2, 3))

    def loss(**weights):
        torch.manual_seed(0)
        config = DistillConfig(temperature=2.0, standardise=False, **weights)
        module = Distillation(student, teacher, config, Classification(), seed=3)
        nothing = torch.zeros(6, dtype=torch.int64)
        return module, module(student, batch, targets, nothing, nothing, 0.0)

    logits, features = student.with_features(batch)
    hard = torch.nn.functional.cross_entropy(logits, targets)
    soft = soft_target_loss(logits, teacher._logits.expand(6, -1), 2.0)
    module, found = loss(logit_weight=0.25, feature_weight=3.0)
    projected = module.projections[0](features[:, 0])
    apart = (projected - teacher._features[:, 1]).square().mean()
    assert torch.allclose(found, 0.75 * hard + 0.25 * soft + 3 * apart, atol=1e-5)
    plain, found = loss(logit_weight=1.0)
    assert torch.allclose(found, soft, atol=1e-6) and not list(plain.parameters())
    found = loss(logit_weight=0.0, feature_weight=1.0)[1]
    assert torch.allclose(found, hard + apart, atol=1e-5)


def test_a_teacher_and_its_configuration_come_together():
    model = build(architecture(8, 1), WORKLOAD, generator_seed=0)
    teacher = tabulate(model, part(8), CONFIG)
    for config, given in ((CONFIG, teacher), (replace(CONFIG, distill=DistillConfig()), None)):
        with pytest.raises(ValueError, match="distill must be set"):
            train(model, part(8), config, seed=0, teacher=given)


def test_a_student_of_a_good_teacher_beats_one_of_few_labels():
    """Labels of 100 images, a fifth of them wrong; the teacher has seen them all, right."""
    teacher = train(
        build(architecture(24, 1), WORKLOAD, generator_seed=0),
        TASK.split("train"),
        replace(CONFIG, epochs=12, label_smoothing=0.0),
        seed=0,
    )
    few = part(100)
    wrong = few.targets.copy()
    wrong[::5] = (wrong[::5] + 1) % 10
    few = Split(few.inputs, wrong)
    base = replace(CONFIG, epochs=25)
    variants = {
        "labels": (base, None),
        "logits": (replace(base, distill=DistillConfig(2.0, 1.0)), "table"),
        "features": (replace(base, distill=DistillConfig(2.0, 0.0, 5.0)), "table"),
        "live": (replace(base, distill=DistillConfig(2.0, 1.0)), "live"),
    }
    table = tabulate(teacher, few, base)
    quality = {}
    for name, (config, kind) in variants.items():
        taught_by = {None: None, "table": table, "live": LiveTeacher(teacher, few)}[kind]
        model = build(architecture(16, 1), WORKLOAD, generator_seed=1)
        names = list(model.state_dict())
        train(model, few, config, seed=1, teacher=taught_by)
        assert list(model.state_dict()) == names
        quality[name] = evaluate(model, TASK.split("validation"), batch_size=120).value
    assert quality["logits"] > quality["labels"] + 0.05, quality
    assert quality["features"] > quality["labels"], quality
    # The table is what the live teacher says, up to rounding that training amplifies.
    assert abs(quality["live"] - quality["logits"]) < 0.03, quality


def test_a_teacher_trains_gently_and_by_its_labels_alone():
    students = replace(CONFIG, distill=DistillConfig(), label_smoothing=0.1)
    recipe = teacher_recipe(students, 2.5)
    assert recipe == replace(CONFIG, label_smoothing=0.0, learning_rate=2e-3)
    assert teacher_recipe(students, 0.5).learning_rate == CONFIG.learning_rate


@pytest.mark.parametrize(
    ("record", "change"),
    [
        (DistillConfig, {"temperature": 0.0}),
        (DistillConfig, {"logit_weight": 1.5}),
        (DistillConfig, {"feature_weight": -1.0}),
        (DistillConfig, {"logit_weight": 0.0}),
        (RecoveryConfig, {"share": 0.0}),
        (RecoveryConfig, {"inherit_share": 2.0}),
        (RecoveryConfig, {"learning_rate_factor": math.nan}),
        (RecoveryConfig, {"qat_threshold": -0.1}),
        (TrainingConfig, {"token_dropout": 1.0}),
    ],
)
def test_a_wrong_field_is_named(record, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        record(**change)


def test_configurations_survive_json():
    config = replace(
        CONFIG, distill=DistillConfig(3.0, 0.5, 1.0), recovery=RecoveryConfig(inherit_share=0.5)
    )
    assert from_plain(TrainingConfig, to_plain(config), "training") == config
    assert from_plain(TrainingConfig, to_plain(CONFIG), "training") == CONFIG
    for key in ("distill", "recovery"):
        with pytest.raises(ValueError, match=f"{key} has unknown key wat"):
            from_plain(TrainingConfig, to_plain(CONFIG) | {key: {"wat": 1}}, "training")
