"""Nodes that train and nodes that measure, on a true Ray of several."""

import functools
import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from executor_fakes import run_trials
from fault_fakes import notes
from role_fakes import BIG, SMALL, Noting, measuring, register_meters
from run_fakes import check_schema
from search_fakes import SPACE, make_session

import nas
from nas.cli.main import main
from nas.cluster import connect as ray_cluster
from nas.cluster import measuring as ray_measuring
from nas.core.files import write_json
from nas.records.config import GateConfig
from nas.searching import study

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes that train, one with two GPUs, and two that measure, each another device."""
    import ray
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH", "")
    packages = tmp_path_factory.mktemp("packages")
    register_meters(packages)
    tests = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(packages), tests, os.path.dirname(tests)])
    store = {"object_store_memory": 80 * 1024 * 1024}
    trains = {"num_cpus": 2, "num_gpus": 2, "include_dashboard": False} | store
    nodes = Cluster(initialize_head=True, head_node_args=trains)
    try:
        found = {"head": nodes.head_node, "second": nodes.add_node(num_cpus=1, **store)}
        for name in ("big", "small"):
            resources = {resource: 1 for resource in ray_cluster.meter_resources(name)}
            found[name] = nodes.add_node(num_cpus=0, num_gpus=0, resources=resources, **store)
        nodes.ids = {name: one.node_id for name, one in found.items()}
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()
        os.environ["PYTHONPATH"] = before


def trained_on(folder):
    """Of each trial, the node it trained on and the GPUs that it saw there."""
    found = (folder / "trials").glob("*/trained")
    return {path.parent.name: notes(path)[-1].split(",", 1) for path in found}


def test_trials_train_here_and_are_measured_there_and_each_device_has_a_front_of_its_own(
    cluster, tmp_path, monkeypatch, capsys
):
    measure = functools.partial(ray_measuring.RayMeasure, function=measuring(tmp_path))
    monkeypatch.setattr(ray_measuring, "RayMeasure", measure)
    monkeypatch.setattr(study, "TrainingEvaluator", Noting)
    write_json(tmp_path / "space.yaml", SPACE.to_dict())
    folder = tmp_path / "run"
    words = f"search --task digits --space {tmp_path / 'space.yaml'} --trials 10 --workers 3"
    words += f" --sampler random --address {cluster.address} --run {folder} --quiet --json"
    words += " --measure-on big=cpu/fake-big --measure-on small=cuda:0/fake-small"
    assert main(words.split()) == 0
    # A resumed search knows its devices.
    assert main(f"resume {folder} --trials 12 --quiet --json".split()) == 0
    ids = cluster.ids
    trained = trained_on(folder)
    assert len(trained) == 12
    # Where workers start sooner, one of the two may have trained them all.
    assert {node for node, _ in trained.values()} <= {ids["head"], ids["second"]}
    measured = [line.split(",") for line in notes(tmp_path / "measured")]
    assert len(measured) == 24
    assert {(device, node) for _, device, node, *_ in measured} == {
        ("cpu", ids["big"]),
        ("cuda:0", ids["small"]),
    }
    for device in ("cpu", "cuda:0"):
        windows = sorted((float(a), float(b)) for _, on, _, a, b in measured if on == device)
        assert all(before[1] <= after[0] for before, after in pairwise(windows))
    run = nas.load(folder)
    for record in run.trials():
        assert record.state == "complete" and record.reading.device == BIG
        assert {name: one.device for name, one in record.readings.items()} == {"small": SMALL}
        # A node's joules are shared among its own trials.
        on_head = trained[str(record.number)][0] == ids["head"]
        assert record.train_energy_j == (0.5 if on_head else 1.0)
    capsys.readouterr()
    fronts = {}
    for name, hardware in (("big", BIG), ("small", SMALL)):
        assert main(f"front {folder} --device {name} --json".split()) == 0
        shown = json.loads(capsys.readouterr().out)
        check_schema(shown, "front")
        assert {(m["measured_on"], m["device"]) for m in shown["members"]} == {(name, hardware)}
        fronts[name] = {m["trial"]: m["energy_j"] for m in shown["members"]}
    assert fronts["big"].keys() != fronts["small"].keys()


def test_trials_on_gpus_have_one_each_where_there_are_enough(cluster, tmp_path, monkeypatch):
    measure = functools.partial(ray_measuring.RayMeasure, function=measuring(tmp_path))
    monkeypatch.setattr(ray_measuring, "RayMeasure", measure)
    gate = GateConfig(startup_trials=99)
    session = make_session(tmp_path, trials=2, sampler="random", gate=gate)
    with ray_cluster.cluster(cluster.address, 2, "cuda:0"):
        run_trials(
            session, Noting(abreast=2), tmp_path / "trials", device="cuda:0", meter="fake-small"
        )
    assert [r.state for r in session.records()] == ["complete"] * 2
    trained = trained_on(tmp_path).values()
    assert {node for node, _ in trained} == {cluster.ids["head"]}
    assert {gpus for _, gpus in trained} == {"0", "1"}
