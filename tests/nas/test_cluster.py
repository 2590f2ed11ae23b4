"""Which Ray a search joins."""

import pytest

from nas.searching import ray_cluster


def test_a_search_without_an_address_joins_no_other_ray_that_runs_here(monkeypatch):
    asked = {}

    def init(**options):
        asked.update(options)
        raise RuntimeError("no more is needed")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray_cluster.ray, "init", init)
    with (
        pytest.raises(ray_cluster.ClusterError, match="no more is needed"),
        ray_cluster.cluster(None, 2, "cpu"),
    ):
        pass
    # Without a word Ray takes what RAY_ADDRESS says, or the last `ray start` on the machine.
    assert asked["address"] == "local" and asked["num_cpus"] == 2


def test_how_rays_servers_listen_is_as_before_afterwards(monkeypatch):
    constants = ray_cluster.ray._private.ray_constants
    seen = []

    def shut_down():
        seen.append(constants.ENABLE_RAY_CLUSTER)

    monkeypatch.setattr(constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr(ray_cluster.ray, "init", lambda **_: None)
    monkeypatch.setattr(ray_cluster.ray, "shutdown", shut_down)
    monkeypatch.setattr(
        ray_cluster.ray, "cluster_resources", lambda: {ray_cluster.METER_RESOURCE: 1.0}
    )
    with ray_cluster.cluster(None, 1, "cpu"):
        assert constants.ENABLE_RAY_CLUSTER is False
    # A cluster that this process starts afterwards could be reached by nobody.
    assert seen == [False] and constants.ENABLE_RAY_CLUSTER is True
