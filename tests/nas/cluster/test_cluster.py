"""Which Ray a search joins."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import search_fakes
from fault_fakes import wait_for
from forking import nas_command
from search_fakes import SPACE

from nas.cli.commands import search
from nas.cli.main import build_parser
from nas.cli.options.search_config import config_of
from nas.cluster import connect as ray_cluster
from nas.cluster import shipping as ray_shipping
from nas.cluster.client import search_there
from nas.records.config import SearchConfig


def test_a_search_without_an_address_joins_no_other_ray_that_runs_here(monkeypatch):
    asked = {}

    def init(**options):
        asked.update(options)
        raise RuntimeError("no more is needed")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray_cluster.ray, "init", init)
    with (
        pytest.raises(ray_cluster.ClusterError, match="start on this machine: no more is needed$"),
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
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: [{"NodeManagerAddress": "127.0.0.1"}])
    monkeypatch.setattr(ray_cluster.ray, "shutdown", shut_down)
    monkeypatch.setattr(
        ray_cluster.ray, "cluster_resources", lambda: {ray_cluster.METER_RESOURCE: 1.0}
    )
    with ray_cluster.cluster(None, 1, "cpu"):
        assert constants.ENABLE_RAY_CLUSTER is False
    # A cluster that this process starts afterwards could be reached by nobody.
    assert seen == [False] and constants.ENABLE_RAY_CLUSTER is True


@pytest.fixture
def connected_elsewhere(monkeypatch):
    """A process that a notebook's user connected to a Ray; its shutdowns are counted."""
    shut_down = []
    context = SimpleNamespace(gcs_address="127.0.0.1:6379", get_task_id=lambda: None)
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_cluster.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(ray_cluster.ray, "shutdown", lambda: shut_down.append(1))
    return shut_down


def test_a_search_uses_a_users_own_connection_or_says_how_to_end_it(connected_elsewhere):
    with (
        pytest.raises(ray_cluster.ClusterError, match=r"not be connected .*call ray.shutdown\(\)"),
        ray_cluster.cluster(None, 2, "cpu"),
    ):
        pass
    with (
        pytest.raises(ray_cluster.ClusterError, match=r"got 127.0.0.1:6379: call ray.shutdown"),
        ray_cluster.connected("127.0.0.1:1"),
    ):
        pass
    with ray_cluster.connected("127.0.0.1:6379"):
        pass
    # It is the user's to end.
    assert not connected_elsewhere


def test_a_ray_that_starts_and_is_then_refused_is_shut_down(monkeypatch):
    shut_down = []
    monkeypatch.setattr(ray_cluster.ray, "init", lambda **_: None)
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: [{"NodeManagerAddress": "10.0.0.7"}])
    monkeypatch.setattr(ray_cluster.ray, "shutdown", lambda: shut_down.append(1))
    with (
        pytest.raises(ray_cluster.ClusterError, match=r"listen on 10.0.0.7, not 127.0.0.1"),
        ray_cluster.cluster(None, 1, "cpu"),
    ):
        pass
    assert shut_down == [1]


def client_of(code):
    """A Ray that turns away who shows no token, as gRPC has it; ``code`` is its answer."""
    import grpc

    class Channel:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def unary_unary(self, question):
            class AnswerError(grpc.RpcError):
                def code(self):
                    return code

            def ask(*_, **__):
                raise AnswerError(question)

            return ask

    return Channel


@pytest.mark.parametrize(("answer", "mode"), [("UNAUTHENTICATED", "token"), ("UNAVAILABLE", None)])
def test_a_token_is_shown_to_those_who_ask_for_one_alone(monkeypatch, answer, mode):
    import grpc

    channel = client_of(getattr(grpc.StatusCode, answer))
    monkeypatch.setattr(grpc, "insecure_channel", lambda server: channel())
    monkeypatch.setattr(ray_cluster, "_check_reachable", lambda address: None)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ab" * 32)
    seen = []

    def init(**options):
        seen.append((os.environ.get("RAY_AUTH_MODE"), options["runtime_env"]["py_modules"]))
        raise ConnectionError("no more is needed")

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    with (
        pytest.raises(
            ray_cluster.ClusterError, match="got '127.0.0.1:1': no more is needed .*token"
        ),
        ray_cluster.connected("127.0.0.1:1"),
    ):
        pass
    ((shown, sent),) = seen
    assert shown == mode and "RAY_AUTH_MODE" not in os.environ
    # Workers run what this process runs.
    assert [Path(folder).name for folder in sent] == ["nas", "search_spaces", "predictors"]


@pytest.fixture
def nodes(monkeypatch):
    """Answers of nodes, by their address, in place of a cluster."""
    answers = {}

    def ask(function):
        return {node: answer(function) for node, answer in answers.items()}

    monkeypatch.setattr(ray_shipping, "_on_each_node", ask)
    return answers


def a_search(tmp_path):
    lines = "".join(f"{'good' if i % 2 else 'bad'} word{i} film\n" for i in range(40))
    (tmp_path / "reviews.txt").write_text(lines)
    (tmp_path / "task.yaml").write_text("{name: t, data: reviews.txt, sequence_length: 4}")
    return SearchConfig(task=str(tmp_path / "task.yaml"), space=SPACE, trials=1)


def without(path):
    """The answer of a node that does not see ``path``."""

    def answer(function):
        away = path.rename(path.with_suffix(".away"))
        try:
            return function()
        finally:
            away.rename(path)

    return answer


def test_nodes_that_are_asked_what_they_see_are_told_no_password(tmp_path, nodes):
    config = replace(a_search(tmp_path), storage="postgresql://me:hunter2secret@host/studies")
    sent = []
    nodes["10.0.0.1"] = lambda f: (sent.append(ray_shipping.pack(f)), f())[1]
    ray_shipping.check_paths(config, (), tmp_path / "r")
    assert len(sent) == 2 and str(tmp_path).encode() in sent[0]
    assert not any(b"hunter2secret" in what for what in sent)


def test_nodes_that_see_other_data_or_no_run_folder_are_named(tmp_path, nodes):
    config = a_search(tmp_path)
    nodes |= {"10.0.0.1": lambda f: f(), "10.0.0.2": lambda f: f()}
    ray_shipping.check_paths(config, (), tmp_path / "runs" / "r")
    assert not list(tmp_path.glob(".joulenas-*"))

    data = f"data of the task: {tmp_path / 'reviews.txt'}"
    nodes["10.0.0.2"] = lambda f: f() if isinstance(f(), bool) else f() | {data: "other"}
    with pytest.raises(ray_cluster.ClusterError, match=r"reviews\.txt .* 10\.0\.0\.2 has another"):
        ray_shipping.check_paths(config, (), tmp_path / "r")
    for name, label in (("reviews.txt", "data of the task"), ("task.yaml", "task file")):
        nodes["10.0.0.2"] = without(tmp_path / name)
        said = f"the {label} {tmp_path / name} .* node 10.0.0.2 has none there"
        with pytest.raises(ray_cluster.ClusterError, match=said):
            ray_shipping.check_paths(config, (), tmp_path / "r")
    nodes["10.0.0.2"] = lambda f: False if isinstance(f(), bool) else f()
    with pytest.raises(ray_cluster.ClusterError, match=r"10\.0\.0\.2 does not: name one"):
        ray_shipping.check_paths(config, (), tmp_path / "r")
    # Where files are in a store, nobody shares a folder.
    in_store = replace(config, files_at="s3://bucket/runs")
    ray_shipping.check_paths(in_store, (), tmp_path / "r")


def test_nodes_need_not_see_the_checkpoint_of_a_run_whose_files_are_in_a_store(tmp_path, nodes):
    """They fetch it with its task file; the data of the task stay where they are."""
    parent = tmp_path / "run" / "parent"
    parent.mkdir(parents=True)
    (parent / "tokenizer.json").write_text("{}")
    (tmp_path / "reviews.txt").write_text("good film\n")
    task = {"name": "t", "data": str(tmp_path / "reviews.txt"), "tokenizer": "tokenizer.json"}
    (parent / "task.yaml").write_text(json.dumps(task))
    fields = {"task": str(parent / "task.yaml"), "space": SPACE, "checkpoint": object()}
    in_store = SimpleNamespace(**fields, files_at="s3://bucket/runs")
    nodes["10.0.0.2"] = without(parent)
    ray_shipping.check_paths(in_store, (), tmp_path / "run")
    here = SimpleNamespace(**fields, files_at=None)
    with pytest.raises(
        ray_cluster.ClusterError, match=r"the task file .*task\.yaml as it is here"
    ):
        ray_shipping.check_paths(here, (), tmp_path / "run")
    nodes["10.0.0.2"] = without(tmp_path / "reviews.txt")
    with pytest.raises(ray_cluster.ClusterError, match=r"reviews\.txt .* has none there"):
        ray_shipping.check_paths(in_store, (), tmp_path / "run")


def test_a_node_is_asked_for_kernels_where_the_driver_has_no_such_device(monkeypatch):
    from search_spaces.compression import probing

    asked = []

    def there(address, name, function, space, device, rows, runtime):
        asked.append((address, name, function.__name__, device, runtime))
        return search_fakes.report(fp32="real", bf16="real")

    def here(device, **_):
        raise ValueError(f"torch has no {device} here")

    monkeypatch.setattr(ray_shipping, "call_there", there)
    monkeypatch.setattr(probing, "probe", here)
    line = ["search", "quickstart", "--device", "cuda:0", "--measure-on", "h100=cuda:0"]
    arguments = build_parser().parse_args([*line, "--address", "lead:6379"])
    with search._probing(arguments):
        config = config_of(arguments)
    assert config.space.values("ffn_precision") == ("fp32", "bf16")
    # Once, however often it is looked up.
    assert asked == [("lead:6379", "h100", "probe_here", "cuda:0", "torch")]
    arguments = build_parser().parse_args(line)
    with search._probing(arguments), pytest.raises(ValueError, match="no cuda:0 here"):
        config_of(arguments)


def test_a_search_through_the_client_needs_a_whole_path():
    with pytest.raises(ray_cluster.ClusterError, match=r"whole path on the cluster, got runs/r"):
        search_there(lambda *_: None, Path("runs/r"), "ray://127.0.0.1:1", None)


@pytest.mark.e2e
@pytest.mark.usefixtures("measured_eagerly")
def test_a_search_through_the_client_runs_on_a_cluster_that_asks_for_a_token(tmp_path):
    """And what it raises there is heard here."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("", 0))
            ports.append(free.getsockname()[1])
    scratch = tempfile.mkdtemp(prefix="ray-")
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_AUTH_MODE")},
        "RAY_AUTH_TOKEN": "cd" * 32,
        "RAY_USAGE_STATS_ENABLED": "0",
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
    try:
        wait_for(lambda: is_open(ports[1]), 120)
        folder = tmp_path / "run"
        line = ["quickstart", "--epochs", "1", "--run", folder, "--json", "--trials", "1"]
        address = f"ray://127.0.0.1:{ports[1]}"

        def searched(*more):
            with nas_command("search", *line, *more, env=environment, cwd=tmp_path) as process:
                return *process.communicate(), process.returncode

        out, errors, code = searched("--address", address)
        assert code == 0, errors
        (member,) = json.loads(out)["front"]["members"]
        assert member["trial"] == 0 and "trial 0 complete" in errors
        # Ray gives up on a client whose server is slow to start, as on a busy machine.
        for _ in range(3):
            _, errors, code = searched("--address", address)
            if "must be that of a running Ray cluster" not in errors:
                break
        assert code == 2 and "must be new or empty" in errors
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(scratch, ignore_errors=True)


def is_open(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
