"""Who trains in a cluster, and what of a device is a trial's."""

import pickle

import pytest

from nas.cluster import roles as ray_roles
from nas.cluster.roles import EnergyShare, Trainers
from nas.store.driver import Driver


def node(name, cpus=0, gpus=0, *, alive=True, **more):
    """As ``ray.nodes()`` has it, which leaves out what a node has none of."""
    resources = {"CPU": float(cpus), "GPU": float(gpus), **more}
    return {
        "NodeID": name,
        "Alive": alive,
        "Resources": {key: value for key, value in resources.items() if value},
    }


def on_gpus(workers, *nodes, asked=None):
    return Trainers.of(nodes, workers, "cuda:0").gpu_share(asked)


def test_trials_spread_over_every_gpu_and_share_only_where_they_outnumber_them():
    two, eight = node("a", cpus=8, gpus=2), node("b", cpus=16, gpus=8)
    assert [on_gpus(n, two) for n in (1, 2, 3, 4, 5)] == [1, 1, 1 / 2, 1 / 2, 1 / 3]
    assert [on_gpus(n, two, eight) for n in (10, 11)] == [1, 1 / 2]


def test_gpus_count_only_where_trials_can_train():
    alone = node("a", cpus=4, gpus=1)
    measures = node("m", gpus=4, joule_meter=1.0)
    lost = node("l", cpus=4, gpus=4, alive=False)
    assert on_gpus(4, alone, measures, lost, node("c", cpus=64)) == 1 / 4
    # Two CPUs train two trials, for whom two of eight GPUs do.
    assert on_gpus(8, node("a", cpus=2, gpus=8)) == 1


def test_a_trial_takes_no_gpu_where_training_is_on_cpus():
    assert Trainers.of([node("a", cpus=4, gpus=2)], 2, "cpu").gpu_share(0.5) == 0


def test_a_cluster_that_will_grow_is_asked_for_a_whole_gpu_or_what_was_asked_for():
    measures = node("m", gpus=1, joule_meter=1.0)
    assert on_gpus(8, measures) == 1 and on_gpus(8, measures, asked=0.25) == 0.25
    assert on_gpus(8, node("a", cpus=8, gpus=1), asked=0.5) == 0.5
    assert not Trainers.of([measures], 8, "cuda:0").cpus


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan"), "half"])
def test_a_share_that_is_none_of_a_gpu_is_refused(share):
    with pytest.raises(ValueError, match="gpus_per_trial must be in"):
        Driver(gpus_per_trial=share)


@pytest.mark.parametrize(
    ("workers", "where", "share"),
    # As many as the node takes, though the search has more; fewer where it has fewer.
    [(16, "a", 1 / 4), (16, "b", 1 / 8), (3, "b", 1 / 3)],
)
def test_a_nodes_joules_are_shared_among_the_trials_of_that_node(
    workers, where, share, monkeypatch
):
    here = type("Here", (), {"get_node_id": lambda self: where})()
    monkeypatch.setattr(ray_roles.ray, "get_runtime_context", lambda: here)
    monkeypatch.setattr(ray_roles.ray, "nodes", lambda: [node("a", cpus=4), node("b", cpus=8)])
    # As workers get it.
    assert pickle.loads(pickle.dumps(EnergyShare(workers, 0.0)))() == share


@pytest.mark.parametrize(
    ("workers", "of_gpu", "share"),
    # Three thirds of a GPU are a whole one, whatever the sum of three floats is.
    [(8, 1 / 2, 1 / 2), (8, 1 / 3, 1 / 3), (9, 1 / 9, 1 / 9), (2, 0.25, 1 / 2), (8, 0.7, 1)],
)
def test_a_gpus_joules_are_shared_among_the_trials_of_that_gpu(workers, of_gpu, share):
    assert EnergyShare(workers, of_gpu)() == share
