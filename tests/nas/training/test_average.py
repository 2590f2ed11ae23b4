"""The mean of weights over steps: what it is, and what training with it ends with."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from nas.tasks.registry import get_task
from nas.training.average import Average
from nas.training.checkpoint import CheckpointManager
from nas.training.config import TrainingConfig
from nas.training.fit import Setting, Watch, fit
from nas.training.loop import LoopOptions, train
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build

TASK = get_task("digits")
WORKLOAD = TASK.workload(120)
MODEL = Architecture(16, (LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(32)),), patch_size=4)
PLAIN = TrainingConfig(epochs=4, batch_size=128, learning_rate=5e-3)
CONFIG = replace(PLAIN, averaged_share=0.5)


def run(config, **options):
    model = build(MODEL, WORKLOAD, generator_seed=0)
    return train(model, TASK.split("train"), config, seed=1, options=LoopOptions(**options))


def test_the_mean_is_of_all_steps_that_it_was_told():
    model = nn.Linear(1, 1, bias=False)
    average = Average(model)
    nn.init.constant_(model.weight, 7.0)
    with average.shown():
        assert model.weight.item() == 7
    for step in range(1, 6):
        nn.init.constant_(model.weight, float(step))
        average.update()
    with pytest.raises(KeyError), average.shown():
        assert model.weight.item() == pytest.approx(3)
        raise KeyError
    assert model.weight.item() == 5


def test_the_mean_is_over_the_last_share_of_steps():
    seen = []
    model = build(MODEL, WORKLOAD, generator_seed=0)

    def keep():
        seen.append([p.detach().clone() for p in model.parameters()])

    # Called after each step, as what holds weights is.
    train(model, TASK.split("train"), CONFIG, seed=1, hold=keep)
    assert len(seen) == 4 * 9
    for index, ours in enumerate(model.parameters()):
        expected = torch.stack([step[index] for step in seen[18:]]).mean(0)
        torch.testing.assert_close(ours.detach(), expected)


def test_what_looks_see_is_what_training_would_end_with():
    seen = []
    model = build(MODEL, WORKLOAD, generator_seed=0)

    def keep(epoch, _):
        seen.append([p.detach().clone() for p in model.parameters()])

    train(model, TASK.split("train"), CONFIG, seed=1, options=LoopOptions(on_epoch=keep))
    for last, ours in zip(seen[-1], model.parameters(), strict=True):
        assert torch.equal(last, ours)
    looks = []
    watched = fit(
        MODEL, Setting(TASK, WORKLOAD, seed=0), CONFIG, watch=Watch({1, 2}, looks.append)
    )
    assert len(looks) == 2
    assert watched.validation == fit(MODEL, Setting(TASK, WORKLOAD, seed=0), CONFIG).validation


def test_a_killed_loop_ends_with_the_same_mean(tmp_path):
    def kill(epoch, _):
        if epoch == 3:
            raise KeyboardInterrupt

    path = tmp_path / "loop.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, checkpoints=CheckpointManager(path, interval_s=0), on_epoch=kill)
    heard = []
    resumed = run(
        CONFIG,
        checkpoints=CheckpointManager(path, interval_s=0),
        on_epoch=lambda e, _: heard.append(e),
    )
    assert heard == [3, 4]
    for ours, theirs in zip(resumed.parameters(), run(CONFIG).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_state_without_a_mean_is_none_for_a_loop_with_one(tmp_path):
    path = tmp_path / "loop.safetensors"
    run(PLAIN, checkpoints=CheckpointManager(path, interval_s=0))
    heard = []
    run(
        CONFIG,
        checkpoints=CheckpointManager(path, interval_s=0),
        on_epoch=lambda e, _: heard.append(e),
    )
    assert heard == [1, 2, 3, 4]


def test_zeros_of_a_mask_are_held_in_the_mean():
    model = build(MODEL, WORKLOAD, generator_seed=0)
    weight = max((p for p in model.parameters() if p.ndim == 2), key=lambda p: p.numel())

    def hold():
        with torch.no_grad():
            weight[:, 0] = 0

    train(model, TASK.split("train"), replace(CONFIG, epochs=1), seed=1, hold=hold)
    held = weight.detach().abs()
    assert float(held[:, 0].max()) == 0 < float(held[:, 1].max())


@pytest.mark.parametrize("value", [1.0, -0.1, float("nan")])
def test_a_wrong_share_is_named(value):
    with pytest.raises(ValueError, match="averaged_share"):
        TrainingConfig(averaged_share=value)
