"""Searches from a checkpoint on a true Ray: workers, nodes, an object store, the client."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
from fault_fakes import wait_for
from forking import Forked, nas_command
from parent_fakes import review_task, search_on_ray, text_checkpoint
from s3_fakes import CREDENTIALS, s3_server, url

import nas
from nas.cluster import connect as ray_cluster
from nas.core.files import place_at
from nas.records.replicas import result_in
from nas.store import run_file

pytestmark = [pytest.mark.thorough, pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def started_from(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    return text_checkpoint(folder / "bert"), review_task(folder / "data", n=80)


def test_workers_train_candidates_of_one_parent_and_finalists(
    started_from, counted_joules, tmp_path
):
    run = search_on_ray(*started_from, tmp_path / "run", counted_joules, workers=2)
    records = run.records()
    assert [r.reason or r.state for r in records] == ["complete"] * 4
    assert {r.start for r in records} == {"teacher"}
    assert run.teacher().quality == pytest.approx(records[0].quality)
    assert sum(r.finalist_of is not None for r in records) == 1
    assert nas.resume(run.folder, trials=4).records()[4].state == "complete"


@pytest.fixture
def s3(monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as port:
        yield port


@pytest.fixture
def nodes(counted_joules, s3, tmp_path, monkeypatch):
    """A node that only measures, and one that only trains, with a cache of their own."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    few = {"object_store_memory": 80 * 1024 * 1024}
    meters = {name: 1 for name in ray_cluster.meter_resources("board")}
    head = few | {"num_cpus": 0, "resources": meters, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=2, **few)
        yield cluster.address
    finally:
        cluster.shutdown()


def test_the_parent_is_in_a_store_and_each_node_fetches_it_once(
    started_from, counted_joules, nodes, s3, tmp_path
):
    """Through a kill of the driver; the run folder is then elsewhere, and the checkpoint gone."""
    from nas.records.device_names import MeasuredDevice

    source = shutil.copytree(started_from[0], tmp_path / "bert")
    where, first, second = (
        url(s3, prefix="from-checkpoint"),
        tmp_path / "first",
        tmp_path / "second",
    )
    fields = {"files_at": where, "measure_on": (MeasuredDevice("board", "cpu", counted_joules),)}
    searching = Forked(
        partial(
            search_on_ray,
            source,
            started_from[1],
            first,
            counted_joules,
            fields=fields,
            workers=2,
            address=nodes,
        )
    )

    def ended():
        places = [run / "trials" for run in place_at(where).glob("*")]
        return [path for place in places for path in place.glob("*") if result_in(path)]

    try:
        wait_for(lambda: time.sleep(0.2) or searching.poll() is not None or ended(), for_s=300)
        assert searching.poll() is None, searching.communicate()[1]
    finally:
        searching.kill()
        searching.communicate()
    shutil.move(first, second)
    shutil.rmtree(source)
    run = nas.resume(second)
    records = run.records()
    assert [r.reason or r.state for r in records] == ["complete"] * 4
    assert {r.reading.source for r in records} == {"calls of modules"}
    stored = {path.name for path in (run.place / "parent").glob("*")}
    assert {"task.yaml", "config.json", "model.safetensors", "tokenizer.json"} <= stored
    copies = [
        {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        for folder in (tmp_path / "cache" / "joulenas" / "shared").iterdir()
    ]
    teacher = {"architecture.json", "workload.json", "model.safetensors", "scores.safetensors"}
    assert len(copies) == 2 and any(teacher <= names for names in copies)
    assert run.teacher().digests.keys() >= teacher


def test_a_search_through_the_client_ships_the_checkpoint(started_from, tmp_path):
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("", 0))
            ports.append(free.getsockname()[1])
    scratch = tempfile.mkdtemp(prefix="ray-")
    environment = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        "RAY_AUTH_TOKEN": "cd" * 32,
        "RAY_USAGE_STATS_ENABLED": "0",
        "CXX": "no-such-compiler",
    }
    words = [
        *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"),
        *("--include-dashboard=false", "--num-cpus=1", f"--port={ports[0]}"),
        *(f"--ray-client-server-port={ports[1]}", f"--temp-dir={scratch}"),
        *("--resources", '{"joule_meter": 1}'),
    ]
    head = subprocess.Popen(
        words,
        env=environment | {"RAY_AUTH_MODE": "token"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    (tmp_path / "own.yaml").write_text("attention_precision: [fp32]\nffn_precision: [fp32]\n")
    folder = tmp_path / "run"
    line = ["search", "--from", started_from[0], "--task", started_from[1], "--run", folder]
    line += ["--epochs", "1", "--trials", "2", "--finalists", "0", "--space", "own.yaml"]
    line += ["--json", "--address", f"ray://127.0.0.1:{ports[1]}"]
    try:
        wait_for(lambda: is_open(ports[1]), 120)
        with nas_command(*line, env=environment, cwd=tmp_path) as process:
            out, errors = process.communicate()
        assert process.returncode == 0, errors
        assert json.loads(out)["summary"]["complete"] == 2
        assert run_file.load(folder).teacher().source == "checkpoint"
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(scratch, ignore_errors=True)


def is_open(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
