"""Private names of Ray: each exists, does what we take it for, or is refused in one line."""

import os
import subprocess
import sys

import pytest
from ray._private import node, ray_constants, services, utils, worker
from ray._raylet import AuthenticationMode, get_authentication_mode
from ray.experimental import internal_kv
from ray.tune.experiment import Trial

from nas.cluster import ray_internals
from nas.cluster.ray_internals import ClusterError


def test_the_installed_ray_is_as_needed():
    ray_internals.check()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (ray_constants, "ENABLE_RAY_CLUSTER"),
        (node, "Node"),
        (services, "canonicalize_bootstrap_address"),
        (services, "get_node_ip_address"),
        (utils, "get_entrypoint_name"),
        (worker, "print_to_stdstream"),
        (worker, "listen_error_messages"),
        (worker, "init"),
        (worker.ray._raylet, "Config"),
        (worker.ray._raylet, "AuthenticationTokenLoader"),
        (worker.ray._raylet, "AuthenticationMode"),
        (worker.ray._raylet, "get_authentication_mode"),
        *((internal_kv, f"_internal_kv_{verb}") for verb in ("put", "get", "list", "del")),
    ],
)
def test_a_ray_without_a_name_is_refused_in_one_line(monkeypatch, owner, name):
    monkeypatch.delattr(owner, name)
    with pytest.raises(ClusterError, match=rf"{name} is missing\): install ray 2\.60$") as caught:
        ray_internals.check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "called"),
    [("init", "get_entrypoint_name"), ("listen_error_messages", "print_to_stdstream")],
)
def test_a_ray_that_calls_another_function_is_refused(monkeypatch, name, called):
    monkeypatch.setattr(worker, name, lambda _temp_dir=None: None)
    with pytest.raises(ClusterError, match=f"{name} does not call {called}"):
        ray_internals.check()


@pytest.mark.parametrize("name", ["start_monitor", "start_api_server", "start_log_monitor"])
def test_a_ray_that_starts_its_processes_in_another_way_is_refused(monkeypatch, name):
    monkeypatch.delattr(node.Node, name)
    with pytest.raises(ClusterError, match=f"does not call {name}"):
        ray_internals.check()


def test_unused_processes_of_ray_are_not_started():
    before = node.Node.start_monitor, node.Node.start_api_server, node.Node.start_log_monitor
    ours = object.__new__(node.Node)
    with ray_internals.without_unused_processes():
        # Each would fail on a node without parameters.
        ours.start_monitor()
        ours.start_api_server(include_dashboard=False, raise_on_failure=False)
        ours.start_log_monitor()
    after = node.Node.start_monitor, node.Node.start_api_server, node.Node.start_log_monitor
    assert before == after


def test_a_ray_that_would_listen_on_the_network_is_refused(monkeypatch):
    before = ray_constants.ENABLE_RAY_CLUSTER
    monkeypatch.setattr(services, "get_node_ip_address", lambda: "10.0.0.7")
    with (
        pytest.raises(ClusterError, match=r"would listen on 10\.0\.0\.7, not 127\.0\.0\.1"),
        ray_internals.listening(to_network=False),
    ):
        pass
    assert before == ray_constants.ENABLE_RAY_CLUSTER


def test_ray_listens_on_loopback_where_it_is_told_to():
    with ray_internals.listening(to_network=False):
        assert services.get_node_ip_address() == "127.0.0.1"


def test_the_command_line_is_not_shown(monkeypatch):
    for owner, name in ((worker, "print_to_stdstream"), (utils, "get_entrypoint_name")):
        monkeypatch.setattr(owner, name, lambda: "--password secret")
    ray_internals.silence()
    assert utils.get_entrypoint_name() == "nas"


def test_a_token_is_required_as_the_environment_says_after_ray_is_imported(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    before = get_authentication_mode()
    with ray_internals.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="ab" * 32):
        assert get_authentication_mode() == AuthenticationMode.TOKEN
    assert get_authentication_mode() == before
    assert "RAY_AUTH_MODE" not in os.environ and "RAY_AUTH_TOKEN" not in os.environ


def test_a_ray_that_would_require_no_token_is_refused(monkeypatch):
    monkeypatch.setattr(
        worker.ray._raylet, "get_authentication_mode", lambda: AuthenticationMode.DISABLED
    )
    with (
        pytest.raises(ClusterError, match="RAY_AUTH_MODE has no effect"),
        ray_internals.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="ab" * 32),
    ):
        pass
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_tune_trial_without_what_is_dropped_is_refused():
    trial = Trial("none", stub=True)
    del trial._state_json
    with pytest.raises(ClusterError, match="a Tune trial has no _state_json"):
        ray_internals.forget_results(trial, None)


SETTINGS = """
import os
from nas.cluster import ray_internals
import ray
from ray._common.usage.usage_lib import usage_stats_enabled
from ray._private.auto_init_hook import enable_auto_connect
from ray.train.constants import RAY_CHDIR_TO_TRIAL_DIR
print(usage_stats_enabled(), enable_auto_connect, os.environ[RAY_CHDIR_TO_TRIAL_DIR])
"""


def test_ray_reads_the_settings_when_it_is_imported():
    environment = {k: v for k, v in os.environ.items() if k not in ray_internals._SETTINGS}
    shown = subprocess.run(
        [sys.executable, "-c", SETTINGS],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert shown.stdout.split() == ["False", "False", "0"]
