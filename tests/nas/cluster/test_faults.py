"""What befalls a search on a true Ray of several nodes, and that it goes on."""

import functools
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from executor_fakes import run_trials
from fault_fakes import EPOCHS, Faulty, faulty_measure, notes, wait_for
from search_fakes import changed, finished, make_session

from nas.cluster import connect as ray_cluster
from nas.cluster import measuring as ray_measuring
from nas.cluster.trial_worker import evaluate_trial
from nas.core.files import write_json
from nas.core.retry import patience
from nas.records.config import GateConfig
from nas.searching.controller.attempts import ATTEMPTS
from nas.store.driver import Driver

pytestmark = pytest.mark.e2e
TESTS = Path(__file__).parents[2]
RAY_MEASURE = ray_measuring.RayMeasure
# Longer than a worker's start on a busy machine, which counts as the trial's own time.
LIMIT_S = 30.0


@pytest.fixture(scope="module")
def cluster():
    """A node that measures and trains, with the driver connected to it."""
    import ray
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent), before])
    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "resources": {ray_cluster.METER_RESOURCE: 1},
            "include_dashboard": False,
            "object_store_memory": 100 * 1024 * 1024,
        },
    )
    try:
        with ray_cluster.cluster(nodes.address, 2, "cpu"):
            yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def search(cluster, tmp_path, monkeypatch):
    """Runs a search whose trials suffer ``faults``; ``meanwhile`` runs beside it."""

    def run(faults=None, *, measuring=None, trials=4, workers=2, timeout_s=None, meanwhile=None):
        measuring = faulty_measure(tmp_path, measuring or {})
        measure = functools.partial(RAY_MEASURE, function=measuring)
        monkeypatch.setattr(ray_measuring, "RayMeasure", measure)
        gate = GateConfig(startup_trials=99)
        session = make_session(tmp_path, trials=trials, sampler="random", gate=gate)
        with ThreadPoolExecutor(1) as beside, patience(wait_s=30.0):
            done = beside.submit(meanwhile or (lambda: None))
            run_trials(
                session,
                Faulty(faults or {}),
                tmp_path / "trials",
                # At an address measuring is a task of its own, whose process may die.
                driver=Driver(workers, str(cluster.address), trial_timeout_s=timeout_s),
            )
            done.result()
        return session

    return run


def of_trial(folder, number, name):
    return notes(folder / "trials" / str(number) / name)


def kill_first(log):
    wait_for(lambda: notes(log))
    with suppress(ProcessLookupError):
        os.kill(int(notes(log)[0]), signal.SIGKILL)


EACH_EPOCH = [str(epoch + 1) for epoch in range(EPOCHS)]


def test_a_search_goes_on_through_whatever_befalls_its_trials(search, tmp_path, capfd):
    def meanwhile():
        # Once it has kept an epoch.
        wait_for(lambda: len(of_trial(tmp_path, 1, "epochs")) == 2)
        kill_first(tmp_path / "trials" / "1" / "attempts")
        kill_first(tmp_path / "7.measured")

    session = search(
        {
            1: "waits to be killed",
            2: "is always killed",
            3: "hangs",
            4: "memory",
            5: "gpu memory",
            6: "full disk",
            9: "data away",
        },
        measuring={7: "waits to be killed", 8: "sensor lost"},
        trials=10,
        timeout_s=LIMIT_S,
        meanwhile=meanwhile,
    )
    found = {r.number: r.reason or r.state for r in session.records()}
    assert found == dict.fromkeys(range(10), "complete") | {
        2: "its worker died (out of memory, a signal, or a lost node)",
        3: f"it took longer than {LIMIT_S:g} s",
        4: "out of memory",
        5: "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.",
    }
    # A killed worker costs no epoch that was kept, and a measurement no training.
    attempts = {n: len(of_trial(tmp_path, n, "attempts")) for n in range(10)}
    assert attempts == dict.fromkeys(range(10), 1) | {1: 2, 2: ATTEMPTS, 9: 2}
    assert of_trial(tmp_path, 1, "epochs") == of_trial(tmp_path, 9, "epochs") == EACH_EPOCH
    # What Ray says of it all would be amid results.
    assert capfd.readouterr().out == ""
    assert [len(notes(tmp_path / f"{n}.measured")) for n in (0, 7, 8)] == [1, 2, 2]
    # All of it is in the study, for whoever opens it next.
    again = make_session(tmp_path, trials=10, create=False)
    assert again.records() == session.records() and not again.in_flight()


def test_a_lost_node_takes_no_trial_with_it(search, cluster, tmp_path):
    lost = cluster.add_node(num_cpus=1, object_store_memory=80 * 1024 * 1024)
    logs = [tmp_path / "trials" / str(n) / "attempts" for n in (0, 1, 2)]

    def meanwhile():
        # Three at a time fill both nodes, so that one of them is on the node that goes.
        wait_for(lambda: all(len(of_trial(tmp_path, n, "epochs")) == 2 for n in (0, 1, 2)))
        cluster.remove_node(lost, allow_graceful=False)
        # Those on the node that stays are let go of in another way.
        for log in logs:
            kill_first(log)

    faults = dict.fromkeys((0, 1, 2), "waits to be killed")
    session = search(faults, workers=3, meanwhile=meanwhile)
    assert [r.reason or r.state for r in session.records()] == ["complete"] * 4
    for number in (0, 1, 2):
        assert of_trial(tmp_path, number, "epochs") == EACH_EPOCH


def test_a_worker_that_rays_memory_monitor_ends_does_not_end_the_search(
    search, tmp_path, monkeypatch
):
    import ray
    from ray.air.execution._internal.actor_manager import RayActorManager

    step, killed = RayActorManager.next, []

    def step_or_kill(manager, *given, **named):
        tasks = manager._actor_task_events
        if not killed and len(of_trial(tmp_path, 1, "epochs")) == 2 and tasks.num_futures:
            killed.append(future := next(iter(tasks.get_futures())))
            _, on_error = tasks._tracked_futures.pop(future)
            on_error(ray.exceptions.OutOfMemoryError("1 worker was killed"))
        return step(manager, *given, **named)

    monkeypatch.setattr(RayActorManager, "next", step_or_kill)
    session = search({1: "waits to be killed"})
    assert killed and [r.reason or r.state for r in session.records()] == ["complete"] * 4
    assert len(of_trial(tmp_path, 1, "attempts")) == 2
    # Nothing that was reserved for those that ended stays so.
    wait_for(lambda: ray.available_resources().get("CPU") == 2.0)


def test_storage_that_is_away_for_a_while_is_waited_for(search, tmp_path):
    away = tmp_path.with_name("away")

    def meanwhile():
        wait_for(lambda: of_trial(tmp_path, 1, "epochs"))
        tmp_path.rename(away)
        time.sleep(1.5)
        # What a worker made meanwhile is not what was there.
        shutil.rmtree(tmp_path, ignore_errors=True)
        away.rename(tmp_path)

    session = search(trials=8, meanwhile=meanwhile)
    assert [r.reason or r.state for r in session.records()] == ["complete"] * 8
    again = make_session(tmp_path, trials=8, create=False)
    assert again.records() == session.records()


def test_what_had_ended_before_its_worker_died_is_not_done_again(tmp_path):
    session = make_session(tmp_path, trials=1)
    candidate = session.next_candidate()
    ended = finished(candidate)
    (tmp_path / "0").mkdir()
    write_json(tmp_path / "0" / "result.json", ended.to_dict())
    assert evaluate_trial(candidate, tmp_path / "0", None, None) == ended.outcome
    other = changed(candidate, replica=1)
    assert evaluate_trial(other, tmp_path / "0", None, None).state == "failed"
