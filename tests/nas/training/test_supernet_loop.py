"""Training a supernet: sub-networks learn, a killed training goes on as if it had not been."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nas.tasks.registry import get_task
from nas.training.checkpoint import CheckpointManager
from nas.training.config import SupernetRecipe, TrainingConfig
from nas.training.evaluate import evaluate
from nas.training.loop import DivergedError, LoopOptions
from nas.training.members import Members
from nas.training.supernet_loop import train_supernet
from search_spaces.models.extract import extract
from search_spaces.models.supernet import Supernet
from search_spaces.space import SearchSpace
from search_spaces.space.sampling import largest, smallest

SPACE = SearchSpace.from_dict(
    {
        "name": "small",
        "d_model": [8, 16],
        "depth": [1, 2],
        "n_heads": [1, 2],
        "n_kv_heads": [1, 2],
        "ffn_ratio": [1, 2],
        "ffn_rank": [None, 0.25],
        "patch_size": [4],
        "ffn_precision": ["bf16", "fp32"],
    }
)
TASK = get_task("digits")
WORKLOAD = TASK.workload(64)
TRAINING = TrainingConfig(epochs=3, batch_size=128, learning_rate=1e-2)
RECIPE = SupernetRecipe(epochs_factor=1.0)


def trained(epochs=3, recipe=RECIPE, **options):
    supernet = Supernet.seeded(SPACE, WORKLOAD, 0)
    training = replace(TRAINING, epochs=epochs)
    train_supernet(
        supernet, TASK.split("train"), training, recipe, seed=1, options=LoopOptions(**options)
    )
    return supernet


def test_the_largest_and_the_smallest_learn():
    supernet = trained(10)
    for member in (largest(SPACE), smallest(SPACE)):
        network = extract(supernet, member).eval()
        assert evaluate(network, TASK.split("validation"), batch_size=64).value > 0.3


@pytest.mark.parametrize("changes", [{}, {"front_share": 1.0, "largest_each": 3}])
def test_a_training_that_was_killed_ends_as_if_it_had_not_been(tmp_path, changes):
    class KilledError(Exception):
        pass

    recipe = replace(RECIPE, **changes)
    whole = trained(recipe=recipe).state_dict()
    checkpoints = CheckpointManager(tmp_path / "loop.safetensors", interval_s=0.0)

    def kill(epoch, _):
        if epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        trained(recipe=recipe, checkpoints=checkpoints, on_epoch=kill)
    told = []
    resumed = trained(recipe=recipe, checkpoints=checkpoints, on_epoch=lambda e, _: told.append(e))
    assert told == [3]
    assert all(torch.equal(whole[name], value) for name, value in resumed.state_dict().items())


def test_progress_is_told_with_the_loss():
    told = []
    trained(on_epoch=lambda *said: told.append(said))
    assert [epoch for epoch, _ in told] == [1, 2, 3]
    assert told[2][1] < told[0][1]


def test_a_loss_that_is_not_finite_ends_it():
    supernet = Supernet.seeded(SPACE, WORKLOAD, 0)
    with torch.no_grad():
        supernet.head.bias_O.fill_(math.nan)
    with pytest.raises(DivergedError, match="supernet"):
        train_supernet(supernet, TASK.split("train"), TRAINING, RECIPE, seed=1)


def test_draws_near_the_front_are_of_all_costs_and_of_the_better_half():
    members = Members(SPACE, WORKLOAD, seed=0)
    rng = np.random.default_rng(0)
    # Narrow is bad, whatever it costs.
    sizes = [members.architecture(index).d_model for index in range(len(members))]
    indices = [members.uniform(rng) for _ in range(200)]
    losses = torch.tensor([2.0 if sizes[index] == 8 else 0.1 for index in indices])
    members.learn(indices, losses)
    predicted = members.predicted()
    assert predicted[np.array(sizes) == 8].min() > predicted[np.array(sizes) == 16].max()
    drawn = [members.promising(rng, predicted) for _ in range(400)]
    halves = np.array(drawn) < np.median(np.arange(len(members)))
    assert 0.2 < halves.mean() < 0.8
    share = np.mean([sizes[index] == 16 for index in drawn])
    assert share > np.mean(np.array(sizes) == 16)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("epochs_factor", 0.0, "epochs_factor must be finite and > 0"),
        ("n_random", 0, "n_random must be an integer >= 1"),
        ("largest_each", 0, "largest_each must be an integer >= 1"),
        ("front_share", 1.5, r"front_share must be in \[0, 1\]"),
        ("distill_weight", -0.1, r"distill_weight must be in \[0, 1\]"),
    ],
)
def test_a_recipe_names_what_is_wrong(field, value, words):
    with pytest.raises(ValueError, match=words):
        SupernetRecipe(**{field: value})
