"""Which Ray a search joins."""

import pytest

from nas.searching import ray_driver


def test_a_search_without_an_address_joins_no_other_ray_that_runs_here(monkeypatch):
    asked = {}

    def init(**options):
        asked.update(options)
        raise RuntimeError("no more is needed")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray_driver.ray, "init", init)
    with (
        pytest.raises(ray_driver.ClusterError, match="no more is needed"),
        ray_driver.cluster(None, 2, "cpu"),
    ):
        pass
    # Without a word Ray takes what RAY_ADDRESS says, or the last `ray start` on the machine.
    assert asked["address"] == "local" and asked["num_cpus"] == 2
