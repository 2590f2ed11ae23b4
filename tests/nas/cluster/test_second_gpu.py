"""The second GPU of a machine: chosen before anything touches one, and seen by workers."""

import json
import os

import pytest
import torch
from search_fakes import SPACE, make_trial

from nas.cluster import connect as ray_cluster
from nas.cluster import roles as ray_roles
from nas.cluster.connect import ClusterError
from nas.evaluation.evaluator import TrainingEvaluator
from nas.evaluation.teacher import prepare_teacher
from nas.exporting import verify_worker
from nas.exporting.artifact_format import ARTIFACT_FORMAT
from nas.exporting.formats.registry import FORMATS
from nas.records.config import SearchConfig
from nas.store.driver import Driver
from predictors.measurement.protocol import get_protocol
from predictors.measurement.runner import make_job
from predictors.measurement.worker import Subject
from search_spaces.compression.probing import probe
from search_spaces.space.sampling import smallest
from search_spaces.workload import Workload

WORKLOAD = Workload("digits", "image_classification", (1, 8, 8), 10, 16)


class Chosen(Exception):  # noqa: N818
    """Stops at the first board that is chosen."""


@pytest.fixture
def chosen(monkeypatch):
    def choose(device):
        raise Chosen(device)

    monkeypatch.setattr(torch.cuda, "set_device", choose)


def _config(**more):
    return SearchConfig("digits", SPACE, trials=2, device="cuda:1", **more).evaluation()


def _measured():
    job = make_job(
        "measure",
        smallest(SPACE),
        WORKLOAD,
        protocol=get_protocol("quick"),
        device="cuda:1",
        meter=None,
    )
    Subject(job)


def _trained(tmp_path):
    candidate = make_trial(0, "running", smallest(SPACE)).candidate
    TrainingEvaluator(_config(), tmp_path / "x.npy", tmp_path).evaluate(
        candidate, tmp_path, pytest.fail
    )


def _reloaded(tmp_path, stored):
    job = {
        "folder": str(tmp_path),
        "device": "cuda:1",
        "protocol": get_protocol("quick").to_dict(),
        "task": "digits",
    }
    verify_worker._inspect(stored, job)


@pytest.mark.parametrize(
    "touch",
    [
        lambda _: _measured(),
        _trained,
        lambda tmp: _reloaded(tmp, FORMATS["pt2"]),
        lambda tmp: _reloaded(tmp, ARTIFACT_FORMAT),
        lambda _: probe("cuda:1"),
        lambda tmp: prepare_teacher(_config(), tmp, tmp),
    ],
    ids=["worker", "evaluator", "form", "artifact", "probe", "teacher"],
)
def test_the_board_is_chosen_before_anything_touches_one(touch, chosen, tmp_path):
    with pytest.raises(Chosen, match="cuda:1"):
        touch(tmp_path)


def test_workers_call_a_gpu_what_they_are_shown():
    assert Driver().trained_on("cuda:1") == "cuda:1"
    assert Driver(address="10.0.0.1:6379").trained_on("cuda:1") == "cuda:0"
    assert Driver(address="10.0.0.1:6379").trained_on("cpu") == "cpu"


@pytest.mark.e2e
def test_a_ray_for_one_search_shows_its_workers_every_gpu(monkeypatch):
    import ray

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")

    def shown():
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    with ray_cluster.cluster(None, 2, "cuda:1"):
        tasks = [ray.remote(num_gpus=share)(shown).remote() for share in (0.5, 1, 0)]
        assert ray.get(tasks) == ["3,5"] * 3
    assert "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES" not in os.environ


def node(**resources):
    return {"NodeID": "n", "Alive": True, "Resources": resources}


def test_a_node_with_several_devices_must_name_them():
    ray_roles.check_one_device([node(CPU=4), node(joule_meter=1.0)], "cuda:0")
    ray_roles.check_one_device([node(joule_meter=4.0) | {"Alive": False}], "cuda:0")
    with pytest.raises(ClusterError, match="got 4, of which only cuda:0") as error:
        ray_roles.check_one_device([node(joule_meter=4.0)], "cuda:0")
    named = json.loads(str(error.value).split("--resources '")[1].split("'")[0])
    assert named == {"joule_meter": 4} | {f"joule_meter_board{i}": 1 for i in range(4)}
