"""A search in this process itself, without Ray."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from search_fakes import SPACE, finished

import nas
from nas.core.retry import Waits
from nas.core.time_limit import TimeLimitError, check_time, time_left_s, time_limit
from nas.records.config import SearchConfig
from nas.records.device_names import MeasuredDevice
from nas.searching import in_process, study
from nas.searching.in_process import InProcessBackend
from nas.store.driver import Driver
from predictors.measurement.process import MeasureInterrupted, MeasureTimeout

ROOT = Path(__file__).parents[3]
# Ray cannot even be looked for; the same of what it brings with it.
WITHOUT_RAY = """
import importlib.abc, json, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "ray":
            raise ImportError("Ray is imported")

sys.meta_path.insert(0, Refuse())
from record_fakes import made_record, true_j

import nas
from nas.cli.main import main
from nas.records.rungs import HalvingConfig
from nas.searching import in_process
from nas.training.config import DistillConfig

from dataclasses import replace

config = nas.recipe("quickstart", epochs=3, trials=2, meter="estimate", protocol="quick")
config = replace(
    config,
    training=replace(config.training, distill=DistillConfig()),
    teacher="largest",
    halving=HalvingConfig(2, 1, startup_trials=3),
    refine=1,
)
# Compiling and measuring take longer than all else here.
in_process.measure_candidate = lambda a, work, **_: made_record(a, work, true_j(a, work))
run = nas.search(config, "run", workers=0)
assert main(["resume", "run", "--trials", "3", "--json", "--quiet"]) == 0
assert not [name for name in sys.modules if name.partition(".")[0] == "ray"]
"""


def test_a_search_with_a_teacher_rungs_and_replicas_imports_no_ray(tmp_path):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = nas.load(tmp_path / "run")
    assert run.driver.workers == 0
    assert json.loads(done.stdout)["summary"]["complete"] == 3
    assert [r.state for r in run.trials()] == ["complete"] * 3
    assert (tmp_path / "run" / "teacher").is_dir()
    assert list((tmp_path / "run" / "trials").glob("*/replica-1/result.json"))


class Formula:
    def __init__(self, *_):
        pass

    def evaluate(self, candidate, folder, measure, tell=None):
        return finished(candidate).outcome


def config(**changes):
    given = {"trials": 3, "sampler": "random", "meter": "estimate", "protocol": "quick"}
    return SearchConfig(task="digits", space=SPACE, **(given | changes))


def test_what_the_driver_was_is_kept_and_another_may_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "TrainingEvaluator", Formula)
    run = nas.search(config(), tmp_path / "run", workers=0)
    assert [r.state for r in run.trials()] == ["complete"] * 3
    more = nas.resume(run.folder, trials=5)
    assert more.driver == Driver(0) and len(more.trials()) == 5
    with pytest.raises(ValueError, match="workers must be >= 1 with address auto, got 0"):
        nas.resume(run.folder, trials=6, address="auto")
    assert len(nas.load(run.folder).trials()) == 5


def test_a_candidate_that_fails_fails_alone(tmp_path, monkeypatch):
    class Failing(Formula):
        def evaluate(self, candidate, folder, measure, tell=None):
            if candidate.number == 1:
                raise RuntimeError("CUDA out of memory")
            return finished(candidate).outcome

    monkeypatch.setattr(study, "TrainingEvaluator", Failing)
    run = nas.search(config(), tmp_path / "run", workers=0)
    assert [r.state for r in run.trials()] == ["complete", "failed", "complete"]


def test_ctrl_c_keeps_everything_and_the_search_goes_on(tmp_path, monkeypatch):
    class Interrupted(Formula):
        def evaluate(self, candidate, folder, measure, tell=None):
            if candidate.number == 1:
                raise KeyboardInterrupt
            return finished(candidate).outcome

    with monkeypatch.context() as patch:
        patch.setattr(study, "TrainingEvaluator", Interrupted)
        run = nas.search(config(refine=2), tmp_path / "run", workers=0)
    assert [r.state for r in run.trials()] == ["complete", "running"]
    monkeypatch.setattr(study, "TrainingEvaluator", Formula)
    assert [r.state for r in nas.resume(run.folder).trials()] == ["complete"] * 3


def test_training_stops_at_the_first_step_beyond_the_limit(tmp_path):
    long = nas.recipe("quickstart", epochs=4000, trials=1, meter="estimate", protocol="quick")
    run = nas.search(long, tmp_path / "run", workers=0, trial_timeout_s=1.0)
    (record,) = run.trials()
    assert record.state == "failed" and record.reason == "it took longer than 1 s"
    assert 0 < record.duration_s < 20 and record.train_energy_j > 0


def test_a_limit_counts_no_waits_and_ends_with_its_context(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("nas.core.time_limit.time.monotonic", lambda: clock[0])
    waits = Waits()
    with time_limit(5.0, waits):
        clock[0] = 4.0
        check_time()
        assert time_left_s() == pytest.approx(1.0)
        monkeypatch.setattr(Waits, "total_s", lambda _: 3.0)
        clock[0] = 7.0
        check_time()
        clock[0] = 8.0
        with pytest.raises(TimeLimitError, match="longer than 5 s"):
            check_time()
    check_time()
    with time_limit(None, waits):
        assert time_left_s() is None


@pytest.mark.parametrize(
    ("deaths", "calls", "raised"),
    [(0, 1, None), (2, 3, None), (9, 3, MeasureInterrupted)],
)
def test_a_measuring_process_that_is_killed_is_started_again(
    tmp_path, monkeypatch, deaths, calls, raised
):
    seen = []

    def measure(*_, **named):
        seen.append(named["timeout_s"])
        if len(seen) <= deaths:
            raise MeasureInterrupted("killed")
        return "record"

    monkeypatch.setattr(in_process, "measure_candidate", measure)
    fresh = in_process.LocalMeasure("cpu", "estimate", None, None)
    if raised is None:
        assert fresh(None, None, tmp_path, tmp_path) == "record"
    else:
        with pytest.raises(raised):
            fresh(None, None, tmp_path, tmp_path)
    assert seen == [None] * calls


def test_measuring_takes_no_longer_than_what_is_left_of_the_trial(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("nas.core.time_limit.time.monotonic", lambda: clock[0])

    def measure(*_, timeout_s, **__):
        clock[0] += timeout_s
        raise MeasureTimeout(f"measuring took longer than {timeout_s:g} s")

    monkeypatch.setattr(in_process, "measure_candidate", measure)
    with time_limit(5.0, Waits()), pytest.raises(TimeLimitError, match="longer than 5 s"):
        in_process.LocalMeasure("cpu", "estimate", None, None)(None, None, tmp_path, tmp_path)


def test_devices_by_name_are_this_machines():
    backend = InProcessBackend(Driver(0), None)
    devices = (MeasuredDevice("here"), MeasuredDevice("again", "cpu", "estimate"))
    found = backend.find_meters(devices, "cpu", "estimate")
    assert [(f.name, f.device, f.meter) for f in found] == [
        ("here", "cpu", "estimate"),
        ("again", "cpu", "estimate"),
    ]


def test_progress_is_looked_at_while_a_function_runs(monkeypatch):
    import time

    monkeypatch.setattr(in_process, "_LOOK_S", 0.01)
    looks = []
    InProcessBackend(Driver(0), None).run(time.sleep, 0.2, while_waiting=lambda: looks.append(1))
    assert looks
    with pytest.raises(ValueError, match="no data"):
        InProcessBackend(Driver(0), None).run(
            lambda: (_ for _ in ()).throw(ValueError("no data")), while_waiting=lambda: None
        )
