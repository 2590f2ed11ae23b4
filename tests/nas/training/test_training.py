import numpy as np
import pytest
import torch

from nas.tasks.base import Split
from nas.tasks.registry import get_task
from nas.training.augment import augment, make_versions, n_versions
from nas.training.config import TrainingConfig
from nas.training.evaluate import evaluate
from nas.training.loop import DivergedError, LoopOptions, train
from nas.training.weights import load_weights, save_weights
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build

LAYER = LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(32))
ARCHITECTURE = Architecture(16, (LAYER,), patch_size=4)
TASK = get_task("digits")


def test_digits_are_split_apart_and_stratified():
    splits = [TASK.split(name) for name in ("train", "validation", "test")]
    assert [len(s) for s in splits] == [1077, 360, 360]
    rows = [{image.tobytes() for image in split.inputs} for split in splits]
    assert not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])
    for split in splits:
        shares = np.bincount(split.targets) / len(split)
        assert shares.min() > 0.08
    assert splits[0].inputs.mean() == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="validation"):
        TASK.split("dev")
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        get_task("digit")


def test_training_learns_and_repeats_itself():
    config = TrainingConfig(epochs=6, batch_size=32, learning_rate=5e-3)
    losses = []
    models = [
        train(
            build(ARCHITECTURE, TASK.workload(64), generator_seed=1),
            TASK.split("train"),
            config,
            seed=3,
            options=LoopOptions(on_epoch=lambda e, loss: losses.append(loss)),
        )
        for _ in range(2)
    ]
    assert losses[:6] == losses[6:]
    assert losses[5] < 0.8 * losses[0]
    quality = evaluate(models[0], TASK.split("validation"), batch_size=64)
    assert quality.value > 0.5 and 0 < quality.standard_error < 0.05
    assert not models[0].training


def test_each_step_runs_inside_the_guard():
    from contextlib import contextmanager

    entered = 0

    @contextmanager
    def guard():
        nonlocal entered
        entered += 1
        yield

    train(
        build(ARCHITECTURE, TASK.workload(64)),
        TASK.split("train"),
        TrainingConfig(epochs=1, batch_size=100),
        seed=0,
        options=LoopOptions(step_guard=guard),
    )
    # Ten steps, an evaluation, and what is moved to the device before them.
    assert entered == 12


def test_nan_is_a_clear_failure():
    split = TASK.split("train")
    broken = Split(np.full_like(split.inputs, np.nan), split.targets)
    with pytest.raises(DivergedError, match="nan in epoch 1"):
        train(build(ARCHITECTURE, TASK.workload(64)), broken, TrainingConfig(epochs=2), seed=0)


def test_evaluation_counts_every_sample_once_whatever_the_batch():
    split = TASK.split("test")
    seen = []

    def oracle(batch):
        seen.append(len(batch))
        logits = torch.zeros(len(batch), 10)
        logits[:, 0] = 1
        return logits

    right = float(np.mean(split.targets == 0))
    for batch_size in (7, 64, 360, 500):
        assert evaluate(oracle, split, batch_size=batch_size).value == pytest.approx(right)
    assert set(seen) == {7, 64, 360, 500}
    with pytest.raises(ValueError, match="finite"):
        evaluate(lambda b: torch.full((len(b), 10), torch.nan), split, batch_size=64)


def test_shifts_move_whole_images_by_at_most_one_pixel():
    images = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(200, 1, 1, 1)
    shifted, _ = augment(images, TrainingConfig(), torch.Generator().manual_seed(0))
    middles = {(int(v) // 8, int(v) % 8) for v in shifted[:, 0, 4, 4]}
    assert middles == {(r, c) for r in (3, 4, 5) for c in (3, 4, 5)}
    first = shifted[0, 0]
    assert torch.all(first[1:-1, 2:-1] - first[1:-1, 1:-2] == 1)


def test_images_in_a_mirror_are_versions_of_their_own():
    images = torch.arange(24.0).reshape(1, 1, 4, 6).repeat(400, 1, 1, 1)
    config = TrainingConfig(shift_pixels=0, flip_images=True)
    shown, versions = augment(images, config, torch.Generator().manual_seed(0))
    is_mirrored = versions == 1
    assert 120 < int(is_mirrored.sum()) < 280 and n_versions(images, config) == 2
    assert torch.equal(shown[~is_mirrored], images[~is_mirrored])
    assert torch.equal(shown[is_mirrored], images[is_mirrored].flip(-1))
    both = TrainingConfig(flip_images=True)
    assert n_versions(images, both) == 18
    shown, versions = augment(images, both, torch.Generator().manual_seed(0))
    assert torch.equal(shown, make_versions(images, versions, both))
    assert len({image.numpy().tobytes() for image in shown}) == 18
    tokens = torch.zeros(3, 5, dtype=torch.int64)
    assert n_versions(tokens, both) == 1 and augment(tokens, both, torch.Generator())[0] is tokens


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"learning_rate": 0},
        {"weight_decay": -1},
        {"label_smoothing": 1},
        {"shift_pixels": -1},
        {"flip_images": 1},
        {"batch_size": 1.5},
    ],
)
def test_a_wrong_training_field_is_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TrainingConfig(**change)


def test_weights_round_trip_and_wrong_files_are_refused(tmp_path):
    model = build(ARCHITECTURE, TASK.workload(8), generator_seed=1)
    path = tmp_path / "deep" / "w.safetensors"
    save_weights(model, path)
    again = load_weights(build(ARCHITECTURE, TASK.workload(8), generator_seed=2), path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    other = build(
        Architecture(8, (LayerSpec(AttentionSpec(1, 1, 8), FfnSpec(8)),), 4), TASK.workload(8)
    )
    for bad in (path, tmp_path / "missing", tmp_path / "text"):
        (tmp_path / "text").write_text("hello")
        with pytest.raises(ValueError, match="weights"):
            load_weights(other, bad)
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]
