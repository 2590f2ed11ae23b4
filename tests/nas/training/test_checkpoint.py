"""A loop that was killed goes on from its last epoch and ends as if nothing had been."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nas.core.versions import versions
from nas.tasks.registry import get_task
from nas.training.checkpoint import CheckpointManager, _checksum
from nas.training.config import DistillConfig, TrainingConfig
from nas.training.distill import tabulate
from nas.training.fit import Setting, Watch, fit
from nas.training.loop import LoopOptions, train
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build

TASK = get_task("digits")
WORKLOAD = TASK.workload(120)
MODEL = Architecture(16, (LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(32)),), patch_size=4)
CONFIG = TrainingConfig(epochs=5, batch_size=128, learning_rate=5e-3)


class KilledError(Exception):
    pass


def run(config, *, checkpoints=None, kill_at=None, teacher=None):
    heard = []

    def on_epoch(epoch, _):
        heard.append(epoch)
        if epoch == kill_at:
            raise KilledError

    model = build(MODEL, WORKLOAD, generator_seed=0)
    try:
        train(
            model,
            TASK.split("train"),
            config,
            seed=1,
            teacher=teacher,
            options=LoopOptions(checkpoints=checkpoints, on_epoch=on_epoch),
        )
    except KilledError:
        return None, heard
    return model.state_dict(), heard


@pytest.mark.parametrize("is_taught", [False, True])
def test_a_killed_loop_ends_as_if_it_had_not_been(tmp_path, is_taught):
    config, teacher = CONFIG, None
    if is_taught:
        config = replace(CONFIG, distill=DistillConfig(feature_weight=0.1))
        large = build(MODEL, WORKLOAD, generator_seed=9)
        teacher = tabulate(large, TASK.split("train"), config)
    whole, _ = run(config, teacher=teacher)
    path = tmp_path / "loop.safetensors"
    assert (
        run(config, checkpoints=CheckpointManager(path, interval_s=0), kill_at=3, teacher=teacher)[
            0
        ]
        is None
    )
    resumed, heard = run(
        config, checkpoints=CheckpointManager(path, interval_s=0), teacher=teacher
    )
    # The epoch it was left at is told once more: what was to happen then may not have.
    assert heard == [3, 4, 5]
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


def test_a_loop_names_all_versions_that_trained_it(tmp_path, monkeypatch):
    path, here = tmp_path / "loop.safetensors", versions()
    run(CONFIG, checkpoints=CheckpointManager(path, interval_s=0), kill_at=2)
    # It goes on under the same, then under another torch, twice.
    managers = []
    for torch_version, kill_at in ((None, 3), ("99.1", 4), ("99.1", None)):
        if torch_version is not None:
            now = here | {"torch": torch_version}
            monkeypatch.setattr("nas.training.checkpoint.versions", lambda now=now: now)
        managers.append(CheckpointManager(path, interval_s=0))
        run(CONFIG, checkpoints=managers[-1], **({} if kill_at is None else {"kill_at": kill_at}))
    both = (here, here | {"torch": "99.1"})
    assert [checkpoints.trained_by for checkpoints in managers] == [(here,), both, both]


def test_only_what_is_due_is_kept(tmp_path):
    path = tmp_path / "loop.safetensors"
    run(CONFIG, checkpoints=CheckpointManager(path, {2}, interval_s=1e9), kill_at=4)
    assert run(CONFIG, checkpoints=CheckpointManager(path, {2}, interval_s=1e9))[1] == [2, 3, 4, 5]
    assert [p.name for p in tmp_path.iterdir()] == ["loop.safetensors"]


def test_a_broken_file_is_as_none(tmp_path):
    path = tmp_path / "loop.safetensors"
    path.write_bytes(b"cut off")
    assert run(CONFIG, checkpoints=CheckpointManager(path))[1] == [1, 2, 3, 4, 5]


def test_watching_a_network_changes_nothing_of_it(tmp_path):
    looks = []
    watch = Watch({2, 4, 5}, looks.append)
    watched = fit(MODEL, Setting(TASK, WORKLOAD, seed=0), CONFIG, watch=watch)
    plain = fit(MODEL, Setting(TASK, WORKLOAD, seed=0), CONFIG)
    # Not at the last epoch: what follows there is what counts.
    assert [(look.epoch, look.epochs, look.start) for look in looks] == [
        (2, 5, "random"),
        (4, 5, "random"),
    ]
    assert 0 < looks[0].quality.value <= 1 and looks[0].quality.n_samples == 360
    assert watched.validation == plain.validation
    for ours, theirs in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["cut off", "one byte", "zeros", "another model", "not ours"])
def test_a_damaged_state_is_none_and_training_starts_over(tmp_path, damage):
    whole, _ = run(CONFIG)
    path = tmp_path / "loop.safetensors"
    run(CONFIG, checkpoints=CheckpointManager(path, interval_s=0), kill_at=3)
    data = bytearray(path.read_bytes())
    if damage == "cut off":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "one byte":
        data[-9] ^= 1
        path.write_bytes(data)
    elif damage == "zeros":
        path.write_bytes(bytes(len(data)))
    elif damage == "another model":
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key).flatten() for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() | {"crc32": _checksum(tensors)}
        save_file(tensors, str(path), metadata)
    else:
        path.write_text("nonsense")
    again, heard = run(CONFIG, checkpoints=CheckpointManager(path, interval_s=0))
    assert heard == [1, 2, 3, 4, 5]
    assert all(torch.equal(whole[name], value) for name, value in again.items())
