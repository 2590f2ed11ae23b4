"""The files of experiments/cluster/, each by its schema, its parser or by being run."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from nas.cli.main import build_parser
from nas.cluster.connect import METER_RESOURCE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "cluster"
LAUNCHED = ("on-prem.yaml", "aws.yaml")
# Fields of ray.io/v1 in KubeRay 1.7.1, but for those that only its own pieces write:
# https://docs.ray.io/en/master/kuberay/references/api.html
RAY_JOB = {
    *("activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy"),
    *("entrypoint", "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId"),
    *("managedBy", "metadata", "preRunningDeadlineSeconds", "rayClusterSpec", "runtimeEnvYAML"),
    *("shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate"),
    *("suspend", "ttlSecondsAfterFinished"),
}
RAY_CLUSTER = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions"),
    *("headGroupSpec", "headServiceAnnotations", "managedBy", "rayVersion", "suspend"),
    *("upgradeStrategy", "workerGroupSpecs"),
}
HEAD_GROUP = {
    *("enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType"),
    "template",
}
WORKER_GROUP = {
    *("groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts"),
    *("rayStartParams", "replicas", "resources", "scaleStrategy", "suspend", "template"),
}


def read(name):
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.fixture(scope="module")
def job():
    return read("kuberay.yaml")


@pytest.fixture(scope="module")
def groups(job):
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize("name", LAUNCHED)
def test_rays_launcher_takes_it(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(read(name))
    validate_config(config)
    nodes = config["available_node_types"].values()
    least, most = (sum(node[f"{end}_workers"] for node in nodes) for end in ("min", "max"))
    assert 1 <= least <= most <= config["max_workers"]
    # A mistyped key of ours would have been refused.
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config({**config, "max_wrokers": 1})


def test_amazon_gets_from_it_what_it_needs(monkeypatch):
    from moto import mock_aws
    from ray.autoscaler._private.aws import config as aws
    from ray.autoscaler._private.util import prepare_config

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    asked = prepare_config(read("aws.yaml"))
    with mock_aws():
        # Not the key pair, a file in the user's home, nor the role, which is made anew.
        nodes = aws._configure_security_group(aws._configure_subnet(asked))
    for kind in nodes["available_node_types"].values():
        assert kind["node_config"]["SubnetIds"] and kind["node_config"]["SecurityGroupIds"]
        assert kind["node_config"]["ImageId"].startswith("ami-")


@pytest.mark.parametrize("name", LAUNCHED)
def test_launched_clusters_ask_for_a_token_and_show_their_dashboard_to_nobody(name):
    config = read(name)
    starts = [
        line
        for kind in ("head", "worker")
        for line in config[f"{kind}_start_ray_commands"]
        if "ray start" in line
    ]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert METER_RESOURCE in json.dumps(config)


def test_kubernetes_takes_its_pods(groups):
    version = kubernetes_validate.latest_version()
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}}
        pod["spec"] = group["template"]["spec"]
        kubernetes_validate.validate(pod, version, strict=True)
    pod["spec"] = {**pod["spec"], "nodeSelectr": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="nodeSelectr"):
        kubernetes_validate.validate(pod, version, strict=True)


def test_kuberay_knows_its_fields(job, groups):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) <= RAY_JOB
    assert set(job["spec"]["rayClusterSpec"]) <= RAY_CLUSTER
    head, *workers = groups
    assert set(head) <= HEAD_GROUP and all(set(group) <= WORKER_GROUP for group in workers)
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    for group in groups:
        # KubeRay passes texts on to `ray start`.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    # As the shell will read them: within quotes of its own.
    measuring = [
        json.loads(shlex.split(group["rayStartParams"]["resources"])[0])
        for group in workers
        if "resources" in group["rayStartParams"]
    ]
    assert measuring == [{METER_RESOURCE: 1}]


def test_every_ray_is_the_one_that_the_project_pins(job):
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned
    assert f"FROM rayproject/ray:{pinned}-py311\n" in (FOLDER / "Dockerfile").read_text()


def test_every_search_in_the_files_is_one_that_nas_takes(job):
    lines = [job["spec"]["entrypoint"]]
    for name in LAUNCHED:
        lines += re.findall(r"'~/joulenas-venv/bin/(nas .*)'", (FOLDER / name).read_text())
    script = (FOLDER / "slurm.sh").read_text()
    (given,) = re.findall(r"sbatch \S+ (.*)", script)
    lines.append(f"nas search {given}" + re.search(r'nas search "\$@"(.*)', script)[1])
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line)[1:]
        arguments = build_parser().parse_args(words)
        assert arguments.address and arguments.run
        # Given again, it goes on.
        assert arguments.resume


def test_slurms_options_stand_before_the_first_command():
    lines = (FOLDER / "slurm.sh").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    options = [line for line in lines if line.startswith("#SBATCH ")]
    assert options == [line for line in lines[:first] if line.startswith("#SBATCH ")]
    assert {"--exclusive", "--requeue"} <= {line.split()[1] for line in options}


@pytest.mark.thorough
@pytest.mark.e2e
@pytest.mark.usefixtures("measured_eagerly")
@pytest.mark.parametrize("trials", [(1,), pytest.param((1, 2), id="requeued")])
def test_the_script_of_slurm_searches_on_its_nodes_and_goes_on(tmp_path, trials):
    """Its programs are stood in for; the script, Ray's two nodes and the search are true."""
    programs = {
        "scontrol": '[ "$3" = "$SLURM_JOB_NODELIST" ] && hostname && echo second',
        "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"',
        # The node that leads is the one that the search starts on.
        "nas": f'exec {shlex.quote(sys.executable)} -m nas "$@"',
    }
    for name, body in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    places = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(places),
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": f"t{os.getpid()}",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "RAY_PORT": str(port),
    }
    run = tmp_path / "run"
    words = ["quickstart", "--epochs", "1", "--run", str(run), "--quiet", "--json"]
    for n_trials in trials:
        done = subprocess.run(
            ["bash", str(FOLDER / "slurm.sh"), *words, "--trials", str(n_trials)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout[done.stdout.index("\n{") :])
        assert shown["summary"]["complete"] == n_trials and shown["front"]["members"]
        # Two nodes had joined, each by a `ray start` of its own; none is left.
        assert done.stdout.count("Ray runtime started") == 2
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            pass
